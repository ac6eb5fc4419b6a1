import { describe, expect, it } from "vitest";
import { chunk, join } from "../cues/mp4.fixture";
import type { Cue } from "../cues/cue";
import { FakeClock } from "../lib/fake";
import { Push, type Sink, type Wire } from "./push";
import type { Failure } from "./rung";

/** A media element that plays what was appended, at its rate, by the fake clock. */
class FakeSink implements Sink {
    appended: { bytes: Uint8Array; offset: number }[] = [];
    ready: () => void = () => undefined;
    dry: () => void = () => undefined;
    closed = false;
    speed = 1;
    position = 0;
    playing = false;
    open(ready: () => void, _: unknown, dry: () => void) {
        this.ready = ready;
        this.dry = dry;
    }
    append(bytes: Uint8Array, offset: number) {
        this.appended.push({ bytes, offset });
    }
    play() {
        this.playing = true;
    }
    seek(time: number) {
        this.position = time;
    }
    rate(rate: number) {
        this.speed = rate;
    }
    time = () => this.position;
    close() {
        this.closed = true;
    }
}

function setUp() {
    const clock = new FakeClock();
    const sink = new FakeSink();
    const wire: Wire & { closed: boolean } = {
        closed: false,
        onmessage: () => undefined,
        onclose: () => undefined,
        close() {
            this.closed = true;
        },
    };
    const told: unknown[] = [];
    const cues: Cue[] = [];
    const port = {
        sound: () => told.push("sound"),
        failed: (f: Failure) => told.push(f),
        ended: () => told.push("ended"),
    };
    let arrived = 0;
    const push = new Push(
        port,
        wire,
        sink,
        clock,
        (c) => cues.push(...c),
        (frame) => (arrived = frame),
    );
    push.start();
    const init = new Uint8Array([1, 2, 3]);
    return { clock, sink, wire, told, cues, push, init, arrived: () => arrived };
}

/** Sends the beginning of a programme at a frame, with a burst of two parts, and lets it sound. */
function begin(s: ReturnType<typeof setUp>, frame: number) {
    s.wire.onmessage(JSON.stringify({ kind: "hello", origin: "", epoch: 1, frame, cadence_ms: 200 }));
    s.wire.onmessage(s.init);
    s.sink.ready();
    s.wire.onmessage(join(chunk(frame), chunk(frame + 10)));
    s.sink.position = 0.05;
    s.clock.advance(50);
}

describe("Push", () => {
    it("starts on two parts, not on one, and tells the frame heard and the one arrived", () => {
        const s = setUp();
        s.wire.onmessage(s.init);
        s.wire.onmessage(chunk(61_230));
        s.sink.ready();
        expect(s.sink.playing).toBe(false);
        expect(s.push.frame()).toBeNull();
        s.wire.onmessage(chunk(61_240));
        expect(s.sink.playing).toBe(true);
        expect(s.told).toEqual([]);
        s.sink.position = 0.1;
        s.clock.advance(50);
        expect(s.told).toEqual(["sound"]);
        expect(s.push.frame()).toBeCloseTo(61_235, 6);
        expect(s.arrived()).toBe(61_250);
        expect(s.sink.appended.map((a) => a.offset)).toEqual([0, -1224.6, -1224.6]);
    });

    it("hands over cues, and is not confused by the hello", () => {
        const s = setUp();
        begin(s, 0);
        s.wire.onmessage('[{"frame":20,"kind":"levels","data":{}}]');
        expect(s.cues).toEqual([{ frame: 20, kind: "levels", data: {} }]);
    });

    it("takes up a jump in decode time, also within a message", () => {
        const s = setUp();
        begin(s, 1000);
        s.wire.onmessage(join(chunk(1020), chunk(1500), chunk(1510)));
        const [before, after] = s.sink.appended.slice(-2);
        expect(before?.bytes).toEqual(chunk(1020));
        expect(after?.bytes).toEqual(join(chunk(1500), chunk(1510)));
        // the element's time runs on without a gap: 0.6 s were appended before frame 1500
        expect((after?.offset ?? 0) + 1500 * 0.02).toBeCloseTo(0.6, 9);
        s.sink.position = 0.55;
        expect(s.push.frame()).toBeCloseTo(1027.5, 6);
        s.sink.position = 0.65;
        expect(s.push.frame()).toBeCloseTo(1502.5, 6);
    });

    it("leaves out what it has already", () => {
        const s = setUp();
        begin(s, 1000);
        const n = s.sink.appended.length;
        s.wire.onmessage(join(chunk(1010), chunk(1020)));
        expect(s.sink.appended.slice(n).map((a) => a.bytes)).toEqual([chunk(1020)]);
    });

    it.each([
        ["too much in hand", 0.9, 1],
        ["too little in hand", 0.001, 1],
        ["a clock that is 100 ppm fast", 0.2, 1.0001],
    ])("holds the low water with %s", (_, inHand, drift) => {
        const s = setUp();
        begin(s, 0);
        s.sink.position = 0.4 - inHand;
        let end = 0.4;
        const lows: number[] = [];
        for (let frame = 20; frame < 20 + 50 * 60; frame += 10) {
            for (let ms = 0; ms < 200; ms += 10) {
                s.clock.advance(10);
                s.sink.position = Math.min(end, s.sink.position + 0.01 * s.sink.speed * drift);
            }
            lows.push(end - s.sink.position);
            s.wire.onmessage(chunk(frame));
            end += 0.2;
        }
        const settled = lows.slice(-50);
        expect(Math.min(...settled)).toBeGreaterThan(0.14);
        expect(Math.max(...settled)).toBeLessThan(0.23);
    });

    it("keeps more in hand on a device that was late, or ran dry, and forgets it after minutes", () => {
        const s = setUp();
        begin(s, 0);
        let end = 0.4;
        let frame = 20;
        const play = (seconds: number) => {
            const lows: number[] = [];
            for (let part = 0; part < seconds * 5; part++, frame += 10) {
                for (let ms = 0; ms < 200; ms += 10) {
                    s.clock.advance(10);
                    s.sink.position = Math.min(end, s.sink.position + 0.01 * s.sink.speed);
                }
                lows.push(end - s.sink.position);
                s.wire.onmessage(chunk(frame));
                end += 0.2;
            }
            return Math.min(...lows.slice(-25));
        };
        expect(play(30)).toBeLessThan(0.23);
        s.clock.stall(350); // the page did nothing, the element played what it had
        s.sink.position = Math.min(end, s.sink.position + 0.35);
        expect(play(40)).toBeGreaterThan(0.26);
        s.sink.dry();
        expect(play(60)).toBeGreaterThan(0.31);
        expect(play(330)).toBeLessThan(0.23);
    });

    it("skips what would take too long to catch up", () => {
        const s = setUp();
        begin(s, 0);
        let frame = 20;
        s.clock.advance(7600);
        for (; frame < 400; frame += 10) s.wire.onmessage(chunk(frame)); // nothing was played meanwhile
        for (; frame < 550; frame += 10) {
            s.wire.onmessage(chunk(frame));
            s.clock.advance(200);
            s.sink.position += 0.2;
        }
        expect(frame / 50 - s.sink.position).toBeLessThan(0.6);
    });

    it("ends when the end was heard", () => {
        const s = setUp();
        begin(s, 0);
        s.wire.onclose(1000, "");
        s.clock.advance(400);
        expect(s.told).toEqual(["sound"]);
        s.clock.advance(200);
        expect(s.told).toEqual(["sound", "ended"]);
    });

    it.each([
        [1012, "7", { why: "restart", backIn: 7 }],
        [1012, "soon", { why: "restart", backIn: 5 }],
        [1013, "", { why: "full" }],
        [1013, "12", { why: "full", backIn: 12 }],
        [1006, "", { why: "connection" }],
    ])("tells why the server closed: %d %s", (code, reason, failure) => {
        const s = setUp();
        s.wire.onclose(code, reason);
        expect(s.told).toEqual([failure]);
    });

    it("closes both ends when stopped, and tells nothing after", () => {
        const s = setUp();
        begin(s, 0);
        s.wire.onclose(1000, "");
        s.push.stop();
        s.wire.onclose(1006, "");
        s.wire.onmessage(chunk(20));
        s.clock.advance(5000);
        expect(s.told).toEqual(["sound"]);
        expect([s.wire.closed, s.sink.closed]).toEqual([true, true]);
    });
});
