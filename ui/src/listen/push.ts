import { chunks } from "../cues/boxes";
import { parseCues, type Cue } from "../cues/cue";
import { every, type Clock } from "../lib/clock";
import type { Failure, Port, Rung } from "./rung";

/** Where the parts go: a media element and its source buffer. Times are in seconds of the element. */
export interface Sink {
    /** Calls ready when bytes can be appended, failed when they no longer can. */
    open(ready: () => void, failed: (failure: Failure) => void): void;
    /** Appends whole chunks (or the initialisation segment), shifted by offset seconds. */
    append(bytes: Uint8Array, offset: number): void;
    play(): void;
    seek(time: number): void;
    rate(rate: number): void;
    time(): number;
    close(): void;
}

/** The WebSocket beneath. */
export interface Wire {
    onmessage: (data: string | Uint8Array) => void;
    onclose: (code: number, reason: string) => void;
    close(): void;
}

/** Sound starts when this much has come: two parts, because one is too few to go on with. */
const startWith = 0.4;
/** What should be left when the next part arrives. */
const lowWater = 0.12;
/** More than this in hand is not worth listening through faster: skip. */
const tooMuch = 3;
const slowest = 0.88;
const fastest = 1.1;

/**
 * Listening by push: parts from a WebSocket, appended to a source buffer. The delay is the cadence and a tenth of a
 * second: the playback rate (0.88 to 1.10, pitch kept) holds what is left when a part arrives at 120 ms. A jump in decode
 * time (a restart, a slow spell) is taken up by shifting what follows, so the element sees no gap; frame() undoes the shift.
 */
export class Push implements Rung {
    private began = false; // the initialisation segment was taken
    private ready = false;
    private playing = false;
    private stopped = false;
    private waiting: { bytes: Uint8Array; offset: number }[] = [];
    private expected = -1; // decode time that follows, in samples
    private end = 0; // element time up to which audio was appended
    private shifts: { from: number; shift: number }[] = [];
    private lows: number[] = [];
    private stopPolling: () => void = () => undefined;

    constructor(
        private readonly port: Port,
        private readonly wire: Wire,
        private readonly sink: Sink,
        private readonly clock: Clock,
        private readonly cues: (cues: Cue[]) => void,
        /** Told the frame up to which parts have arrived. */
        private readonly arrived: (frame: number) => void,
    ) {}

    start(): void {
        this.wire.onmessage = (data) => {
            if (this.stopped) return;
            if (typeof data === "string") this.text(data);
            else this.binary(data);
        };
        this.wire.onclose = (code, reason) => this.closed(code, reason);
        this.sink.open(
            () => {
                this.ready = true;
                for (const { bytes, offset } of this.waiting.splice(0)) this.sink.append(bytes, offset);
                this.maybePlay();
            },
            (failure) => this.fail(failure),
        );
    }

    stop(): void {
        if (this.stopped) return;
        this.stopped = true;
        this.stopPolling();
        this.wire.close();
        this.sink.close();
    }

    frame(): number | null {
        if (!this.playing) return null;
        const time = this.sink.time();
        for (let i = this.shifts.length - 1; i >= 0; i--) {
            const { from, shift } = this.shifts[i] as { from: number; shift: number };
            if (time >= from || i === 0) return (time - shift) * 50;
        }
        return null;
    }

    private text(data: string): void {
        const cues = parseCues(data); // the hello is no array
        if (cues.length > 0) this.cues(cues);
    }

    private binary(bytes: Uint8Array): void {
        if (!this.began) {
            this.began = true;
            this.append(bytes, 0);
            return;
        }
        if (this.playing) this.steer();
        // Chunks that follow one another go in together; each jump begins another append with another shift.
        let from = -1;
        let to = -1;
        for (const chunk of chunks(bytes)) {
            if (chunk.time < this.expected) continue; // heard already
            if (chunk.time !== this.expected) {
                if (from >= 0) this.append(bytes.subarray(from, to), this.shift());
                from = -1;
                this.shifts.push({ from: this.end, shift: this.end - chunk.time / 48_000 });
                if (this.shifts.length > 16) this.shifts.shift();
            }
            if (from < 0) from = chunk.start;
            to = chunk.end;
            this.expected = chunk.time + chunk.samples;
            this.end += chunk.samples / 48_000;
        }
        if (from < 0) return;
        this.append(bytes.subarray(from, to), this.shift());
        this.arrived(this.expected / 960);
        this.maybePlay();
    }

    private shift(): number {
        return this.shifts[this.shifts.length - 1]?.shift ?? 0;
    }

    private append(bytes: Uint8Array, offset: number): void {
        if (this.ready) this.sink.append(bytes, offset);
        else this.waiting.push({ bytes, offset });
    }

    private maybePlay(): void {
        if (this.playing || !this.ready || this.end < startWith - 0.001) return;
        this.playing = true;
        this.sink.play();
        this.stopPolling = every(this.clock, 50, () => {
            if (this.sink.time() <= 0.01) return;
            this.stopPolling();
            this.port.sound();
        });
    }

    /** Called as a part arrives, before it counts: that is when least is in hand. */
    private steer(): void {
        const low = this.end - this.sink.time();
        this.lows.push(low);
        if (this.lows.length > 5) this.lows.shift();
        const least = Math.min(...this.lows);
        if (least > tooMuch) {
            this.lows = [];
            this.sink.seek(this.end - startWith);
            this.sink.rate(1);
            return;
        }
        this.sink.rate(rateFor(least));
    }

    private closed(code: number, reason: string): void {
        if (this.stopped) return;
        if (code === 1000) return this.drain();
        if (code === 1012) {
            const seconds = Number.parseFloat(reason);
            this.fail({ why: "restart", backIn: seconds >= 0 && seconds < 600 ? seconds : 5 });
        } else {
            this.fail({ why: code === 1013 ? "full" : "connection" });
        }
    }

    /** The end has been sent; it is over when it has been heard. */
    private drain(): void {
        const left = this.playing ? Math.max(0, this.end - this.sink.time()) : 0;
        const forget = this.clock.after(left * 1000 + 200, () => {
            if (!this.stopped) this.port.ended();
        });
        const { stopPolling } = this;
        this.stopPolling = () => {
            stopPolling();
            forget();
        };
    }

    private fail(failure: Failure): void {
        if (!this.stopped) this.port.failed(failure);
    }
}

/** The playback rate that brings the low water back: nothing within 30 ms of it, then half a per cent for each 10 ms. */
export function rateFor(low: number): number {
    const error = low - lowWater;
    if (Math.abs(error) < 0.03) return 1;
    return Math.min(fastest, Math.max(slowest, 1 + error / 2));
}
