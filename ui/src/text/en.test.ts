import { describe, expect, it } from "vitest";
import { event, listen, span } from "./en";

describe("span", () => {
    it.each([
        [0, "0 seconds"],
        [1, "1 second"],
        [61, "1 minute 1 second"],
        [3600, "1 hour"],
        [3725, "1 hour 2 minutes"],
        [90_000, "1 day 1 hour"],
        [-5, "0 seconds"],
    ])("%d s is %s", (seconds, text) => expect(span(seconds)).toBe(text));
});

it("promises a start at any moment for ten minutes only", () => {
    expect(event.late(0)).toBe("It will start any moment.");
    expect(event.late(599)).toBe("It will start any moment.");
    expect(event.late(600)).toBe("The start is delayed.");
});

it("says in words how far behind", () => {
    expect([200, 500, 1000, 4300].map(listen.behind)).toEqual([
        "Less than half a second behind the stage.",
        "About half a second behind the stage.",
        "About a second behind the stage.",
        "About 4 seconds behind the stage.",
    ]);
});
