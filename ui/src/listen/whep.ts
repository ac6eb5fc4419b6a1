import { every, type Clock } from "../lib/clock";
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

export interface Signalling {
    post(offer: string): Promise<{ answer: string; location: string }>;
    /** Ends the session; best effort. */
    end(location: string): void;
}

/** A lost connection may heal itself for this long. */
const healing = 3000;

/** Listening by WebRTC (WHEP). */
export class Whep implements Rung {
    private location = "";
    private stopped = false;
    private stopPolling: () => void = () => undefined;
    private forgetHealing: () => void = () => undefined;

    constructor(
        private readonly port: Port,
        private readonly link: Link,
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
        this.link.close();
        if (this.location) this.signalling.end(this.location);
    }

    frame(): number | null {
        const timestamp = this.link.timestamp();
        return timestamp === null ? null : unwrap(timestamp, this.near());
    }

    private async connect(): Promise<void> {
        const offer = await this.link.offer();
        if (this.stopped) return;
        const { answer, location } = await this.signalling.post(offer);
        this.location = location;
        if (this.stopped) return this.signalling.end(location);
        await this.link.answer(answer);
        if (this.stopped) return;
        // Sound is there when the timestamp played has moved; a first packet alone may be an empty one.
        let first: number | null = null;
        this.stopPolling = every(this.clock, 20, () => {
            const timestamp = this.link.timestamp();
            first ??= timestamp;
            if (timestamp === null || timestamp === first) return;
            this.stopPolling();
            this.port.sound();
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
