import { sticky, stickyKinds, type Cue } from "./cue";

/** A move of the frame heard beyond this many frames is a seek, not playing on. */
const leap = 100;
/** A cue that does not stick says nothing any more this many frames after its own. */
const stale = 25;

/**
 * Holds cues until the frame they belong to is heard. Cues come in any order, twice (the ways they come overlap), and
 * late (WebRTC plays a frame before the part that tells of it has closed); each is handed out once, in order. After a
 * seek in either direction the last cue of each sticky kind is handed out again, so that what is shown is what was.
 */
export class CueBuffer {
    private cues: Cue[] = []; // by frame; of one frame, in the order in which they came
    private next = 0; // index of the first that is not passed yet
    private late: Cue[] = []; // came when their frame was already passed
    private readonly known = new Set<string>();
    private inForce = new Map<string, number>(); // frame of the last one handed out, by sticky kind
    private position = -1;

    /** keep: how many frames behind the one heard can still be sought back to. */
    constructor(private readonly keep = 6000) {}

    /** How many cues are held. */
    get size(): number {
        return this.cues.length;
    }

    add(cues: Cue[]): void {
        for (const cue of cues) {
            if (this.known.has(key(cue))) continue;
            this.known.add(key(cue));
            const i = this.after(cue.frame);
            this.cues.splice(i, 0, cue);
            if (i >= this.next && cue.frame > this.position) continue;
            this.next++;
            this.late.push(cue);
        }
    }

    /** What is to be applied now that this frame is heard. */
    advance(frame: number): Cue[] {
        const jumped = this.position < 0 || Math.abs(frame - this.position) > leap;
        const due = jumped ? this.jump(frame) : this.goOn(frame);
        this.position = frame;
        this.forget();
        return due.filter((cue) => this.holds(cue, frame));
    }

    private goOn(frame: number): Cue[] {
        const due = this.late.sort((a, b) => a.frame - b.frame);
        this.late = [];
        for (let cue; (cue = this.cues[this.next]) && cue.frame <= frame; this.next++) due.push(cue);
        for (const { kind, frame } of due) {
            if (sticky(kind)) this.inForce.set(kind, Math.max(frame, this.inForce.get(kind) ?? 0));
        }
        return due;
    }

    /** The last of each sticky kind up to a frame, and what has just been. */
    private jump(frame: number): Cue[] {
        this.next = this.after(frame);
        this.late = [];
        this.inForce = new Map();
        const due: Cue[] = [];
        for (let i = this.next - 1; i >= 0 && this.inForce.size < stickyKinds.length; i--) {
            const cue = this.cues[i] as Cue;
            if (sticky(cue.kind)) {
                if (this.inForce.has(cue.kind)) continue;
                this.inForce.set(cue.kind, cue.frame);
            } else if (frame - cue.frame > stale) {
                continue;
            }
            due.unshift(cue);
        }
        return due;
    }

    /** Leaves out what a later cue of its kind has overtaken, or time. */
    private holds(cue: Cue, frame: number): boolean {
        return sticky(cue.kind) ? cue.frame === this.inForce.get(cue.kind) : frame - cue.frame <= stale;
    }

    /** Index of the first cue after a frame. */
    private after(frame: number): number {
        let low = 0;
        let high = this.cues.length;
        while (low < high) {
            const middle = (low + high) >> 1;
            if ((this.cues[middle] as Cue).frame > frame) high = middle;
            else low = middle + 1;
        }
        return low;
    }

    private forget(): void {
        const first = this.after(this.position - this.keep);
        if (first < 512 || first > this.next) return; // in large steps: this runs ten times a second
        const kept = new Map<string, Cue>();
        for (const cue of this.cues.slice(0, first)) {
            if (sticky(cue.kind)) kept.set(cue.kind, cue); // still in force then
            this.known.delete(key(cue));
        }
        const stuck = [...kept.values()].sort((a, b) => a.frame - b.frame);
        for (const cue of stuck) this.known.add(key(cue));
        this.cues = [...stuck, ...this.cues.slice(first)];
        this.next -= first - stuck.length;
    }
}

function key(cue: Cue): string {
    return `${cue.kind}@${cue.frame}/${cue.about ?? ""}`;
}
