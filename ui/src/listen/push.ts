import { chunks } from "../cues/boxes";
import { parseCues, type Cue } from "../cues/cue";
import { every, type Clock } from "../lib/clock";
import { changeOf, Pace } from "./pace";
import type { Failure, Port, Rung } from "./rung";

/** Where the parts go: a media element and its source buffer. Times are in seconds of the element. */
export interface Sink {
    /** Calls ready when bytes can be appended, failed when they no longer can, dry whenever the element waits for more. */
    open(ready: () => void, failed: (failure: Failure) => void, dry: () => void): void;
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

/** More than this beyond what the cadence needs is not worth listening through faster: skip. */
const tooMuch = 3;
/** What is left when a message arrives after a skip. */
const afterSkip = 0.2;
/** How often the playback rate is looked at, in milliseconds. */
const steering = 200;

/**
 * Listening by push: parts from a WebSocket, appended to a source buffer. The delay is the cadence and a tenth of a
 * second: the playback rate (pitch kept, see Pace) holds what is left when a message arrives at 180 ms, and before an announced
 * slower cadence gathers what that will need. A jump in decode time (a restart, a slow spell) is taken up by shifting what
 * follows, so the element sees no gap; frame() undoes the shift.
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
    private readonly pace = new Pace();
    private playingSince = 0;
    private steered = 0; // when steer was last called, in seconds
    private stopPolling: () => void = () => undefined;
    private stopSteering: () => void = () => undefined;

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
            () => this.dry(),
        );
    }

    stop(): void {
        if (this.stopped) return;
        this.stopped = true;
        this.stopPolling();
        this.stopSteering();
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
        const cues: Cue[] = [];
        for (const cue of parseCues(data)) {
            const change = changeOf(cue);
            if (change?.rung === "push") this.pace.announce(change.ms, change.from);
            else cues.push(cue);
        }
        if (cues.length > 0) this.cues(cues);
        else if (!this.began) this.pace.hello(helloOf(data)?.cadence_ms);
    }

    private binary(bytes: Uint8Array): void {
        if (!this.began) {
            this.began = true;
            this.append(bytes, 0);
            return;
        }
        const before = this.end;
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
        const upTo = this.expected / 960;
        const now = this.clock.now();
        // What belongs to the first burst says nothing of when the next will come.
        if (this.playing && now - this.playingSince >= 100)
            this.pace.arrived(now / 1000, before, upTo - (this.end - before) * 50, upTo);
        this.arrived(upTo);
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
        if (this.playing || !this.ready || this.end < this.pace.startWith - 0.001) return;
        this.playing = true;
        this.playingSince = this.clock.now();
        this.steered = this.playingSince / 1000;
        this.sink.play();
        this.stopPolling = every(this.clock, 50, () => {
            if (this.sink.time() <= 0.01) return;
            this.stopPolling();
            this.port.sound();
        });
        this.stopSteering = every(this.clock, steering, () => this.steer());
    }

    /** The element waits. Browsers do so while there is something in hand, more on a busy device: what was there was not enough. */
    private dry(): void {
        if (!this.playing || this.sink.time() <= 0.01) return;
        this.pace.hiccup(this.clock.now() / 1000, Math.max(0.15, this.end - this.sink.time()));
    }

    private steer(): void {
        const now = this.clock.now() / 1000;
        this.pace.hiccup(now, now - this.steered - steering / 1000);
        this.steered = now;
        const position = this.sink.time();
        const low = this.pace.low(now, position);
        if (low !== null && low > tooMuch) this.sink.seek(position + low - afterSkip);
        this.sink.rate(this.pace.rate(now, this.sink.time()));
    }

    private closed(code: number, reason: string): void {
        if (this.stopped) return;
        if (code === 1000) return this.drain();
        const seconds = Number.parseFloat(reason);
        const backIn = seconds >= 0 && seconds < 600 ? seconds : undefined;
        if (code === 1012) this.fail({ why: "restart", backIn: backIn ?? 5 });
        else if (code === 1013) this.fail(backIn === undefined ? { why: "full" } : { why: "full", backIn });
        else this.fail({ why: "connection" });
    }

    /** The end has been sent; it is over when it has been heard. */
    private drain(): void {
        this.stopSteering();
        this.sink.rate(1);
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

/** The first text of the server, or nothing if this is none. */
function helloOf(text: string): { cadence_ms?: unknown } | undefined {
    try {
        const value = JSON.parse(text) as { kind?: unknown; cadence_ms?: unknown } | null;
        return value?.kind === "hello" ? value : undefined;
    } catch {
        return undefined;
    }
}
