/** Time as the state machines see it; tests give a clock of their own. */
export interface Clock {
    /** Milliseconds from any fixed zero, never going back. */
    now(): number;
    /** Calls fn once after ms; the returned function forgets it. */
    after(ms: number, fn: () => void): () => void;
}

export const clock: Clock = {
    now: () => performance.now(),
    after(ms, fn) {
        const timer = setTimeout(fn, ms);
        return () => clearTimeout(timer);
    },
};

/** Calls fn every ms until the returned function is called. */
export function every(clock: Clock, ms: number, fn: () => void): () => void {
    let stopped = false;
    let forget = clock.after(ms, tick);
    function tick() {
        fn();
        if (!stopped) forget = clock.after(ms, tick);
    }
    return () => {
        stopped = true;
        forget();
    };
}

/**
 * How long to wait before the attempt after `failures` failed ones: half of it certain, half by chance, so that a
 * thousand clients that lost the same server do not come back in the same instant.
 */
export function backoff(failures: number, random: () => number, base = 500, cap = 15_000): number {
    const full = Math.min(cap, base * 2 ** Math.min(failures, 16));
    return full / 2 + (full / 2) * random();
}
