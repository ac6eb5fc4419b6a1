import { describe, expect, it } from "vitest";
import { backoff, every } from "./clock";
import { FakeClock } from "./fake";

describe("backoff", () => {
    it("doubles up to the cap, half of it by chance", () => {
        expect([0, 1, 2, 9].map((n) => backoff(n, () => 0, 500, 15_000))).toEqual([250, 500, 1000, 7500]);
        expect([0, 1, 2, 9].map((n) => backoff(n, () => 1, 500, 15_000))).toEqual([500, 1000, 2000, 15_000]);
    });
});

describe("every", () => {
    it("ticks until it is stopped, also from within", () => {
        const clock = new FakeClock();
        let ticks = 0;
        const stop = every(clock, 100, () => {
            if (++ticks === 3) stop();
        });
        clock.advance(1000);
        expect(ticks).toBe(3);
    });
});
