// Five pages in Chromium, over TLS, listen to a tone that never pauses beside a crowd that keeps the machine busy, while the
// operator makes the cadence of push and WebRTC's packets longer and shorter again. No page may hear a gap.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, readFileSync, writeFileSync } from "node:fs";
import { cpus, getPriority, setPriority } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Visitor } from "../ui/e2e/rig/browser";
import { Crowd, type CrowdReport } from "../ui/e2e/rig/crowd";
import { type Heard, beginMeter, endMeter, gaps, received } from "../ui/e2e/rig/gaps";
import { busyFor, machineTicks, processSeconds, share, watchMachine } from "../ui/e2e/rig/machine";
import { behind, cadenceOf, hello, overhear } from "../ui/e2e/rig/pace";
import { outlet, tuneIn } from "../ui/e2e/rig/people";
import { Server } from "../ui/e2e/rig/server";
import { envelope } from "../ui/e2e/rig/sound";

const minutes = Number(process.env["SOAK_MINUTES"] ?? 10);
const out = process.env["SOAK_OUT"] ?? "";
const ca = process.env["NODE_EXTRA_CA_CERTS"] ?? "";
const wanted = 0.8; // of the machine
const before = 8; // by how much the nice value of server and speaker is below that of the pages and the crowd

/** What the operator asks for, one after another, each for an eighth of the time: push in ms, WebRTC's packets in ms. */
const stages = [
    [200, 20],
    [1000, 20],
    [1000, 60],
    [200, 60],
    [2000, 60],
    [2000, 120],
    [200, 120],
    [200, 20],
] as const;

/** How each page listens. `packet` is the least that a page wishes for; without, it takes what the server gives. */
const ways = [
    { name: "WebRTC, as the server gives it", rung: "whep", packet: null },
    { name: "WebRTC, 60 ms wished", rung: "whep", packet: 60 },
    { name: "WebRTC, 120 ms wished", rung: "whep", packet: 120 },
    { name: "push", rung: "push", packet: null },
    { name: "HLS", rung: "hls", packet: null },
] as const;

const mean = (values: number[]) => values.reduce((sum, v) => sum + v, 0) / Math.max(1, values.length);
const wait = (seconds: number) => new Promise((done) => setTimeout(done, seconds * 1000));

let server: Server;
let slug: string;
let speaker: ChildProcess | undefined;
let listener: Visitor;
let crowd: Crowd | undefined;

beforeAll(async () => {
    server = await Server.start({
        tls: { cert: ca, key: join(out, "key.pem") },
        core: 0,
    });
    slug = await server.event({ recorded: false });
    // GStreamer speaks, not a browser: that would be short of time itself, and what it leaves out all pages would be blamed for.
    const { secret } = await server.invite(slug, "host");
    const script = join(import.meta.dirname, "../internal/rig/testdata/webrtcbin.py");
    const seconds = String(minutes * 60 + 600);
    speaker = spawn("/usr/bin/python3", [script, "whip", `${server.base}/e/${slug}/whip`, seconds, "523", secret], {
        env: { ...process.env, SSL_CERT_FILE: ca },
        stdio: ["ignore", "pipe", "inherit"],
    });
    await once(speaker.stdout as Readable, "data", {
        signal: AbortSignal.timeout(30_000),
    }); // "connected"
    // In life neither shares a machine with browsers: they go before those, and before the crowd.
    setPriority(Math.min(19, getPriority() + before));
    listener = await Visitor.start({ anyCertificate: true });
});
afterAll(async () => {
    await crowd?.stop();
    await listener?.close();
    speaker?.kill();
    await server?.discard();
});

/**
 * As many listeners as make the machine as busy as wanted, or SOAK_LISTENERS, and how busy it then was for 20 s. What one
 * costs is told by the server's and the crowd's own processor time, which others on the machine do not change.
 */
async function gather(): Promise<{
    crowd: Crowd;
    size: number;
    busy: number;
    alone: number;
}> {
    const alone = await busyFor(10);
    const fixed = Number(process.env["SOAK_LISTENERS"] ?? 0);
    let size = fixed || 3000;
    for (let left = fixed ? 0 : 2; ; left--) {
        const arrive = 8;
        const hold = minutes * 60 + 60;
        const json = join(out, "crowd.json");
        const address = `${server.base}/e/${slug}`;
        const one = Crowd.start(address, {
            listeners: size,
            arrive,
            hold,
            json,
            ca,
            core: 1,
        });
        await wait(arrive + 6);
        const from = {
            cpu: processSeconds(server.pid) + one.seconds(),
            at: performance.now(),
        };
        const busy = await busyFor(20);
        if (left === 0 || Math.abs(busy - wanted) < 0.05) return { crowd: one, size, busy, alone };
        const used = (processSeconds(server.pid) + one.seconds() - from.cpu) / ((performance.now() - from.at) / 1000);
        await one.stop();
        const listener = used / cpus().length / size; // of the machine
        size = Math.round(Math.min(12_000, Math.max(1000, size + (wanted - busy) / listener)));
        await wait(3);
    }
}

/** Takes the programme itself down, as live.ogg has it; in the end says where the tone paused in it. */
async function takeDown(): Promise<() => Promise<{ at: number; ms: number }[]>> {
    const file = join(out, "programme.ogg");
    const leave = new AbortController();
    const { body } = await fetch(`${server.base}/e/${slug}/live.ogg`, {
        signal: leave.signal,
    });
    const written = pipeline(Readable.fromWeb(body as ReadableStream), createWriteStream(file)).catch(() => undefined); // left
    return async () => {
        leave.abort();
        await written;
        const pcm = execFileSync(
            "ffmpeg",
            ["-v", "quiet", "-i", file, "-ac", "1", "-ar", "48000", "-f", "f32le", "-"],
            {
                maxBuffer: 2 ** 30,
            },
        );
        const samples = new Float32Array(pcm.buffer.slice(pcm.byteOffset, pcm.byteOffset + (pcm.byteLength & ~3)));
        return gaps({ rms: [...envelope(samples)] });
    };
}

/**
 * The gaps that are not the programme's own pauses, which everybody hears. The file began seconds before the page's meter, with what
 * was before it, and the page is up to two seconds behind.
 */
function beyond(heard: { at: number; ms: number }[], programme: { at: number; ms: number }[]) {
    const left = [...programme];
    return heard.filter((gap) => {
        const same = left.findIndex(
            (pause) => Math.abs(pause.ms - gap.ms) <= 40 && pause.at - gap.at > -1000 && pause.at - gap.at < 8000,
        );
        if (same >= 0) left.splice(same, 1);
        return same < 0;
    });
}

/** What the crowd reports, with the gaps of the measured time alone: before, all come at once; after it, the measuring takes the machine. */
async function heardIn(crowd: Crowd, from: number, seconds: number): Promise<CrowdReport> {
    const report = await crowd.report();
    const start = (from - crowd.began) / 1000;
    const within = report.series.filter(({ at }) => at > start && at < start + seconds);
    return {
        ...report,
        gaps: within.reduce((sum, second) => sum + second.gaps, 0),
        series: within,
    };
}

/** The protocols of the page's own requests, and how many came by each. */
function protocols(page: Page): Promise<Record<string, number>> {
    return page.evaluate(() => {
        const count: Record<string, number> = {};
        for (const entry of performance.getEntries())
            if (entry instanceof PerformanceResourceTiming)
                count[entry.nextHopProtocol || "?"] = (count[entry.nextHopProtocol || "?"] ?? 0) + 1;
        return count;
    });
}

it("nobody hears a gap", { timeout: (minutes * 60 + 300) * 1000 }, async () => {
    const pages: { name: string; rung: "whep" | "push" | "hls"; page: Page }[] = [];
    const door = await listener.context.newPage(); // the socket is listened to from its beginning
    const wire = overhear(door);
    for (const { name, rung, packet } of ways) {
        if (packet)
            await listener.context.route("**/whep", (route) =>
                route.continue({ url: `${route.request().url()}?packet=${packet}` }),
            );
        const page = await tuneIn(listener, server, slug, rung, rung === "push" ? door : undefined);
        await listener.context.unroute("**/whep");
        pages.push({ name, rung, page });
    }
    const { size, busy, alone, ...made } = await gather();
    crowd = made.crowd;

    const taken = await takeDown();
    const watched = watchMachine();
    const counts = () => Promise.all(pages.map(({ rung, page }) => (rung === "whep" ? received(page) : null)));
    for (const { page, rung } of pages) await beginMeter(page, outlet[rung]);
    const began = {
        at: performance.now(),
        cpu: processSeconds(server.pid),
        machine: machineTicks(),
        counts: await counts(),
    };
    const rows: object[] = [];
    for (const [i, [push, whep]] of stages.entries()) {
        const from = {
            cpu: processSeconds(server.pid),
            machine: machineTicks(),
            at: performance.now(),
            counts: await counts(),
        };
        if (i > 0) await server.api("PUT", "/api/v1/pace", { push_ms: push, whep_ms: whep });
        const until = began.at + ((i + 1) * minutes * 60_000) / stages.length;
        await wait((until - performance.now()) / 1000 - 5);
        const before = await counts();
        const at = performance.now();
        await wait((until - performance.now()) / 1000);
        const after = await counts();
        const seconds = (performance.now() - at) / 1000;
        const whole = (performance.now() - from.at) / 1000;
        rows.push({
            push,
            whep,
            pushInterval: cadenceOf(wire, 5),
            packetsPerSecond: after.map((now, j) => now && (now.packets - (before[j]?.packets ?? 0)) / seconds),
            concealedMs: after.map((now, j) => now && (now.concealed - (from.counts[j]?.concealed ?? 0)) / 48),
            behindMs: await Promise.all(pages.map(({ page }) => behind(page))),
            machine: share(from.machine, machineTicks()),
            serverCPU: (processSeconds(server.pid) - from.cpu) / whole,
        });
    }
    const seconds = (performance.now() - began.at) / 1000;
    watched.stop();
    const last = await counts();
    const serverCPU = (processSeconds(server.pid) - began.cpu) / seconds;
    const machine = share(began.machine, machineTicks());
    const heard = [];
    const meters: Heard[] = [];
    for (const { page } of pages) meters.push(await endMeter(page));
    const programme = await taken(); // which takes the machine for seconds
    for (const [i, { name, rung, page }] of pages.entries()) {
        const h = meters[i] as Heard;
        // The page's clock begins when its meter does, within a second of ours; so the machine of the second before and after counts.
        const near = (at: number) =>
            watched.moments.filter((moment) => Math.abs(moment.at - 500 - began.at - at) < 1500);
        const worst = (at: number, of: "busy" | "others" | "stolen") =>
            Math.max(0, ...near(at).map((moment) => moment[of]));
        const usual = [...h.rms].sort((a, b) => a - b)[Math.floor(h.rms.length / 2)] ?? 0;
        const [first, final] = [began.counts[i], last[i]];
        heard.push({
            name,
            rung,
            seconds: h.ms / 1000,
            missedMs: h.missed,
            usual,
            gaps: beyond(gaps(h), programme).map((gap) => ({
                ...gap,
                busy: worst(gap.at, "busy"),
                others: worst(gap.at, "others"),
            })),
            single: h.rms.filter((v, j) => j >= 10 && v < usual / 5).length,
            waits: h.waits,
            dry: h.dry,
            slowest: h.slowest,
            fastest: h.fastest,
            concealedMs: first && final && (final.concealed - first.concealed) / 48,
            lost: first && final && final.lost - first.lost,
            protocols: await protocols(page),
        });
    }
    const result = {
        minutes,
        nice: getPriority(),
        before,
        seconds,
        size,
        alone,
        busy,
        machine,
        serverCPU,
        serverKB: Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, "utf8"))?.[1]),
        stages: rows,
        pages: heard,
        messages: wire.messages.map((at) => Math.round(at - began.at)),
        announced: wire.announced.map(({ data }) => data),
        complaints: listener.complaints,
        programme,
        others: mean(watched.moments.map(({ others }) => others)),
        worst: Math.max(...watched.moments.map(({ others }) => others)),
        stolen: mean(watched.moments.map(({ stolen }) => stolen)),
        full: watched.moments.filter(({ busy }) => busy > 0.95).length,
        moments: watched.moments.map((moment) => ({
            ...moment,
            at: (moment.at - began.at) / 1000,
        })),
        warnings: server
            .logged()
            .split("\n")
            .filter((line) => /level=(WARN|ERROR)/.test(line))
            .slice(0, 20),
        crowd: await heardIn(crowd, began.at, seconds),
    };
    writeFileSync(join(out, "beside.json"), JSON.stringify(result, null, 2));

    for (const page of heard) {
        expect(page.gaps, page.name).toEqual([]);
        expect(page.usual, `${page.name} sounds`).toBeGreaterThan(0.05);
        expect(page.missedMs / 1000 / page.seconds, `${page.name}: share that nobody measured`).toBeLessThan(0.02);
        expect(page.protocols["h2"], `${page.name}: requests over h2`).toBeGreaterThan(0);
        if (page.rung === "push") expect(page.waits, `${page.name}: waiting`).toBe(0);
    }
    expect(Math.max(...rows.map((row) => (row as { pushInterval: number }).pushInterval))).toBeGreaterThan(1700);
    expect(result.complaints).toEqual([]);
});

it("nor who joins at a cadence of two seconds", async () => {
    await crowd?.stop();
    await server.api("PUT", "/api/v1/pace", { push_ms: 2000, whep_ms: 20 });
    const door = await listener.open(`${server.base}/e/${slug}`);
    await expect
        .poll(() => hello(door, slug), {
            timeout: 40_000,
            interval: 1000,
            message: "a newcomer's cadence",
        })
        .toBe(2000);
    await door.close();
    const page = await tuneIn(listener, server, slug, "push");
    await beginMeter(page, "element");
    await page.waitForTimeout(15_000);
    const heard = await endMeter(page);
    expect(gaps(heard)).toEqual([]);
    expect(heard.waits).toBe(0);
    expect(await behind(page)).toBeGreaterThan(1800);
    expect(await behind(page)).toBeLessThan(2700);
    await page.close();
});
