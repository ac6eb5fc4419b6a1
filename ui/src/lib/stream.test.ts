import { describe, expect, it } from "vitest";
import { FakeClock } from "./fake";
import { Stream, type Source } from "./stream";

class FakeSource implements Source {
    readyState = 1;
    closed = false;
    private listeners: { kind: string; fn: (event: { data?: unknown }) => void }[] = [];
    addEventListener(kind: string, fn: (event: { data?: unknown }) => void) {
        this.listeners.push({ kind, fn });
    }
    close() {
        this.closed = true;
    }
    emit(kind: string, data?: unknown) {
        for (const l of this.listeners.filter((l) => l.kind === kind)) l.fn({ data });
    }
}

function setUp() {
    const clock = new FakeClock();
    const sources: FakeSource[] = [];
    const taken: unknown[] = [];
    const interruptions: boolean[] = [];
    const connect = () => {
        sources.push(new FakeSource());
        return sources[sources.length - 1] as FakeSource;
    };
    const stream = new Stream(
        connect,
        { stage: (data) => taken.push(data) },
        clock,
        (refused) => interruptions.push(refused),
        () => 1,
    );
    return { clock, sources, taken, stream, interruptions };
}

describe("Stream", () => {
    it("hands out what is JSON, of the kinds it knows", () => {
        const { stream, sources, taken } = setUp();
        stream.open();
        sources[0]?.emit("stage", '{"a":1}');
        sources[0]?.emit("stage", "{oops");
        sources[0]?.emit("other", "{}");
        expect(taken).toEqual([{ a: 1 }]);
    });

    it("leaves a lost connection to the browser, and reconnects itself after a refusal, later each time", () => {
        const { stream, sources, clock, interruptions } = setUp();
        stream.open();
        (sources[0] as FakeSource).readyState = 0; // connecting again
        sources[0]?.emit("error");
        clock.advance(60_000);
        expect(sources).toHaveLength(1);

        (sources[0] as FakeSource).readyState = 2;
        sources[0]?.emit("error");
        clock.advance(1000);
        expect(sources).toHaveLength(2);
        (sources[1] as FakeSource).readyState = 2;
        sources[1]?.emit("error");
        clock.advance(1999);
        expect(sources).toHaveLength(2);
        clock.advance(1);
        expect(sources).toHaveLength(3);
        expect(interruptions).toEqual([false, true, true]);
    });

    it("is silent once closed, and can be opened again", () => {
        const { stream, sources, taken, clock } = setUp();
        stream.open();
        stream.close();
        expect(sources[0]?.closed).toBe(true);
        sources[0]?.emit("stage", "1");
        (sources[0] as FakeSource).readyState = 2;
        sources[0]?.emit("error");
        clock.advance(60_000);
        expect(taken).toEqual([]);
        expect(sources).toHaveLength(1);
        stream.open();
        sources[1]?.emit("stage", "2");
        expect(taken).toEqual([2]);
    });
});
