import { describe, expect, it } from "vitest";
import { FakeClock } from "../lib/fake";
import { LiveEdge } from "./edge";

describe("LiveEdge", () => {
    it("knows nothing before anything arrived", () => {
        expect(new LiveEdge(new FakeClock()).now()).toBeNull();
    });

    it("takes the least delayed arrival, not the last", () => {
        const clock = new FakeClock();
        const edge = new LiveEdge(clock);
        for (const delay of [80, 30, 300, 120]) {
            // part 10 … closes at frame 20 and is seen `delay` later
            clock.advance(1000);
            edge.see((clock.now() - delay) / 20);
        }
        expect(edge.now()).toBeCloseTo((clock.now() - 30) / 20, 6);
        edge.roundTrip(60);
        edge.roundTrip(400);
        expect(edge.now()).toBeCloseTo(clock.now() / 20, 6);
        expect(edge.behind(clock.now() / 20 - 10)).toBeCloseTo(200, 6);
    });

    it("a cue proves that its part has closed", () => {
        const clock = new FakeClock();
        const edge = new LiveEdge(clock);
        edge.seeCue(61_230);
        expect(edge.now()).toBe(61_240);
        edge.seeCue(61_239);
        expect(edge.now()).toBe(61_240);
    });

    it("forgets after a minute, so that clocks may drift and an epoch may come late", () => {
        const clock = new FakeClock();
        const edge = new LiveEdge(clock);
        edge.see(100);
        clock.advance(61_000);
        edge.see(3000);
        expect(edge.now()).toBe(3000);
    });
});
