import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listen } from "../src/text/en";
import { Visitor } from "./rig/browser";
import { beginMeter, endMeter, gaps, received } from "./rig/gaps";
import { behind, cadenceOf, overhear } from "./rig/pace";
import { takeStage, tuneIn } from "./rig/people";
import { Server } from "./rig/server";
import { tone, wav } from "./rig/sound";

// A tone without a pause, while the operator makes the server slower and quicker again. `make soak-browser` goes further.
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
        await page.waitForTimeout(3000);
        expect(cadenceOf(wire, 2)).toBeLessThan(400);

        await beginMeter(page, "element");
        await pace(1000, 20);
        await expect
            .poll(() => cadenceOf(wire, 3), { timeout: 30_000, message: "the pause between two messages" })
            .toBeGreaterThan(800);
        const [slower] = wire.announced;
        expect(slower?.data).toMatchObject({ rung: "push", ms: 1000 });
        expect((slower?.data.from ?? 0) - (slower?.frame ?? 0)).toBeGreaterThanOrEqual(500);
        await page.waitForTimeout(3000); // three messages by the new cadence
        await expect.poll(() => behind(page)).toBeGreaterThan(900);
        expect(await behind(page)).toBeLessThan(1500);
        await page.getByText(listen.behind(1100), { exact: false }).waitFor();

        await pace(200, 20);
        await expect
            .poll(() => behind(page), { timeout: 30_000, message: "the delay after the cadence came back" })
            .toBeLessThan(600);
        // On a busy machine the server may already announce the next stretch, of its own accord.
        expect(wire.announced.slice(1).map(({ data }) => data.ms)).toContain(200);

        const heard = await endMeter(page);
        expect(gaps(heard)).toEqual([]);
        expect(heard.waits).toBe(0);
        expect(heard.slowest).toBeGreaterThan(0.87);
        await page.close();
    });

    it("while the packets of WebRTC go from 20 ms to 60 and back", { timeout: 90_000 }, async () => {
        const page = await tuneIn(listener, server, slug, "whep");
        await page.waitForTimeout(4000); // the browser's own buffer settles
        await beginMeter(page, "track");
        const before = await received(page);
        expect(before.target).toBeNull();
        const target = async () => (await received(page)).target;
        const packets = async (ms: number) => {
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
        };
        await pace(200, 60);
        await expect.poll(target, { timeout: 8000, message: "the buffer's target" }).toBeGreaterThanOrEqual(140);
        await packets(60);
        await page.waitForTimeout(2000);
        await pace(200, 20);
        await packets(20);
        await expect.poll(target, { timeout: 8000, message: "the buffer's target" }).toBeNull();

        const after = await received(page);
        const heard = await endMeter(page);
        expect(gaps(heard)).toEqual([]);
        expect((after.concealed - before.concealed) / 48, "milliseconds made up").toBeLessThan(20);
        await page.close();
    });

    it("and no page complains", () => {
        expect(listener.complaints).toEqual([]);
    });
});
