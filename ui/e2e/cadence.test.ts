import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Page } from "playwright-core";
import { listen } from "../src/text/en";
import { Visitor } from "./rig/browser";
import { beginMeter, endMeter, gaps, received } from "./rig/gaps";
import { takeStage, tuneIn } from "./rig/people";
import { Server } from "./rig/server";
import { tone, wav } from "./rig/sound";

interface Change {
    rung: string;
    ms: number;
    from: number;
}

/** What comes on the page's WebSocket: when messages with audio came, and the announcements between them. */
function overhear(page: Page) {
    const heard = { messages: [] as number[], announced: [] as { frame: number; data: Change }[] };
    page.on("websocket", (socket) =>
        socket.on("framereceived", ({ payload }) => {
            if (typeof payload !== "string") return void heard.messages.push(performance.now());
            const cues: unknown = JSON.parse(payload);
            if (!Array.isArray(cues)) return;
            for (const cue of cues as { kind: string; frame: number; data: Change }[])
                if (cue.kind === "cadence") heard.announced.push(cue);
        }),
    );
    return heard;
}

/** The longest silence between two messages of the last seconds, in milliseconds. */
function cadenceOf(messages: number[], seconds: number): number {
    const recent = messages.filter((at) => at > performance.now() - seconds * 1000);
    return Math.max(0, ...recent.slice(1).map((at, i) => at - (recent[i] ?? at)));
}

/** The cadence that the server tells a newcomer. */
function hello(page: Page, slug: string): Promise<unknown> {
    return page.evaluate(async (slug) => {
        const socket = new WebSocket(`${location.origin.replace("http", "ws")}/e/${slug}/live`, "earshot.1");
        const { data } = await new Promise<MessageEvent>((done, fail) => {
            socket.onmessage = done;
            socket.onerror = fail;
        });
        socket.close();
        return (JSON.parse(String(data)) as { cadence_ms: unknown }).cadence_ms;
    }, slug);
}

const behind = (page: Page) =>
    page.evaluate(() => (window as unknown as { earshot: { player: { behindMs: number } } }).earshot.player.behindMs);

// A tone without a pause, while the operator makes the server slower and quicker again.
describe("a listener hears no gap", () => {
    let server: Server;
    let slug: string;
    let speaker: Visitor;
    let listener: Visitor;
    const pace = (push_ms: number, whep_ms: number) => server.api("PUT", "/api/v1/pace", { push_ms, whep_ms });

    beforeAll(async () => {
        server = await Server.start();
        slug = await server.event();
        speaker = await Visitor.start({ microphone: wav("pace", tone(523)), rawMicrophone: true });
        await takeStage(speaker, (await server.invite(slug, "host")).link, "A tone");
        listener = await Visitor.start();
    });
    afterAll(async () => {
        await listener.close();
        await speaker.close();
        await server.discard();
    });

    it("while the cadence of push stretches to a second, and comes back", { timeout: 120_000 }, async () => {
        const page = await listener.open(`${server.base}/e/${slug}?via=push`);
        const wire = overhear(page);
        await page.getByRole("button", { name: listen.listen, exact: true }).click();
        await page.getByRole("button", { name: listen.pause, exact: true }).waitFor();
        await page.waitForTimeout(5000);
        expect(cadenceOf(wire.messages, 3)).toBeLessThan(400);

        await beginMeter(page, "element");
        await pace(1000, 20);
        await expect
            .poll(() => cadenceOf(wire.messages, 3), { timeout: 30_000, message: "the pause between two messages" })
            .toBeGreaterThan(800);
        const [slower] = wire.announced;
        expect(slower?.data).toMatchObject({ rung: "push", ms: 1000 });
        expect((slower?.data.from ?? 0) - (slower?.frame ?? 0)).toBeGreaterThanOrEqual(500);
        await page.waitForTimeout(8000);
        await expect.poll(() => behind(page)).toBeGreaterThan(900);
        expect(await behind(page)).toBeLessThan(1500);
        await page.getByText(listen.behind(1100), { exact: false }).waitFor();

        await pace(200, 20);
        await expect
            .poll(() => behind(page), { timeout: 30_000, message: "the delay after the cadence came back" })
            .toBeLessThan(600);
        expect(wire.announced[wire.announced.length - 1]?.data).toMatchObject({ rung: "push", ms: 200 });
        expect(cadenceOf(wire.messages, 3)).toBeLessThan(400);

        const heard = await endMeter(page);
        expect(gaps(heard)).toEqual([]);
        expect(heard.waits).toBe(0);
        expect(heard.slowest).toBeGreaterThan(0.87);
        await page.close();
    });

    it("joining at a cadence of two seconds", { timeout: 120_000 }, async () => {
        await pace(2000, 20);
        const door = await listener.open(`${server.base}/e/${slug}`);
        await expect
            .poll(() => hello(door, slug), { timeout: 40_000, interval: 1000, message: "a newcomer's cadence" })
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
        await pace(200, 20);
    });

    it("while the packets of WebRTC go from 20 ms to 60, to 120 and back", { timeout: 150_000 }, async () => {
        const page = await tuneIn(listener, server, slug, "whep");
        await page.waitForTimeout(6000); // the browser's own buffer settles
        await beginMeter(page, "track");
        const before = await received(page);
        expect(before.target).toBeNull();
        for (const ms of [60, 120, 20]) {
            await pace(200, ms);
            const longer = { 60: 140, 120: 220 }[ms];
            if (longer !== undefined)
                await expect
                    .poll(async () => (await received(page)).target, { timeout: 8000, message: "the buffer's target" })
                    .toBeGreaterThanOrEqual(longer);
            const rate = async () => {
                const { packets } = await received(page);
                await page.waitForTimeout(1500);
                return ((await received(page)).packets - packets) / 1.5;
            };
            await expect
                .poll(async () => Math.abs((await rate()) / (1000 / ms) - 1), {
                    timeout: 30_000,
                    message: `packets of ${ms} ms`,
                })
                .toBeLessThan(0.2);
            await page.waitForTimeout(5000);
        }
        const after = await received(page);
        const heard = await endMeter(page);
        expect(gaps(heard)).toEqual([]);
        expect((after.concealed - before.concealed) / 48, "milliseconds made up").toBeLessThan(20);
        expect(after.target).toBeNull();
        await page.close();
    });

    it("and no page complains", () => {
        expect(listener.complaints).toEqual([]);
    });
});
