import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const binary = resolve(import.meta.dirname, "../../../bin/earshot");

interface Options {
    demo?: boolean;
    data?: string;
    listen?: string;
    udp?: string;
    /** Serves HTTPS with these files. Node trusts the certificate where NODE_EXTRA_CA_CERTS names it. */
    tls?: { cert: string; key: string };
    /** The one processor it may use. */
    core?: number;
}

/** How to start bin/earshot so that it uses one processor only, where one is named. taskset leaves its pid to it. */
export function pinned(core: number | undefined, args: string[]): [string, string[]] {
    return core === undefined ? [binary, args] : ["taskset", ["-c", String(core), binary, ...args]];
}

/** A running `earshot serve` with a data folder of its own, on ports the system picks. */
export class Server {
    private constructor(
        private child: ChildProcess,
        readonly data: string,
        /** Such as http://localhost:41234 */
        readonly base: string,
        readonly operator: string,
        /** The demo's studio link; empty without --demo. */
        readonly host: string,
        private readonly log: string[],
        /** The addresses it has, to start another one there. */
        readonly listen: string,
        readonly udp: string,
    ) {}

    static async start(options: Options = {}): Promise<Server> {
        const data = options.data ?? mkdtempSync(join(tmpdir(), "earshot-e2e-"));
        const args = [
            "serve",
            "--listen",
            options.listen ?? "127.0.0.1:0",
            "--udp",
            options.udp ?? "127.0.0.1:0",
            "--data",
            data,
        ];
        if (options.demo) args.push("--demo");
        if (options.tls) args.push("--cert", options.tls.cert, "--key", options.tls.key);
        const [program, given] = pinned(options.core, args);
        const child = spawn(program, given, { stdio: ["ignore", "pipe", "pipe"] });
        const log: string[] = [];
        child.stderr.on("data", (b: Buffer) => log.push(b.toString()));
        let out = "";
        const keyFile = () =>
            import("node:fs").then((fs) => fs.readFileSync(join(data, "operator.key"), "utf8").trim());
        await new Promise<void>((done, fail) => {
            const late = setTimeout(() => fail(new Error(`the server did not start:\n${log.join("")}`)), 20_000);
            child.stdout.on("data", (b: Buffer) => {
                out += b.toString();
                if (/Operator.*\n/.test(out) && /Listener.*\n/.test(out)) {
                    clearTimeout(late);
                    done();
                }
            });
            child.on("exit", (code) => {
                clearTimeout(late);
                fail(new Error(`the server left with ${code}:\n${log.join("")}`));
            });
        });
        const link = (name: string) => out.match(new RegExp(`${name}\\s+(http\\S+)`))?.[1] ?? "";
        const base = new URL(link("Listener")).origin;
        const address = (name: string) => log.join("").match(new RegExp(`${name}=(\\S+)`))?.[1] ?? "";
        for (let i = 0; i < 100 && !address("udp"); i++) await new Promise((next) => setTimeout(next, 20)); // logged once it serves
        return new Server(
            child,
            data,
            base,
            `${base}/operator#k=${await keyFile()}`,
            link("Host"),
            log,
            address("http"),
            address("udp"),
        );
    }

    get pid(): number {
        return this.child.pid ?? 0;
    }

    get operatorKey(): string {
        return this.operator.split("#k=")[1] ?? "";
    }

    /** Everything the server logged so far. */
    logged(): string {
        return this.log.join("");
    }

    /** Calls the API as the operator; throws what the server answers if that is no success. */
    async api<T = Record<string, unknown>>(method: string, path: string, body?: unknown): Promise<T> {
        const r = await fetch(this.base + path, {
            method,
            headers: { authorization: `Bearer ${this.operatorKey}`, "content-type": "application/json" },
            body: body === undefined ? undefined : JSON.stringify(body),
        });
        const text = await r.text();
        if (!r.ok) throw new Error(`${method} ${path}: ${r.status} ${text}`);
        return (text ? JSON.parse(text) : undefined) as T;
    }

    /** Creates an event that starts now, and opens it so far. */
    async event(fields: Record<string, unknown> = {}, phase: "scheduled" | "doors" | "live" = "live"): Promise<string> {
        const start = new Date(Date.now() + (phase === "scheduled" ? 3_600_000 : 0)).toISOString();
        const e = await this.api<{ slug: string }>("POST", "/api/v1/events", {
            title: "A test of voices",
            start,
            zone: "Europe/Berlin",
            listed: true,
            recorded: true,
            ...fields,
        });
        if (phase === "live") await this.api("POST", `/api/v1/events/${e.slug}/live`);
        return e.slug;
    }

    /** An invite's link and secret. */
    invite(slug: string, role: "host" | "speaker", label = ""): Promise<{ id: string; link: string; secret: string }> {
        return this.api("POST", `/api/v1/events/${slug}/invites`, { role, label });
    }

    /** SIGTERM (or another signal), then waits until the process has left. Answers its exit code. */
    async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> {
        if (this.child.exitCode !== null || this.child.signalCode !== null) return this.child.exitCode;
        const left = new Promise<number | null>((done) => this.child.once("exit", (code) => done(code)));
        this.child.kill(signal);
        return left;
    }

    async discard(): Promise<void> {
        await this.stop();
        rmSync(this.data, { recursive: true, force: true });
    }
}
