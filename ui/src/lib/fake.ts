import type { Clock } from "./clock";

/** A clock for tests: stands still until told to advance, and then runs what is due, in order. */
export class FakeClock implements Clock {
    private time = 0;
    private due: { at: number; fn: () => void }[] = [];

    now(): number {
        return this.time;
    }

    after(ms: number, fn: () => void): () => void {
        const entry = { at: this.time + ms, fn };
        this.due.push(entry);
        return () => {
            this.due = this.due.filter((e) => e !== entry);
        };
    }

    advance(ms: number): void {
        const end = this.time + ms;
        for (;;) {
            const next = this.due.filter((e) => e.at <= end).sort((a, b) => a.at - b.at)[0];
            if (!next) break;
            this.due = this.due.filter((e) => e !== next);
            this.time = Math.max(this.time, next.at);
            next.fn();
        }
        this.time = end;
    }

    /** Time passes and nothing runs, as on a device that is busy with something else. */
    stall(ms: number): void {
        this.time += ms;
    }

    /** Like advance, but lets promises settle at every step. */
    async run(ms: number, step = 10): Promise<void> {
        for (let done = 0; done < ms; done += step) {
            this.advance(Math.min(step, ms - done));
            await settle();
        }
    }
}

/** Lets everything that waits only for promises go on. */
export async function settle(): Promise<void> {
    for (let i = 0; i < 10; i++) await Promise.resolve();
}
