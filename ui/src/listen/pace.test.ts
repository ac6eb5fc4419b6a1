import { describe, expect, it } from "vitest";
import { chunk, join } from "../cues/mp4.fixture";
import type { Cue } from "../cues/cue";
import { FakeClock } from "../lib/fake";
import { changeOf, rateFor } from "./pace";
import { Push, type Sink, type Wire } from "./push";

/** A change of the server's cadence: when its head is there, and whether (and how long before) it says so. */
interface Turn {
    at: number; // seconds of programme
    ms: number;
    ahead?: number; // seconds of programme between the announcement and the change
}

interface Course {
    /** The cadence told in the hello, in milliseconds. */
    cadence: number;
    turns?: Turn[];
    seconds: number;
    /** Delay of the network per message, at most, in milliseconds. */
    jitter?: number;
    /** Messages of a visit: each part in a message of its own (with its text before), or one for all. */
    split?: boolean;
    /** How late in its part a visit comes, in milliseconds. */
    phase?: number;
    /** What the first burst holds, in seconds. */
    burst?: number;
    /** How much faster the listener's clock runs than the server's. */
    drift?: number;
    seed?: number;
}

interface Second {
    /** How long nothing could be played, in milliseconds. */
    stall: number;
    /** Mean delay between the head and what is heard, in milliseconds. */
    behind: number;
    slowest: number;
    fastest: number;
}

/**
 * A server, a network and a media element that play by the fake clock in steps of 5 ms: the programme's head moves on, parts
 * close every 200 ms, and a listener is visited at the cadence with all that closed since.
 */
function simulate(course: Course) {
    const { seconds, turns = [], jitter = 30, split = true, phase = 0, drift = 1, seed = 1 } = course;
    let state = seed;
    const random = () => (state = (state * 48_271) % 0x7fffffff) / 0x7fffffff;
    const clock = new FakeClock();
    const element = { position: 0, speed: 1, playing: false, ends: 0, at: null as number | null };
    let ready: () => void = () => undefined;
    const sink: Sink = {
        open: (fn) => (ready = fn),
        append: (bytes) => void (bytes.length > 3 && (element.ends += lengthOf(bytes))),
        play: () => (element.playing = true),
        seek: (time) => (element.position = time),
        rate: (rate) => (element.speed = rate),
        time: () => element.position,
        close: () => undefined,
    };
    const wire: Wire = { onmessage: () => undefined, onclose: () => undefined, close: () => undefined };
    const failures: unknown[] = [];
    const cues: Cue[] = [];
    const port = { sound: () => undefined, failed: (f: unknown) => failures.push(f), ended: () => undefined };
    const push = new Push(
        port,
        wire,
        sink,
        clock,
        (c) => cues.push(...c),
        () => undefined,
    );
    push.start();
    ready();

    const burst = course.burst ?? course.cadence / 1000 + 0.4;
    const first = 1000;
    const headAtJoin = first + Math.round(burst * 5) * 10; // in frames
    let cadence = course.cadence;
    let sent = first;
    let visit = cadence * random();
    const mail: { at: number; data: (string | Uint8Array)[] }[] = [];
    const deliver = (now: number, data: (string | Uint8Array)[]) => {
        const at = Math.max(now + jitter * random(), mail[mail.length - 1]?.at ?? 0); // a stream keeps its order
        mail.push({ at, data });
    };
    const parts = (upTo: number): (string | Uint8Array)[] => {
        const all: Uint8Array[] = [];
        for (; sent + 10 <= upTo; sent += 10) all.push(chunk(sent));
        if (all.length === 0) return [];
        return split ? all.flatMap((part) => ["[]", part]) : ["[]", join(...all)];
    };
    const hello = JSON.stringify({ kind: "hello", frame: first, cadence_ms: cadence });
    deliver(0, [hello, new Uint8Array(3), ...parts(headAtJoin)]);
    const open = [...turns];
    const unsaid = turns.filter((turn) => turn.ahead !== undefined);
    const log: Second[] = [];
    let second: Second = { stall: 0, behind: 0, slowest: 9, fastest: 0 };
    const step = 5;
    for (let now = 0; now < seconds * 1000; now += step) {
        const head = headAtJoin + now / 20;
        while (open[0] && head >= headAtJoin + open[0].at * 50) {
            cadence = open[0].ms;
            if (cadence < 400) visit = Math.min(visit, now + cadence);
            open.shift();
        }
        if (now >= visit + phase) {
            const say = unsaid.filter((turn) => head >= headAtJoin + (turn.at - (turn.ahead ?? 0)) * 50);
            for (const turn of say) {
                unsaid.splice(unsaid.indexOf(turn), 1);
                const data = { rung: "push", ms: turn.ms, from: headAtJoin + turn.at * 50 };
                deliver(now, [JSON.stringify([{ frame: Math.floor(head), kind: "cadence", data }])]);
            }
            deliver(now, parts(head));
            visit += cadence;
        }
        while (mail[0] && mail[0].at <= now) for (const data of mail.shift()?.data ?? []) wire.onmessage(data);
        clock.advance(step);
        if (element.playing) {
            const next = element.position + (step / 1000) * element.speed * drift;
            element.position = Math.min(next, element.ends);
            if (next > element.ends + 1e-9) second.stall += (next - element.ends) * 1000;
            second.slowest = Math.min(second.slowest, element.speed);
            second.fastest = Math.max(second.fastest, element.speed);
        }
        second.behind += ((head - (push.frame() ?? head)) * 20) / (1000 / step);
        if ((now + step) % 1000 === 0) {
            log.push(second);
            second = { stall: 0, behind: 0, slowest: 9, fastest: 0 };
        }
    }
    const span = (from: number, to = seconds) => log.slice(from, to);
    return {
        log,
        cues,
        failures,
        stall: (from = 0, to = seconds) => span(from, to).reduce((sum, s) => sum + s.stall, 0),
        behind: (from: number, to: number) => span(from, to).reduce((sum, s) => sum + s.behind, 0) / (to - from),
        slowest: (from = 0, to = seconds) => Math.min(...span(from, to).map((s) => s.slowest)),
        fastest: (from = 0, to = seconds) => Math.max(...span(from, to).map((s) => s.fastest)),
    };
}

/** Seconds of audio in appended chunks of ten frames. */
function lengthOf(bytes: Uint8Array): number {
    return (bytes.length / chunk(0).length) * 0.2;
}

describe("changeOf", () => {
    const cue = (data: unknown, kind = "cadence") => ({ frame: 1, kind, data });
    it("reads an announcement, and nothing else", () => {
        expect(changeOf(cue({ rung: "push", ms: 1000, from: 7 }))).toEqual({ rung: "push", ms: 1000, from: 7 });
        expect(changeOf(cue({ rung: "whep", ms: 60, from: 0 }))).toEqual({ rung: "whep", ms: 60, from: 0 });
        for (const data of [
            null,
            [],
            { rung: "hls", ms: 1000, from: 7 },
            { rung: "push", ms: 0, from: 7 },
            { rung: "push", ms: "1000", from: 7 },
            { rung: "push", ms: 1000, from: -1 },
            { rung: "push", ms: 1000 },
        ])
            expect(changeOf(cue(data))).toBeNull();
        expect(changeOf(cue({ rung: "push", ms: 1000, from: 7 }, "levels"))).toBeNull();
    });
});

describe("rateFor", () => {
    it("stays within what an ear takes for a voice", () => {
        expect(rateFor(0.18)).toBe(1);
        expect(rateFor(0.2)).toBe(1);
        expect(rateFor(0.28)).toBeCloseTo(1.05);
        expect(rateFor(2)).toBe(1.1);
        expect(rateFor(0.06)).toBeCloseTo(0.94);
        expect(rateFor(-1)).toBe(0.88);
    });
});

const seeds = [1, 2, 3, 4, 5, 6, 7, 8];

describe("a listener by push", () => {
    it.each([200, 400, 1000, 2000])(
        "joins at a cadence of %d ms, without a gap, and stays close behind it",
        (cadence) => {
            for (const seed of seeds)
                for (const split of [true, false]) {
                    const run = simulate({ cadence, seconds: 90, seed, split });
                    expect(run.stall()).toBe(0);
                    // a part of 200 ms, half a cadence on average until it is sent, and what is left when the next comes
                    const behind = run.behind(60, 90);
                    expect(behind).toBeGreaterThan(cadence + 50);
                    expect(behind).toBeLessThan(cadence + 350);
                }
        },
    );

    it.each([
        [200, 400],
        [400, 1000],
        [200, 1000],
        [1000, 2000],
    ])("goes from %d to %d ms, announced ten seconds ahead, without a gap", (cadence, ms) => {
        for (const seed of seeds)
            for (const phase of [0, 90]) {
                const run = simulate({ cadence, turns: [{ at: 30, ms, ahead: 10 }], seconds: 90, seed, phase });
                expect(run.stall()).toBe(0);
                expect(run.slowest(10)).toBeGreaterThanOrEqual(0.88);
                expect(run.behind(60, 90)).toBeLessThan(ms + 350);
            }
    });

    it("gathers 1.8 s in the ten seconds before 2000 ms only by playing slower than else, and at leisure in twenty", () => {
        for (const seed of seeds) {
            const short = simulate({ cadence: 200, turns: [{ at: 30, ms: 2000, ahead: 10 }], seconds: 90, seed });
            expect(short.stall()).toBe(0);
            expect(short.slowest(10)).toBeGreaterThanOrEqual(0.8);
            const long = simulate({ cadence: 200, turns: [{ at: 30, ms: 2000, ahead: 20 }], seconds: 90, seed });
            expect(long.stall()).toBe(0);
            expect(long.slowest(10)).toBeGreaterThan(0.88);
        }
    });

    it("goes up step by step and back, through overlapping announcements", () => {
        const turns = [
            { at: 30, ms: 400, ahead: 10 },
            { at: 36, ms: 1000, ahead: 10 },
            { at: 50, ms: 2000, ahead: 12 },
            { at: 100, ms: 1000, ahead: 2 },
            { at: 104, ms: 200, ahead: 2 },
        ];
        for (const seed of seeds) {
            const run = simulate({ cadence: 200, turns, seconds: 160, seed });
            expect(run.stall()).toBe(0);
            expect(run.slowest(10)).toBeGreaterThanOrEqual(0.88);
            expect(run.fastest(10)).toBeLessThanOrEqual(1.1);
            expect(run.behind(80, 100)).toBeLessThan(2350);
            expect(run.behind(140, 160)).toBeLessThan(500);
        }
    });

    it("comes back to a quick cadence within half a minute, without a gap", () => {
        for (const seed of seeds) {
            const run = simulate({ cadence: 2000, turns: [{ at: 30, ms: 200, ahead: 2 }], seconds: 90, seed });
            expect(run.stall()).toBe(0);
            expect(run.behind(60, 90)).toBeLessThan(500);
        }
    });

    it("suffers an unannounced stretch once, and has a buffer for it then", () => {
        for (const seed of seeds)
            for (const ms of [400, 1000, 2000]) {
                const run = simulate({ cadence: 200, turns: [{ at: 30, ms }], seconds: 120, seed });
                expect(run.stall()).toBeGreaterThan(0);
                expect(run.stall()).toBeLessThan(ms);
                expect(run.stall(50)).toBe(0);
                expect(run.behind(90, 120)).toBeLessThan(ms + 500);
            }
    });

    it.each([0.9999, 1.0001])("follows a clock that runs at %d of the server's", (drift) => {
        for (const cadence of [200, 2000]) {
            const run = simulate({ cadence, seconds: 600, drift });
            expect(run.stall()).toBe(0);
            expect(run.behind(560, 600)).toBeLessThan(cadence + 350);
        }
    });

    it("hands the other cues on, and keeps those of the cadence to itself", () => {
        expect(simulate({ cadence: 200, turns: [{ at: 3, ms: 400, ahead: 2 }], seconds: 6 }).cues).toEqual([]);
    });
});
