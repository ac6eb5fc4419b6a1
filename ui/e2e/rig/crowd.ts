import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { familySeconds } from "./machine";
import { pinned } from "./server";

/** Of the report of `earshot crowd`, what is looked at here. */
export interface CrowdReport {
    listeners: number;
    joined: number;
    failed: Record<string, number>;
    lost: Record<string, number>;
    gaps: number;
    gap_listeners: number;
    lost_frames: number;
    series: { at: number; gaps: number; late_p99_ms: number }[];
    skips: number;
    first_audio_ms: { p50: number; p99: number };
    late_ms: { p50: number; p99: number; max: number };
    audio: { listeners: number; seconds: number; differ: number; worst: number };
    crowd: { cpu_s: number };
    bottleneck: boolean;
    bottleneck_why?: string[];
}

/** Listeners of `earshot crowd`, in processes of their own. */
export class Crowd {
    /** When it was started, by this process's clock. */
    readonly began = performance.now();

    private constructor(
        private readonly child: ChildProcess,
        private readonly file: string,
        private readonly said: string[],
        private readonly left: Promise<void>,
    ) {}

    static start(
        address: string,
        options: { listeners: number; arrive: number; hold: number; json: string; ca: string; core: number },
    ): Crowd {
        const args = ["crowd", "--quiet", "--url", address, "--ca", options.ca, "--rung", "push"];
        args.push("--listeners", String(options.listeners), "--json", options.json);
        args.push("--arrive", `${options.arrive}s`, "--hold", `${Math.round(options.hold)}s`);
        const child = spawn(...pinned(options.core, args), { stdio: ["ignore", "pipe", "pipe"] });
        const said: string[] = [];
        for (const stream of [child.stdout, child.stderr]) stream?.on("data", (b: Buffer) => said.push(b.toString()));
        const left = new Promise<void>((done) => child.once("exit", () => done()));
        return new Crowd(child, options.json, said, left);
    }

    /** Processor time that it used so far. */
    seconds = () => familySeconds(this.child.pid ?? 0);

    /** What it says at its end, which is when its time is over. */
    async report(): Promise<CrowdReport> {
        await this.left;
        try {
            return JSON.parse(readFileSync(this.file, "utf8")) as CrowdReport;
        } catch {
            throw new Error(`the crowd left no report:\n${this.said.join("")}`);
        }
    }

    /** Ends it early. */
    async stop(): Promise<void> {
        if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill("SIGINT");
        await this.left;
    }
}
