import { readFileSync, readdirSync } from "node:fs";

/** Processor time since the machine began, in ticks of 10 ms. */
interface Ticks {
    busy: number;
    all: number;
    /** What the hypervisor gave to other machines; counts as busy. */
    stolen: number;
}

/** All processors together. */
export function machineTicks(): Ticks {
    const [, ...fields] = (readFileSync("/proc/stat", "utf8").split("\n")[0] ?? "").split(/\s+/);
    const numbers = fields.slice(0, 8).map(Number);
    const all = numbers.reduce((sum, n) => sum + n, 0);
    return { all, busy: all - (numbers[3] ?? 0) - (numbers[4] ?? 0), stolen: numbers[7] ?? 0 };
}

/** What the machine did between two looks, as a share of all its processors. */
export const share = (from: Ticks, to: Ticks) => (to.busy - from.busy) / Math.max(1, to.all - from.all);

/** What a process used, in ticks, and who started it. */
function processTicks(pid: number | string): { ticks: number; parent: number } {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" "); // from the state on, which is field 3
    return { ticks: Number(fields[11]) + Number(fields[12]), parent: Number(fields[1]) };
}

/** Seconds of processor time that a process used. */
export const processSeconds = (pid: number) => processTicks(pid).ticks / 100;

/** Ticks of a process and of all that descend from it, each by itself. */
function family(root = process.pid): Map<number, number> {
    const all = new Map<number, { ticks: number; parent: number }>();
    for (const name of readdirSync("/proc")) {
        if (!/^\d+$/.test(name)) continue;
        try {
            all.set(Number(name), processTicks(name));
        } catch {
            // it left meanwhile
        }
    }
    const ours = (pid: number): boolean => pid === root || (pid > 1 && ours(all.get(pid)?.parent ?? 0));
    return new Map([...all].filter(([pid]) => ours(pid)).map(([pid, { ticks }]) => [pid, ticks]));
}

/** Seconds of processor time that a process and all that descend from it used, as long as they live. */
export const familySeconds = (pid: number) => [...family(pid).values()].reduce((sum, ticks) => sum + ticks, 0) / 100;

/** One second of the machine: shares of all its processors. */
export interface Moment {
    /** When it ended, in milliseconds of performance.now(). */
    at: number;
    busy: number;
    /** Of these, what neither this process nor any that it started used. */
    others: number;
    stolen: number;
}

/** Looks once a second who uses the machine, until told to stop. */
export function watchMachine(): { moments: Moment[]; stop: () => void } {
    const moments: Moment[] = [];
    let [before, own] = [machineTicks(), family()];
    const timer = setInterval(() => {
        const [now, used] = [machineTicks(), family()];
        let ours = 0;
        for (const [pid, ticks] of used) ours += ticks - (own.get(pid) ?? 0);
        const all = Math.max(1, now.all - before.all);
        const busy = share(before, now);
        const others = Math.max(0, busy - ours / all);
        moments.push({ at: performance.now(), busy, others, stolen: (now.stolen - before.stolen) / all });
        [before, own] = [now, used];
    }, 1000);
    return { moments, stop: () => clearInterval(timer) };
}

/** The share of all processors' time that the machine is busy during the coming seconds. */
export async function busyFor(seconds: number): Promise<number> {
    const from = machineTicks();
    await new Promise((done) => setTimeout(done, seconds * 1000));
    return share(from, machineTicks());
}
