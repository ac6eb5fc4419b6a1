import { every, type Clock } from "../lib/clock";
import type { Change } from "./pace";
import type { Failure, Port, Rung } from "./rung";

/** The RTP clock of Opus: 48 kHz, and 960 samples a frame. */
const perFrame = 960;
const wrap = 2 ** 32;

/** The frame of an RTP timestamp (frame × 960 mod 2³²): of all that it can mean, the nearest to a frame known to be near. */
export function unwrap(timestamp: number, near: number): number {
    const turns = Math.round((near * perFrame - timestamp) / wrap);
    return (timestamp + Math.max(0, turns) * wrap) / perFrame;
}

/**
 * Asks for retransmission of lost Opus packets (RFC 4585, 4.2), which browsers do not offer by themselves. An offer in
 * which there is no Opus, or which asks already, stays as it is.
 */
export function askNack(sdp: string): string {
    const type = /^a=rtpmap:(\d+) opus\/48000/im.exec(sdp)?.[1];
    if (!type || new RegExp(`^a=rtcp-fb:${type} nack\\s*$`, "m").test(sdp)) return sdp;
    return sdp.replace(new RegExp(`^(a=rtpmap:${type} opus/48000.*\\r?\\n)`, "im"), `$1a=rtcp-fb:${type} nack\r\n`);
}

/** What an answer says of the packets to come. */
export interface Packets {
    /** How much audio one holds, in milliseconds (a=ptime, RFC 8866, 6.4). */
    ms: number;
    /** A lost one is sent again on request (RFC 4585); else RED repairs it from the next, or nothing does. */
    again: boolean;
}

export function packetsOf(answer: string): Packets {
    const ms = Number(/^a=ptime:(\d+)/m.exec(answer)?.[1] ?? 20);
    return { ms: ms > 20 && ms <= 120 ? ms : 20, again: /^a=rtcp-fb:(\d+|\*) nack\s*$/m.test(answer) };
}

/**
 * How much the browser should hold in hand, in milliseconds; null leaves it to itself, which does well at 20 ms. For longer
 * packets it is one packet, 40 ms, and the time in which a lost one comes again. Less than 140 ms at 60 and 220 at 120 would
 * not cover the change to such packets, nor the repair by RED, which waits for the next packet.
 */
export function bufferFor({ ms, again }: Packets, roundTrip: number | null): number | null {
    if (ms <= 20) return null;
    return Math.round(ms + 40 + Math.max(20 + ms / 3, again ? (roundTrip ?? 100) : 0));
}

/** The connection beneath, so that the state machine can be tested without a browser. */
export interface Link {
    /** Makes the offer. */
    offer(): Promise<string>;
    /** Takes the answer; from then on sound may come. */
    answer(sdp: string): Promise<void>;
    /** RTP timestamp of what is being played, null before the first packet. */
    timestamp(): number | null;
    /** "new", "connecting", "connected", "disconnected", "failed" or "closed"; told through changed. */
    onstate: (state: string) => void;
    /** The browser would not play without a click. */
    onblocked: () => void;
    close(): void;
}

/** A connection that only receives. */
export interface Incoming extends Link {
    /** How much to hold in hand, in milliseconds; null: as the browser likes. */
    buffer(ms: number | null): void;
    /** Milliseconds to the server and back, null while that is not known. */
    roundTrip(): Promise<number | null>;
    /** Sounds through the page's element from now on, where it was made to sound unheard. */
    take(): void;
}

export interface Signalling {
    post(offer: string): Promise<{ answer: string; location: string }>;
    /** Ends the session; best effort. */
    end(location: string): void;
}

/** A lost connection may heal itself for this long. */
const healing = 3000;
/** Buffers fall this long after packets became shorter, so that the last long one is surely played. */
const lowering = 3000;

/** Listening by WebRTC (WHEP). */
export class Whep implements Rung {
    private location = "";
    private stopped = false;
    private stopPolling: () => void = () => undefined;
    private forgetHealing: () => void = () => undefined;
    private packets: Packets = { ms: 20, again: false }; // the longest of now and of what is announced
    private forgetLowering: () => void = () => undefined;

    constructor(
        private readonly port: Port,
        private readonly link: Incoming,
        private readonly signalling: Signalling,
        private readonly clock: Clock,
        private readonly near: () => number,
        /** Turns a refused request into a failure. */
        private readonly explain: (error: unknown) => Failure,
    ) {}

    start(): void {
        this.link.onblocked = () => this.fail({ why: "blocked" });
        this.link.onstate = (state) => this.turned(state);
        this.connect().catch((error: unknown) => this.fail(this.explain(error)));
    }

    stop(): void {
        if (this.stopped) return;
        this.stopped = true;
        this.stopPolling();
        this.forgetHealing();
        this.forgetLowering();
        this.link.close();
        if (this.location) this.signalling.end(this.location);
    }

    frame(): number | null {
        const timestamp = this.link.timestamp();
        return timestamp === null ? null : unwrap(timestamp, this.near());
    }

    take(): void {
        this.link.take();
    }

    /** Longer packets need a larger buffer before they come: growing one without a gap takes a few seconds. */
    announce({ rung, ms, from }: Change): void {
        if (rung !== "whep") return;
        this.forgetLowering();
        if (ms >= this.packets.ms) return this.expect(ms);
        const left = Math.max(0, (from - this.near()) * 20);
        this.forgetLowering = this.clock.after(left + lowering, () => this.expect(ms));
    }

    private expect(ms: number): void {
        this.packets = { ...this.packets, ms };
        void this.hold();
    }

    /** Holds in hand what the packets need by the round trip that is known now. */
    private async hold(): Promise<void> {
        const { packets } = this;
        const trip = packets.ms > 20 && packets.again ? await this.link.roundTrip().catch(() => null) : null;
        if (!this.stopped && packets === this.packets) this.link.buffer(bufferFor(packets, trip));
    }

    private async connect(): Promise<void> {
        const offer = await this.link.offer();
        if (this.stopped) return;
        const { answer, location } = await this.signalling.post(offer);
        this.location = location;
        if (this.stopped) return this.signalling.end(location);
        await this.link.answer(answer);
        if (this.stopped) return;
        const { ms, again } = packetsOf(answer);
        this.packets = { ms: Math.max(ms, this.packets.ms), again };
        if (this.packets.ms > 20) void this.hold();
        // Sound is there when the timestamp played has moved; a first packet alone may be an empty one.
        let first: number | null = null;
        this.stopPolling = every(this.clock, 20, () => {
            const timestamp = this.link.timestamp();
            first ??= timestamp;
            if (timestamp === null || timestamp === first) return;
            this.stopPolling();
            this.port.sound();
            if (this.packets.ms > 20) void this.hold(); // by now the round trip is known
        });
    }

    private turned(state: string): void {
        this.forgetHealing();
        if (state === "closed") this.location = ""; // the server has ended it
        if (state === "failed" || state === "closed") this.fail({ why: "connection" });
        if (state === "disconnected")
            this.forgetHealing = this.clock.after(healing, () => this.fail({ why: "connection" }));
    }

    private fail(failure: Failure): void {
        if (!this.stopped) this.port.failed(failure);
    }
}
