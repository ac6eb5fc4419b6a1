import { describe, expect, it } from "vitest";
import { FakeClock, settle } from "../lib/fake";
import type { Failure } from "./rung";
import { askNack, bufferFor, packetsOf, unwrap, Whep, type Incoming } from "./whep";

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

describe("packetsOf", () => {
    it("reads the length of packets and whether lost ones come again", () => {
        const nack = "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=rtcp-fb:111 nack\r\na=ptime:60\r\n";
        expect(packetsOf(nack)).toEqual({ ms: 60, again: true });
        expect(packetsOf("a=rtpmap:63 red/48000/2\r\na=ptime:120\r\n")).toEqual({ ms: 120, again: false });
        expect(packetsOf("a=rtcp-fb:111 nack pli\r\n")).toEqual({ ms: 20, again: false });
        expect(packetsOf("a=ptime:9999\r\n").ms).toBe(20);
    });
});

describe("bufferFor", () => {
    it.each([
        [20, false, null, null],
        [20, true, 300, null],
        [60, false, 300, 140],
        [120, false, null, 220],
        [60, true, null, 200],
        [120, true, null, 260],
        [60, true, 3, 140],
        [60, true, 150, 250],
        [120, true, 80, 240],
    ])("packets of %d ms, sent again: %s, round trip %s: %s", (ms, again, trip, want) => {
        expect(bufferFor({ ms, again }, trip)).toBe(want);
    });
});

class FakeLink implements Incoming {
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
    held: (number | null)[] = [];
    buffer = (ms: number | null) => void this.held.push(ms);
    take = () => undefined;
    trip: number | null = null;
    roundTrip = () => (Number.isNaN(this.trip) ? Promise.reject(new Error("closed")) : Promise.resolve(this.trip));
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

    describe("with longer packets", () => {
        const join = async (sdp: string) => {
            const s = setUp(() => Promise.resolve({ answer: sdp, location: "/s/1" }));
            s.whep.start();
            await settle();
            return s;
        };
        const turn = (ms: number, from: number, rung: "whep" | "push" = "whep") => ({ rung, ms, from });

        it("leaves the buffer to the browser at 20 ms", async () => {
            const { link } = await join("a=ptime:20\r\n");
            expect(link.held).toEqual([]);
        });

        it("holds what the answer's packets need, and once there is sound, what the round trip needs", async () => {
            const { clock, link } = await join("a=ptime:60\r\na=rtcp-fb:111 nack\r\n");
            expect(link.held).toEqual([200]); // nobody knows the round trip yet
            link.trip = 130;
            link.now = 960;
            clock.advance(20);
            link.now = 1920;
            clock.advance(20);
            await settle();
            expect(link.held).toEqual([200, 230]);
        });

        it("raises the buffer when longer ones are announced, and lowers it three seconds after shorter ones have come", async () => {
            const { clock, link, whep } = await join("a=ptime:20\r\n");
            whep.announce(turn(1000, 5500, "push"));
            await settle();
            expect(link.held).toEqual([]);
            whep.announce(turn(60, 5500)); // the head is at 5000
            await settle();
            expect(link.held).toEqual([140]);
            whep.announce(turn(120, 6000));
            await settle();
            expect(link.held).toEqual([140, 220]);
            whep.announce(turn(20, 5100));
            clock.advance(4990);
            await settle();
            expect(link.held).toEqual([140, 220]);
            clock.advance(10);
            await settle();
            expect(link.held).toEqual([140, 220, null]);
        });

        it("does not lower the buffer where longer packets were announced meanwhile", async () => {
            const { clock, link, whep } = await join("a=ptime:60\r\n");
            whep.announce(turn(20, 5100));
            clock.advance(1000);
            whep.announce(turn(120, 5600));
            await settle();
            clock.advance(20_000);
            await settle();
            expect(link.held).toEqual([140, 220]);
        });

        it("keeps what was announced before the answer came, and goes on where statistics fail", async () => {
            const { link, whep } = setUp(() => Promise.resolve({ answer: "a=rtcp-fb:111 nack\r\n", location: "" }));
            link.trip = Number.NaN;
            whep.start();
            whep.announce(turn(60, 5500));
            await settle();
            expect(link.held[link.held.length - 1]).toBe(200);
            whep.announce(turn(20, 5000));
            whep.stop();
            await settle();
            expect(link.held).not.toContain(null);
        });
    });
});
