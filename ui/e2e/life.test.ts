import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Page } from "playwright-core";
import { common, event, hand, listen, mic, replay, seat, studio } from "../src/text/en";
import { Visitor, record } from "./rig/browser";
import { enterStudio, outlet, takeStage, tuneIn } from "./rig/people";
import { Server } from "./rig/server";
import { levels, tone, wav } from "./rig/sound";

const button = (page: Page, name: string) => page.getByRole("button", { name, exact: true });

// One event from its doors to its replay, as its host and its listener live it.
describe("an event", () => {
    let server: Server;
    let slug: string;
    let host: Visitor;
    let listener: Visitor;
    let desk: Page;
    let page: Page;

    beforeAll(async () => {
        server = await Server.start();
        slug = await server.event({ slug: "evening", title: "An evening of one tone" }, "scheduled");
        host = await Visitor.start({ microphone: wav("host", tone(523)), rawMicrophone: true });
        listener = await Visitor.start();
    });
    afterAll(async () => {
        await host.close();
        await listener.close();
        await server.discard();
    });

    it("says before the doors when it starts", async () => {
        page = await listener.open(`${server.base}/e/${slug}`);
        await page.getByRole("heading", { name: "An evening of one tone" }).waitFor();
        await page.getByText(event.starts, { exact: false }).first().waitFor();
        expect(await button(page, listen.listen).count()).toBe(0);
        await page.close();
    });

    it("opens its doors from the studio, and the link's secret leaves the address", async () => {
        desk = await enterStudio(host, (await server.invite(slug, "host")).link, "Hostess of the evening");
        expect(desk.url()).not.toContain("#");
        await button(desk, studio.doors).click();
        await button(desk, studio.live).waitFor();
        await button(desk, studio.join).click();
        await button(desk, mic.mute).and(desk.locator(":enabled")).waitFor();
    });

    it("carries silence while the doors are open", async () => {
        page = await tuneIn(listener, server, slug, "whep");
        await page.getByText(listen.ready).waitFor();
        const [level = 0] = levels(await record(page, 2, "track"), 523);
        expect(level).toBeLessThan(-70);
    });

    it("goes live without a click of the listener", async () => {
        await button(desk, studio.live).click();
        await button(desk, studio.liveNow).click();
        await page.getByText("Hostess of the evening").first().waitFor();
        await page.waitForTimeout(2000);
        const [level = 0] = levels(await record(page, 3, "track"), 523);
        expect(level).toBeGreaterThan(-35);
    });

    it("is silent while the host is muted, by the server", async () => {
        await button(desk, mic.mute).click();
        await button(desk, mic.unmute).waitFor();
        await page.waitForTimeout(700);
        const [muted = 0] = levels(await record(page, 2, "track"), 523);
        expect(muted).toBeLessThan(-60);
        await button(desk, mic.unmute).click();
        await page.waitForTimeout(1000);
        const [open = 0] = levels(await record(page, 2, "track"), 523);
        expect(open).toBeGreaterThan(-35);
    });

    it("ends, and stays as a replay at the same address", async () => {
        await button(desk, studio.end).click();
        await button(desk, studio.endYes).click();
        await page
            .getByText(common.phases.ended ?? "", { exact: true })
            .first()
            .waitFor();
        await button(page, replay.play).waitFor({ timeout: 30_000 });
        await button(page, replay.play).click();
        await page.waitForTimeout(3000);
        const [level = 0] = levels(await record(page, 2, "element"), 523);
        expect(level).toBeGreaterThan(-35);
        // The recorded cues say who speaks at the moment that is heard.
        await page.getByText("Hostess of the evening").first().waitFor();
        const download = await page.request.get(`${server.base}/e/${slug}/replay.opus`);
        expect(download.headers()["content-disposition"]).toContain(`${slug}.opus`);
        expect((await download.body()).subarray(0, 4).toString()).toBe("OggS");
    });

    it("left nobody's page complaining", () => {
        expect([...host.complaints, ...listener.complaints]).toEqual([]);
    });
});

describe("the stage", () => {
    it("admits a raised hand, who is then heard", async () => {
        const server = await Server.start();
        const host = await Visitor.start({ microphone: wav("host", tone(523)), rawMicrophone: true });
        const guest = await Visitor.start({ microphone: wav("guest", tone(880)), rawMicrophone: true });
        try {
            const slug = await server.event();
            const desk = await takeStage(host, (await server.invite(slug, "host")).link, "Host");
            const page = await tuneIn(guest, server, slug, "whep");
            await button(page, hand.raise).click();
            await page.getByLabel(hand.name).fill("A guest");
            await button(page, hand.send).click();
            await page.getByText(hand.raised(1, 1)).waitFor();
            await desk.getByRole("button", { name: studio.admit }).first().click();
            await button(page, hand.open).click();
            await page.getByText(hand.onAir).waitFor();
            await desk.waitForTimeout(2500);
            const [own = 0, theirs = 0] = levels(await record(desk, 3, "track"), 523, 880);
            expect(theirs).toBeGreaterThan(-35);
            expect(own).toBeLessThan(theirs - 40);

            // Somebody who is banned is off the stage and can't ask again, until that is taken back.
            await desk.getByRole("button", { name: `${studio.ban}: A guest` }).click();
            await desk.getByRole("dialog").getByRole("button", { name: studio.ban }).click();
            await page.getByText(seat.removed).waitFor();
            await button(page, hand.back).click();
            await button(page, hand.raise).click();
            await page.getByLabel(hand.name).fill("A guest");
            await button(page, hand.send).click();
            await page.getByRole("alert").getByText("banned").waitFor();
            const unban = desk.getByRole("button", { name: `${studio.unban}: A guest` });
            await unban.click();
            await unban.waitFor({ state: "detached" });
            await button(page, hand.send).click();
            await page.getByText(hand.raised(1, 1)).waitFor();
        } finally {
            await host.close();
            await guest.close();
            await server.discard();
        }
    });

    it("lets the newer of two windows speak, and tells the older", async () => {
        const server = await Server.start();
        const visitor = await Visitor.start({ microphone: wav("host", tone(523)), rawMicrophone: true });
        try {
            const slug = await server.event();
            const { link } = await server.invite(slug, "host");
            const first = await takeStage(visitor, link, "Host");
            const second = await visitor.open(`${server.base}/e/${slug}/studio`); // the session is the browser's
            await button(second, studio.join).click();
            await button(second, mic.mute).and(second.locator(":enabled")).waitFor();
            await first.getByText(seat.displaced).waitFor();
            const state = await server.api<{ people: unknown[] }>("GET", `/api/v1/events/${slug}/stage`);
            expect(state.people).toHaveLength(1);
        } finally {
            await visitor.close();
            await server.discard();
        }
    });
});

// The server is killed and started again: speaker and listeners come back by themselves.
describe("a killed server", () => {
    it("is found again by everyone", async () => {
        let server = await Server.start();
        const speaker = await Visitor.start({ microphone: wav("speaker", tone(523)), rawMicrophone: true });
        const listener = await Visitor.start();
        try {
            const slug = await server.event();
            await takeStage(speaker, (await server.invite(slug, "speaker")).link, "Speaker");
            const pages = new Map<"whep" | "push" | "hls", Page>();
            for (const rung of ["whep", "push", "hls"] as const)
                pages.set(rung, await tuneIn(listener, server, slug, rung));
            const { listen: address, udp, data } = server;
            await server.stop("SIGKILL");
            server = await Server.start({ data, listen: address, udp });
            for (const [rung, page] of pages) {
                await expect
                    .poll(
                        async () => {
                            const state = await page.evaluate(
                                () =>
                                    (window as unknown as { earshot: { player: { state: string } } }).earshot.player
                                        .state,
                            );
                            if (state !== "playing") return -180;
                            return levels(await record(page, 1, outlet[rung]), 523)[0];
                        },
                        { timeout: 40_000, interval: 500, message: `the tone by ${rung}` },
                    )
                    .toBeGreaterThan(-35);
            }
        } finally {
            await speaker.close();
            await listener.close();
            await server.discard();
        }
    });
});
