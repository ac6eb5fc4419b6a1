// Mouth to ear, and the first sound after pressing Listen, on each rung, in Chromium on loopback.
import { mkdirSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, it } from "vitest";
import { Visitor } from "../ui/e2e/rig/browser";
import { bursts, delays, firstSound, percentile, recordTogether } from "../ui/e2e/rig/latency";
import { takeStage } from "../ui/e2e/rig/people";
import { Server } from "../ui/e2e/rig/server";
import { tone, wav } from "../ui/e2e/rig/sound";
import { listen } from "../ui/src/text/en";

const clicks = 20;
const rungs = [
    { name: "whep", from: "track", limit: 350 },
    { name: "push", from: "element", limit: 700 },
    { name: "hls", from: "element", limit: 2000 },
] as const;

interface Row {
    what: string;
    n: number;
    p50: number;
    p95: number;
    min: number;
    max: number;
    limit: string;
}

const rows: Row[] = [];

function row(what: string, values: number[], limit: string): void {
    rows.push({
        what,
        n: values.length,
        p50: percentile(values, 50),
        p95: percentile(values, 95),
        min: Math.min(...values),
        max: Math.max(...values),
        limit,
    });
    const out = resolve(import.meta.dirname, "../out/bench");
    mkdirSync(out, { recursive: true });
    writeFileSync(resolve(out, "listen.json"), JSON.stringify(rows, null, 2));
}

describe("mouth to ear", () => {
    for (const rung of rungs) {
        it(rung.name, async () => {
            const train = bursts(40);
            const server = await Server.start();
            const visitor = await Visitor.start({
                microphone: wav("bursts", train.pcm),
            });
            try {
                const slug = await server.event({ recorded: false });
                const { secret } = await server.invite(slug, "speaker");
                const page = await visitor.open(`${server.base}/e/${slug}?via=${rung.name}`);
                await page.getByRole("button", { name: listen.listen, exact: true }).click();
                await page.getByRole("button", { name: listen.pause, exact: true }).waitFor();
                const heard = await recordTogether(
                    page,
                    `${server.base}/e/${slug}/stage`,
                    secret,
                    rung.from,
                    clicks * 1.25 + 10,
                );
                const direct = delays(heard.mic, heard.direct).slice(0, clicks);
                const ours = delays(heard.mic, heard.heard).slice(0, clicks);
                row(`mouth to ear, ${rung.name}`, ours, `p95 ≤ ${rung.limit} ms`);
                row(`two pages connected directly, beside ${rung.name}`, direct, "the peer");
            } finally {
                await visitor.close();
                await server.discard();
            }
        });
    }
});

describe("first sound after pressing Listen", () => {
    for (const rung of rungs) {
        it(rung.name, async () => {
            const server = await Server.start();
            // A tone without a pause, so that what is waited for is the page and not the speaker.
            const speaker = await Visitor.start({
                microphone: wav("steady", tone(440)),
                rawMicrophone: true,
            });
            const visitor = await Visitor.start();
            try {
                const slug = await server.event({ recorded: false });
                await takeStage(speaker, (await server.invite(slug, "speaker")).link, "A tone");
                await new Promise((done) => setTimeout(done, 8000)); // the playlist has its segments
                const values: number[] = [];
                for (let i = 0; i < clicks; i++) {
                    const page = await visitor.open(`${server.base}/e/${slug}?via=${rung.name}`);
                    await page.getByRole("button", { name: listen.listen, exact: true }).waitFor();
                    await page.waitForTimeout(500); // a person reads the title first
                    values.push(await firstSound(page, listen.listen, rung.from));
                    await page.close();
                }
                row(`first sound, ${rung.name}`, values, "p95 ≤ 400 ms");
            } finally {
                await speaker.close();
                await visitor.close();
                await server.discard();
            }
        });
    }
});
