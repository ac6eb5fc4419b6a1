import { describe, expect, it } from "vitest";
import { fromLocal, position, toLocal } from "./time";

describe("fromLocal", () => {
    it.each([
        ["2026-11-28T19:00", "Europe/Berlin", "2026-11-28T18:00:00.000Z"],
        ["2026-07-01T19:00", "Europe/Berlin", "2026-07-01T17:00:00.000Z"],
        ["2026-07-01T00:30", "Asia/Kolkata", "2026-06-30T19:00:00.000Z"],
        ["2026-11-28T19:00", "UTC", "2026-11-28T19:00:00.000Z"],
        // the clocks go forward at 02:00: 02:30 does not exist, and is read by the clock before
        ["2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:30:00.000Z"],
        // the clocks go back at 03:00: 02:30 comes twice, the first is meant
        ["2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30:00.000Z"],
        ["2026-03-08T03:00", "America/New_York", "2026-03-08T07:00:00.000Z"],
    ])("%s in %s is %s", (local, zone, instant) => {
        expect(fromLocal(local, zone).toISOString()).toBe(instant);
    });

    it("undoes toLocal at every half hour of a month in which the clocks change", () => {
        for (let at = Date.UTC(2026, 9, 1); at < Date.UTC(2026, 10, 1); at += 1_800_000) {
            const local = toLocal(new Date(at), "Europe/London");
            const again = toLocal(fromLocal(local, "Europe/London"), "Europe/London");
            expect(again).toBe(local);
        }
    });

    it("is no date where there is none", () => {
        expect(fromLocal("", "UTC").getTime()).toBeNaN();
    });
});

it("position is read as on a player", () => {
    expect([0, 59.9, 61, 3600, 3723].map(position)).toEqual(["0:00", "0:59", "1:01", "1:00:00", "1:02:03"]);
});
