import { backoff, every, type Clock } from "../lib/clock";
import type { Change } from "./pace";
import type { Failure, MakeRung, Rung, RungName, Trouble } from "./rung";

export type PlayerState = "idle" | "connecting" | "playing" | "waiting" | "ended";

export interface Facts {
    state: PlayerState;
    /** The rung in use, or last in use. */
    rung: RungName | null;
    /** What went wrong last, until sound comes again. */
    trouble: Trouble | null;
    /** While waiting: how long until the next attempt, in milliseconds. */
    retryIn: number;
}

export interface PlayerOptions {
    /** The ways to listen, best first. unheard makes one that nobody hears until take(). */
    rungs: { name: RungName; make: MakeRung; unheard?: MakeRung }[];
    clock: Clock;
    random?: () => number;
    /** Is the event still open? Rejects if the server can't be asked. A failure may mean its end, or the server's. */
    open: () => Promise<boolean>;
    online: () => boolean;
    changed: (facts: Facts) => void;
}

/** How long a rung may take to its first sound. */
const patience: Record<RungName, number> = { whep: 5000, push: 5000, hls: 12_000 };
/** How long the frame heard may stand still before the rung counts as failed. */
const standstill: Record<RungName, number> = { whep: 4000, push: 5000, hls: 10_000 };
/** Sound for this long means that the rung is good, and past failures are forgiven. */
const goodAfter = 20_000;
/** After so much sound by a lower rung a better one is tried; twice as long after each try in vain, and by chance up to half more. */
const climbAfter = 60_000;
const climbAtMost = 3_600_000;
/** A better rung must sound for this long before the lower is left for it. */
const proof = 2000;

/**
 * Keeps sound coming. It tries the rungs in order; one that fails before its first sound is passed over, one that fails
 * after it gets another chance first; when all have failed it waits, ever longer and by chance, and starts over. While the
 * server can't be reached at all it stays where it is: no other rung would do better, and it would be left on a slower one.
 * From a lower rung it climbs back: the best that can be tried unheard is started beside it, and taken once it has sound.
 */
export class Player {
    private state: PlayerState = "idle";
    private trouble: Trouble | null = null;
    private index = 0;
    private failures = 0;
    private attempt = 0; // counts the questions to the server, so that an answer to an old one is known
    private current: Rung | null = null;
    private retryIn = 0;
    private climb = climbAfter;
    private trial: { rung: Rung; stop: () => void } | null = null;
    private notBefore = 0; // a full server asked not to be asked again until then
    private stopTimers: () => void = () => undefined;
    private readonly random: () => number;

    constructor(private readonly options: PlayerOptions) {
        this.random = options.random ?? Math.random;
    }

    facts(): Facts {
        const rung = this.state === "idle" ? null : (this.options.rungs[this.index]?.name ?? null);
        return { state: this.state, rung, trouble: this.trouble, retryIn: this.retryIn };
    }

    /** The frame that is heard, null while nothing is. */
    frameHeard(): number | null {
        return this.state === "playing" ? (this.current?.frame() ?? null) : null;
    }

    /** Hands an announcement that came apart from the audio to the rung in use. */
    announce(change: Change): void {
        this.current?.announce?.(change);
    }

    listen(): void {
        if (this.state !== "idle") return;
        this.trouble = null;
        this.failures = 0;
        this.index = 0;
        if (this.options.rungs.length === 0) this.pauseFor("unsupported");
        else this.begin();
    }

    pause(): void {
        if (this.state !== "ended") this.halt("idle");
    }

    /** The event is over; nothing follows. */
    end(): void {
        this.halt("ended");
    }

    /** The network is back, or the page came to the front: do not sit out a wait. */
    hurry(): void {
        if (this.state !== "waiting") return;
        this.stopTimers();
        void this.round();
    }

    private halt(state: PlayerState): void {
        this.drop();
        this.trouble = null;
        this.become(state);
    }

    private become(state: PlayerState): void {
        this.state = state;
        this.options.changed(this.facts());
    }

    /** A rung that cannot start without the listener: back to the button. */
    private pauseFor(trouble: Trouble): void {
        this.drop();
        this.trouble = trouble;
        this.become("idle");
    }

    private drop(): void {
        this.stopTimers();
        this.stopTimers = () => undefined;
        this.giveUp();
        const rung = this.current;
        this.current = null;
        rung?.stop();
    }

    private giveUp(): void {
        this.trial?.stop();
        this.trial?.rung.stop();
        this.trial = null;
    }

    private begin(): void {
        this.drop();
        const entry = this.options.rungs[this.index];
        if (!entry) return;
        let heard = false;
        const mine = () => rung === this.current;
        const rung: Rung = entry.make({
            sound: () => {
                if (!mine() || heard) return;
                heard = true;
                this.stopTimers();
                this.stopTimers = this.watch(rung, entry.name);
                this.trouble = null;
                this.become("playing");
            },
            failed: (failure) => mine() && this.failed(failure, heard),
            ended: () => mine() && this.end(),
        });
        this.current = rung;
        this.stopTimers = this.options.clock.after(patience[entry.name], () => this.failed({ why: "no_sound" }, false));
        this.become("connecting");
        rung.start();
    }

    private watch(rung: Rung, name: RungName): () => void {
        const { clock } = this.options;
        const began = clock.now();
        let last = rung.frame();
        let moved = began;
        const better = this.options.rungs.slice(0, this.index).findIndex(({ unheard }) => unheard);
        let tryAt = began + this.climb * (1 + this.random() / 2);
        return every(clock, 500, () => {
            const now = clock.now();
            if (now >= tryAt) {
                if (better < 0) this.climb = climbAfter;
                else this.tryBetter(better);
                tryAt = now + this.climb * (1 + this.random() / 2);
            }
            const frame = rung.frame();
            if (frame !== last) {
                last = frame;
                moved = now;
                if (now - began > goodAfter) this.failures = 0;
            } else if (now - moved >= standstill[name]) {
                this.failed({ why: "no_sound" }, true);
            }
        });
    }

    /** Starts a better rung beside the one that is heard. */
    private tryBetter(index: number): void {
        const { clock, rungs } = this.options;
        const entry = rungs[index];
        if (this.trial || !entry?.unheard) return;
        this.climb = Math.min(climbAtMost, this.climb * 2); // until it has proved itself
        const mine = () => rung === this.trial?.rung;
        const rung: Rung = entry.unheard({
            sound: () => {
                if (!mine()) return;
                this.trial?.stop();
                const first = rung.frame();
                const stop = clock.after(proof, () => (rung.frame() === first ? this.giveUp() : this.take(index)));
                this.trial = { rung, stop };
            },
            failed: (failure) => {
                if (mine()) this.giveUp();
                else if (rung === this.current) this.failed(failure, true);
            },
            ended: () => {
                if (mine()) this.giveUp();
                else if (rung === this.current) this.end();
            },
        });
        this.trial = { rung, stop: clock.after(patience[entry.name], () => this.giveUp()) };
        rung.start();
    }

    /** Leaves the lower rung for the better one, which sounds already. */
    private take(index: number): void {
        const { trial, current, options } = this;
        const name = options.rungs[index]?.name;
        if (!trial || !name) return;
        this.trial = null;
        this.stopTimers();
        current?.stop();
        this.current = trial.rung;
        this.index = index;
        trial.rung.take?.();
        this.stopTimers = this.watch(trial.rung, name);
        this.become("playing");
    }

    private failed(failure: Failure, heard: boolean): void {
        if (failure.why === "blocked") return this.pauseFor("blocked");
        this.drop();
        this.trouble = this.options.online() ? failure.why : "offline";
        const { random } = this;
        const more =
            this.index + 1 < this.options.rungs.length && this.trouble !== "offline" && failure.why !== "closed";
        if (failure.backIn !== undefined) {
            this.notBefore = this.options.clock.now() + failure.backIn * 1000 * (1 + random() / 4);
            // A house that is full by one way may have a place by the next; a server that restarts is away by all.
            if (failure.why === "full" && !heard && more) return void this.descend();
            this.startOver(0);
        } else if (heard) {
            this.wait(backoff(this.failures++, random));
        } else if (more) {
            void this.descend();
        } else {
            this.startOver(backoff(++this.failures, random));
        }
    }

    /** Waits this long and as long as the server asked for, then begins with the first rung. */
    private startOver(ms: number): void {
        this.index = 0;
        this.wait(Math.max(ms, this.notBefore - this.options.clock.now()));
    }

    private async descend(): Promise<void> {
        this.become("connecting");
        const attempt = ++this.attempt;
        const open = await this.options.open().catch(() => null);
        if (this.state !== "connecting" || attempt !== this.attempt) return;
        if (open === null) {
            this.wait(backoff(++this.failures, this.random));
        } else if (open) {
            this.index++;
            this.begin();
        } else {
            this.end();
        }
    }

    private wait(ms: number): void {
        this.retryIn = ms;
        this.stopTimers = this.options.clock.after(ms, () => void this.round());
        this.become("waiting");
    }

    private async round(): Promise<void> {
        const attempt = ++this.attempt;
        const still = await this.options.open().catch(() => true); // a server that can't be asked has not said no
        if (this.state !== "waiting" || attempt !== this.attempt) return;
        if (still) this.begin();
        else this.end();
    }
}
