// Turns what bench/run.sh measured into a dated section of bench/RESULTS.md.
import { execSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";

const out = process.argv[2];
const text = (name) => readFileSync(join(out, name), "utf8");
const sorted = (v) => [...v].sort((a, b) => a - b);
const median = (v) => sorted(v)[Math.floor(v.length / 2)];
const span = (v, digits = 0) =>
    `${median(v).toFixed(digits)} (${sorted(v)[0].toFixed(digits)} to ${sorted(v).at(-1).toFixed(digits)})`;
const grep = (name, pattern) => [...text(name).matchAll(pattern)].map((m) => Number(m[1]));

const rows = [];
rows.push([
    "one second of stage, 13 speakers who all talk and hear",
    `${span(grep("stage.txt", /BenchmarkStageSecond.*\s([\d.]+) cpu-ms\/s/g))} ms CPU`,
    "350 ms of one core",
]);
rows.push([
    "one second of stage, 50 speakers who all talk and hear",
    `${span(grep("stage.txt", /BenchmarkFullStageSecond.*\s([\d.]+) cpu-ms\/s/g))} ms CPU`,
    "one core",
]);
rows.push([
    "timeline: one frame appended, packaging included",
    `${span(grep("timeline.txt", /\s([\d.]+) ns\/op/g))} ns`,
    "",
]);
rows.push(["start to serving", `${span(grep("start.txt", /start_ms (\d+)/g))} ms`, "1000 ms"]);
rows.push(["memory at rest", `${(grep("start.txt", /rest_kb (\d+)/g)[0] / 1024).toFixed(0)} MB`, "80 MB"]);
if (existsSync(join(out, "listen.json"))) {
    for (const r of JSON.parse(text("listen.json"))) {
        const f = (x) => Math.round(x);
        rows.push([r.what, `p50 ${f(r.p50)}, p95 ${f(r.p95)} ms (${f(r.min)} to ${f(r.max)}, n = ${r.n})`, r.limit]);
    }
}

const rev = execSync("git rev-parse --short HEAD").toString().trim();
console.log(`\n## ${new Date().toISOString().slice(0, 10)}, revision ${rev}\n`);
console.log(
    `${cpus()[0].model.trim()}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GB, Linux ${release().split("-")[0]}.`,
);
console.log("Everything on one machine over loopback: browsers, speakers and server share its cores.\n");
console.log("| what | median (range) | limit or peer |\n| --- | --- | --- |");
for (const r of rows) console.log(`| ${r.join(" | ")} |`);
