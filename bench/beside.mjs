// Turns what bench/beside.sh measured into a dated section of bench/RESULTS.md.
import { execSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";

const r = JSON.parse(readFileSync(process.argv[2], "utf8"));
const percent = (share) => `${(100 * share).toFixed(0)} %`;
const whole = (x) => (x === null ? "–" : x.toFixed(0));
const number = (x) => x.toLocaleString("en");
const table = (head, rows) => [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
const reasons = (counts) =>
    Object.entries(counts)
        .map(([why, n]) => `${why} ${n}`)
        .join(", ") || "none";
const time = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;

/** How many, how long, and the machine around the worst ones. */
const gapsOf = (all) =>
    all.length === 0
        ? "0"
        : `${all.length}, ${all.reduce((sum, { ms }) => sum + ms, 0)} ms: ${[...all]
              .sort((a, b) => b.ms - a.ms)
              .slice(0, 3)
              .map(
                  ({ at, ms, busy, others }) =>
                      `${ms} ms at ${time(at / 1000)} (machine ${percent(busy)}, others ${percent(others)})`,
              )
              .join(", ")}`;

const rev = execSync("git rev-parse --short HEAD").toString().trim();
const mute = r.pages.filter((page) => page.usual < 0.05);
const silent = r.pages.filter((page) => page.gaps.length > 0);
const names = (pages) => pages.map((page) => page.name).join("; ");
const verdict =
    mute.length > 0
        ? `worth nothing, as nothing sounded at: ${names(mute)}`
        : silent.length === 0
          ? "no page heard a gap"
          : `gaps at: ${names(silent)}`;
const c = r.crowd;

const dry = r.pages.flatMap((page) => (page.dry ?? []).map((event) => ({ ...event, name: page.name })));
const dryAt =
    dry.length === 0
        ? ""
        : `An element waited: ${dry.map(({ name, at, ahead }) => `${name} at ${time(at / 1000)} with ${whole(ahead)} ms in hand`).join("; ")}.\n\n`;

console.log(`
## ${new Date().toISOString().slice(0, 10)}, revision ${rev}: Chromium beside the crowd for ${r.minutes} minutes (\`make soak-browser\`)

${cpus()[0].model.trim()}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GB, Linux ${release().split("-")[0]}. Server on core 0, crowd on core 1, Chromium and the
speaker (GStreamer) on both; nice values: server and speaker ${r.nice - r.before}, the others ${r.nice}; all over TLS with h2 offered. **${verdict[0].toUpperCase()}${verdict.slice(1)}.**

The machine was ${percent(r.alone)} busy with the pages alone and ${percent(r.busy)} with ${number(r.size)} push listeners (20 s before the minutes began), ${percent(r.machine)} over the
minutes, in which the slower cadences cost less. What was neither server, crowd nor browser used ${percent(r.others)} of it, up to ${percent(r.worst)} in a
second; ${percent(r.stolen)} were taken by the hypervisor; in ${r.full} seconds it was over 95 % busy. The server used ${percent(r.serverCPU)} of its core and at most ${whole(r.serverKB / 1024)} MB.

${table(
    [
        "page",
        "measured",
        "gaps",
        "single windows of 20 ms lost",
        "waiting",
        "made up",
        "packets lost",
        "rate",
        "by h2 / others",
    ],
    r.pages.map((page) => [
        page.name,
        `${whole(page.seconds)} s (${whole(page.missedMs)} ms not)`,
        gapsOf(page.gaps),
        page.single,
        page.rung === "whep" ? "–" : page.waits,
        page.concealedMs === null ? "–" : `${page.concealedMs.toFixed(1)} ms`,
        whole(page.lost),
        page.rung === "whep" ? "–" : `${page.slowest.toFixed(2)} to ${page.fastest.toFixed(2)}`,
        `${page.protocols.h2 ?? 0} / ${Object.entries(page.protocols).reduce((n, [name, k]) => n + (name === "h2" ? 0 : k), 0)}`,
    ]),
)}

Of each eighth of the time; packets, intervals and delay as they were at its end. Made up, packets and delay are of the pages in
the order above.

${table(
    ["push, WebRTC asked for", "push came every", "packets/s", "made up", "behind live", "machine", "server's core"],
    r.stages.map((s) => [
        `${s.push} ms, ${s.whep} ms`,
        `${whole(s.pushInterval)} ms`,
        s.packetsPerSecond
            .slice(0, 3)
            .map((n) => n.toFixed(1))
            .join(", "),
        `${s.concealedMs
            .slice(0, 3)
            .map((n) => n.toFixed(0))
            .join(", ")} ms`,
        `${s.behindMs.map(whole).join(", ")} ms`,
        percent(s.machine),
        percent(s.serverCPU),
    ]),
)}

${dryAt}In the programme itself, taken down from live.ogg, the tone paused ${r.programme.length} times (${r.programme.reduce((sum, { ms }) => sum + ms, 0)} ms): everybody hears that, and the table leaves it out.

The crowd: ${number(c.joined)} of ${number(c.listeners)} joined (failed: ${reasons(c.failed)}; cut off: ${reasons(c.lost)}), ${c.gaps} gaps within the minutes, ${c.lost_frames} frames lost, ${c.skips} skips;
first audio p50 ${whole(c.first_audio_ms.p50)}, p99 ${whole(c.first_audio_ms.p99)} ms; lateness p50 ${whole(c.late_ms.p50)}, p99 ${whole(c.late_ms.p99)}, max ${whole(c.late_ms.max)} ms; ${c.audio.seconds} s of ${c.audio.listeners} listeners compared
with the programme, ${c.audio.differ} s differ. ${c.bottleneck ? `It was itself a limit: ${c.bottleneck_why.join("; ")}.` : "It was not itself the limit."}`);
