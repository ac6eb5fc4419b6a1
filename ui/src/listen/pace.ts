import type { Cue } from "../cues/cue";

/** A change of cadence or of packet length that the server announced (PROTOCOL, "Cadence"). */
export interface Change {
    rung: "push" | "whep";
    /** Milliseconds from message to message (push), or of audio in a packet (whep). */
    ms: number;
    /** The frame from which on it holds. */
    from: number;
}

/** What a cue of kind `cadence` announces; null if it is none. It acts when it arrives, not when its frame is heard. */
export function changeOf(cue: Cue): Change | null {
    if (cue.kind !== "cadence" || typeof cue.data !== "object" || cue.data === null) return null;
    const { rung, ms, from } = cue.data as Partial<Change>;
    if ((rung !== "push" && rung !== "whep") || !sane(ms) || typeof from !== "number" || !(from >= 0)) return null;
    return { rung, ms, from };
}

function sane(ms: unknown): ms is number {
    return typeof ms === "number" && ms >= 20 && ms <= 10_000;
}

/**
 * What should be left when the next message arrives, in seconds, on a device that does things when they are due. Chromium's element
 * has been seen to wait with 80 ms in hand: what it needs for its output, and to stretch time.
 */
const lowWater = 0.18;
/** More is never kept for the device's own sake. */
const highWater = 0.5;
/** What a device does when it is due, and for how long it is remembered that it did not, in seconds. */
const punctual = 0.03;
const memory = 300;
/** Within this an ear takes a voice for the voice it knows, its pitch being kept. */
const slowest = 0.88;
const fastest = 1.1;
/** Where the time to an announced change is short: a slow voice is better than a gap, so far as it takes to keep this much. */
const hurried = 0.8;
const spare = 0.05;
/** Better to be ready so long before a change, in seconds. */
const early = 2;

/**
 * Decides how fast to play, so that the audio in hand lasts from message to message and hardly longer: 180 ms are to be
 * left when one arrives, and as much more as the device was ever late itself in the last minutes.
 *
 * Of each message it keeps the *slack*: up to when the audio lasts that came before it, plus the cadence, less the time at
 * which it arrived. The slack depends on the server and the network alone, the position on the playback alone; so what will
 * be left at the next messages follows at any moment from the least slack of the last seconds, also for a cadence that is only
 * announced. (Keeping what *was* left at the last messages, as one might, lags behind the rate by their number: with a
 * message every two seconds that swings.) Of messages that come back to back the first has the least slack, so they need no
 * grouping. All times are in seconds, ends and positions in the time of the media element.
 */
export class Pace {
    private changes: { cadence: number; from: number }[] = []; // announced and not in force, by frame
    private slacks: { at: number; slack: number }[] = [];
    private hiccups: { at: number; late: number }[] = [];
    private last = { at: 0, frame: 0 }; // of the last message: arrival, and the frame that follows it

    constructor(private cadence = 0.2) {}

    /** How much should be there before the first is played: until the next message comes, and a little. */
    get startWith(): number {
        return this.slowestAhead() + 0.2;
    }

    /** The cadence in force, as the server told it when it began. */
    hello(ms: unknown): void {
        if (sane(ms)) this.cadence = ms / 1000;
    }

    /** From this frame on there will be another cadence. What was announced for later than that no longer holds. */
    announce(ms: number, from: number): void {
        this.changes = this.changes.filter((change) => change.from < from);
        this.changes.push({ cadence: ms / 1000, from });
    }

    /** A message with these frames arrived; before it there was audio up to end. */
    arrived(at: number, end: number, from: number, upTo: number): void {
        // For one slow cadence around a change it is not sure which of the two a message came by. The slower is then assumed:
        // a slack too large says nothing beside the others, one too small would stop the playback needlessly.
        const unsure = this.slowestAhead() * 50;
        for (let change; (change = this.changes[0]) && from >= change.from + unsure; this.changes.shift())
            this.cadence = change.cadence;
        const around = this.changes.filter((change) => upTo >= change.from).map((change) => change.cadence);
        const slack = end + Math.max(this.cadence, ...around) - at;
        // longer than any hiccup of the network, and never without a message
        const since = at - 2 - 2 * this.cadence;
        this.slacks = this.slacks.filter((seen) => seen.at >= since);
        this.slacks.push({ at, slack });
        this.last = { at, frame: upTo };
    }

    /**
     * The device was late by so much, at a timer or at playing what it had. What is left when a message arrives has to bear that too: a
     * busy device pays with a little more delay, and hears no gap.
     */
    hiccup(at: number, late: number): void {
        this.hiccups = this.hiccups.filter((seen) => seen.at > at - memory && seen.late > late);
        if (late > punctual) this.hiccups.push({ at, late });
    }

    /** What is to be left when a message arrives. */
    private water(at: number): number {
        const worst = this.hiccups.filter((seen) => seen.at > at - memory).map(({ late }) => late);
        return Math.min(highWater, lowWater + Math.max(0, ...worst));
    }

    /**
     * What will be left when a message arrives, by the slowest cadence in force or announced, if this position goes on at
     * rate 1; null as long as no message came.
     */
    low(at: number, position: number): number | null {
        return this.lowBy(this.slowestAhead(), at, position);
    }

    /** The rate at which to play now. */
    rate(at: number, position: number): number {
        const low = this.low(at, position);
        if (low === null) return 1;
        const water = this.water(at);
        if (low >= water) return rateFor(low, water);
        let rate = Math.min(1, rateFor(this.lowBy(this.cadence, at, position) ?? low, water));
        for (const { cadence, from } of this.changes) {
            const missing = water - (this.lowBy(cadence, at, position) ?? low);
            if (missing <= 0.03) continue;
            // The first message that comes by the new cadence comes when that has passed.
            const left = Math.max(0.1, (from - this.last.frame) / 50 - (at - this.last.at) + cadence - this.cadence);
            const atEase = 1 - missing / Math.max(left - early, left * 0.75);
            const inNeed = 1 - (missing - water + spare) / left;
            rate = Math.min(rate, Math.max(slowest, atEase), Math.max(hurried, inNeed));
        }
        return rate;
    }

    private lowBy(cadence: number, at: number, position: number): number | null {
        if (this.slacks.length === 0) return null;
        return Math.min(...this.slacks.map(({ slack }) => slack)) - cadence - (position - at);
    }

    private slowestAhead(): number {
        return Math.max(this.cadence, ...this.changes.map(({ cadence }) => cadence));
    }
}

/** The playback rate that brings the water back: nothing within 30 ms of it, then half a per cent for each 10 ms. */
export function rateFor(low: number, water = lowWater): number {
    const error = low - water;
    if (Math.abs(error) < 0.03) return 1;
    return Math.min(fastest, Math.max(slowest, 1 + error / 2));
}
