import { sticky, type Cue } from "./cue";

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
    private known = new Set<string>();
    private done = new Set<Cue>();
    private position = -1;

    /** keep: how many frames behind the one heard can still be sought back to. */
    constructor(private readonly keep = 6000) {}

    add(cues: Cue[]): void {
        for (const cue of cues) {
            const key = cue.kind + "@" + cue.frame + (cue.about === undefined ? "" : "/" + cue.about);
            if (this.known.has(key)) continue;
            this.known.add(key);
            let i = this.cues.length;
            while (i > 0 && (this.cues[i - 1] as Cue).frame > cue.frame) i--;
            this.cues.splice(i, 0, cue);
        }
    }

    /** What is to be applied now that this frame is heard. */
    advance(frame: number): Cue[] {
        const jumped = this.position >= 0 && Math.abs(frame - this.position) > leap;
        if (jumped) this.done.clear();
        this.position = frame;
        const due = this.cues.filter((cue) => cue.frame <= frame && !this.done.has(cue));
        for (const cue of due) this.done.add(cue);
        this.forget();
        return due.filter((cue) => this.holds(cue, frame, jumped));
    }

    /** Leaves out what a later cue of its kind has overtaken, or time. */
    private holds(cue: Cue, frame: number, jumped: boolean): boolean {
        if (!sticky(cue.kind)) return frame - cue.frame <= stale || (cue.kind === "notice" && !jumped);
        return !this.cues.some((c) => c.kind === cue.kind && c.frame > cue.frame && c.frame <= frame);
    }

    private forget(): void {
        const first = this.cues.findIndex((cue) => cue.frame >= this.position - this.keep);
        if (first < 512) return; // in large steps: this runs ten times a second
        const kinds = new Set<string>();
        for (let i = first - 1; i >= 0; i--) {
            const cue = this.cues[i] as Cue;
            if (sticky(cue.kind) && !kinds.has(cue.kind)) {
                kinds.add(cue.kind); // still in force
                continue;
            }
            this.cues.splice(i, 1);
            this.done.delete(cue);
        }
    }
}
