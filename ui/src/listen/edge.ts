import type { Clock } from "../lib/clock";

/** How long an observation counts: longer than any hiccup of the network, short against the drift of two clocks. */
const windowMs = 60_000;

/**
 * Where the programme's head is. Nothing tells it directly: a Date header is coarse to a second. But whatever arrives
 * (a cue, a part, a frame that is heard) proves that the head is at least there, and the least delayed of a minute's arrivals
 * is delayed by little more than one way through the network. So the edge is the highest of `frame × 20 ms − arrival`
 * over the last minute, plus the half round trip that a request showed.
 */
export class LiveEdge {
    private seen: { at: number; lead: number }[] = [];
    private halfTrip = 0;

    constructor(private readonly clock: Clock) {}

    /** Something arrived that cannot have been sent before the end of this frame. */
    see(frame: number): void {
        const at = this.clock.now();
        const lead = frame * 20 - at;
        // kept in falling order of lead: a later observation that is no lower replaces the earlier
        while (this.seen.length > 0 && (this.seen[this.seen.length - 1] as { lead: number }).lead <= lead)
            this.seen.pop();
        this.seen.push({ at, lead });
        while ((this.seen[0] as { at: number }).at < at - windowMs) this.seen.shift();
    }

    /** A cue is sent when its part closes: ten frames, from a multiple of ten. */
    seeCue(frame: number): void {
        this.see((Math.floor(frame / 10) + 1) * 10);
    }

    /** A request and its answer took this long; the shortest counts. */
    roundTrip(ms: number): void {
        this.halfTrip = this.halfTrip === 0 ? ms / 2 : Math.min(this.halfTrip, ms / 2);
    }

    /** The frame being made now, with a fraction; null as long as nothing is known. */
    now(): number | null {
        const best = this.seen[0];
        return best ? (best.lead + this.halfTrip + this.clock.now()) / 20 : null;
    }

    /** How far behind the head somebody is who hears this frame, in milliseconds. */
    behind(frame: number): number | null {
        const edge = this.now();
        return edge === null ? null : Math.max(0, (edge - frame) * 20);
    }
}
