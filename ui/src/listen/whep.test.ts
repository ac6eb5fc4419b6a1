import { describe, expect, it } from "vitest";
import { FakeClock, settle } from "../lib/fake";
import type { Failure } from "./rung";
import { askNack, unwrap, Whep, type Link } from "./whep";

describe("unwrap", () => {
    const wrap = 2 ** 32;
    it.each([0, 1, 61_230, 4_473_924, 4_473_925, 10_000_000])("finds frame %d from nearby knowledge", (frame) => {
        const timestamp = (frame * 960) % wrap;
        for (const off of [-90_000, -50, 0, 50, 90_000]) {
            expect(unwrap(timestamp, Math.max(0, frame + off))).toBeCloseTo(frame, 6);
        }
    });
});

describe("askNack", () => {
    const offer = "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n";
    it("asks for retransmission of Opus, once", () => {
        const asking = askNack(offer);
        expect(asking).toContain("a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 nack\r\n");
        expect(askNack(asking)).toBe(asking);
        expect(asking.replace("a=rtcp-fb:111 nack\r\n", "")).toBe(offer);
    });
    it("leaves an offer without Opus alone", () => {
        expect(askNack("m=audio 9 X 0\r\n")).toBe("m=audio 9 X 0\r\n");
    });
});

class FakeLink implements Link {
    now: number | null = null;
    closed = false;
    answered = "";
    onstate: (state: string) => void = () => undefined;
    onblocked: () => void = () => undefined;
    offer = () => Promise.resolve("offer");
    answer(sdp: string) {
        this.answered = sdp;
        return Promise.resolve();
    }
    timestamp = () => this.now;
    close() {
        this.closed = true;
    }
}

function setUp(post: () => Promise<{ answer: string; location: string }>) {
    const clock = new FakeClock();
    const link = new FakeLink();
    const told: unknown[] = [];
    const ended: string[] = [];
    const port = {
        sound: () => told.push("sound"),
        failed: (f: Failure) => told.push(f.why),
        ended: () => told.push("ended"),
    };
    const signalling = { post, end: (location: string) => void ended.push(location) };
    const whep = new Whep(
        port,
        link,
        signalling,
        clock,
        () => 5000,
        () => ({ why: "refused" }),
    );
    return { clock, link, told, ended, whep };
}

const accept = () => Promise.resolve({ answer: "answer", location: "/s/1" });

describe("Whep", () => {
    it("has sound once the timestamp played moves, and then tells the frame", async () => {
        const { clock, link, told, whep } = setUp(accept);
        whep.start();
        await settle();
        expect(link.answered).toBe("answer");
        clock.advance(500);
        link.now = 4990 * 960;
        clock.advance(500);
        expect(told).toEqual([]);
        link.now += 960;
        clock.advance(50);
        expect(told).toEqual(["sound"]);
        expect(whep.frame()).toBe(4991);
    });

    it("fails when it is refused", async () => {
        const { told, whep } = setUp(() => Promise.reject(new Error("409")));
        whep.start();
        await settle();
        expect(told).toEqual(["refused"]);
    });

    it("lets a connection heal for three seconds", async () => {
        const { clock, link, told, whep } = setUp(accept);
        whep.start();
        await settle();
        link.onstate("disconnected");
        clock.advance(2900);
        link.onstate("connected");
        clock.advance(5000);
        expect(told).toEqual([]);
        link.onstate("disconnected");
        clock.advance(3000);
        expect(told).toEqual(["connection"]);
    });

    it("ends its session when it is stopped, also if the answer comes only then", async () => {
        const first = setUp(accept);
        first.whep.start();
        await settle();
        first.whep.stop();
        expect(first.ended).toEqual(["/s/1"]);
        expect(first.link.closed).toBe(true);

        let answer: (value: { answer: string; location: string }) => void = () => undefined;
        const second = setUp(() => new Promise((resolve) => (answer = resolve)));
        second.whep.start();
        await settle();
        second.whep.stop();
        answer({ answer: "late", location: "/s/2" });
        await settle();
        expect(second.ended).toEqual(["/s/2"]);
        expect(second.link.answered).toBe("");
        expect(second.told).toEqual([]);
    });
});
