// Weighs what the event page loads for somebody who listens by WebRTC or push: the page itself and, compressed as served, every
// script and style that it or one of its scripts names, save what is loaded only on the way named below. Fails above the limit.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { brotliCompressSync } from "node:zlib";

const limit = 60 * 1024;
const dist = join(dirname(import.meta.dirname), "dist");
const elsewhere = /^assets\/(hls|Replay|Speak|seat)[.-]/; // HLS listeners, the replay, somebody admitted to the stage

const html = readFileSync(join(dist, "event.html"));
const found = new Map([["event.html", brotliCompressSync(html).length]]);
const queue = [...html.toString().matchAll(/(?:src|href)="\/(assets\/[^"]+)"/g)].map((match) => match[1]);
for (let path; (path = queue.pop());) {
    if (found.has(path) || elsewhere.test(path)) continue;
    const served = path.endsWith(".js") || path.endsWith(".css") ? path + ".br" : path;
    found.set(path, readFileSync(join(dist, served)).length);
    if (!path.endsWith(".js")) continue;
    const script = readFileSync(join(dist, path), "utf8");
    for (const [, name] of script.matchAll(/["'`](?:\.\/|\/?assets\/)([\w.-]+\.(?:js|css))["'`]/g))
        queue.push("assets/" + name);
}

const total = [...found.values()].reduce((sum, size) => sum + size, 0);
for (const [path, size] of [...found].sort((a, b) => b[1] - a[1]))
    process.stdout.write(`${String(size).padStart(7)}  ${path}\n`);
process.stdout.write(`${String(total).padStart(7)}  in all, of ${limit} bytes\n`);
if (total > limit) {
    process.stderr.write("The event page is too heavy.\n");
    process.exit(1);
}
