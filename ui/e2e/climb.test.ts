import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Page } from "playwright-core";
import { listen } from "../src/text/en";
import { Visitor, record } from "./rig/browser";
import { takeStage } from "./rig/people";
import { Server } from "./rig/server";
import { levels, tone, wav } from "./rig/sound";

interface Shown {
    earshot: { player: { rung: string; state: string; element: HTMLAudioElement } };
}

const rungOf = (page: Page) => page.evaluate(() => (window as unknown as Shown).earshot.player.rung);

// WebRTC fails for a while; the listener goes on by push, and is back on WebRTC a minute and a half later.
describe("a listener who fell to a slower way", () => {
    let server: Server;
    let slug: string;
    let speaker: Visitor;
    let listener: Visitor;
    beforeAll(async () => {
        server = await Server.start();
        slug = await server.event();
        speaker = await Visitor.start({ microphone: wav("climb", tone(523)), rawMicrophone: true });
        await takeStage(speaker, (await server.invite(slug, "host")).link, "A tone");
        listener = await Visitor.start();
    });
    afterAll(async () => {
        await listener.close();
        await speaker.close();
        await server.discard();
    });

    it("climbs back, and the sound pauses for less than 300 ms", async () => {
        const page = await listener.context.newPage();
        await page.clock.install(); // so that nobody need wait for the minute and a half
        await page.route("**/whep", (route) => route.abort());
        await page.goto(`${server.base}/e/${slug}`);
        await page.getByRole("button", { name: listen.listen, exact: true }).click();
        await page.getByRole("button", { name: listen.pause, exact: true }).waitFor();
        expect(await rungOf(page)).toBe("push");
        await page.unroute("**/whep");
        // The pause: from when the element let go of push until it plays again.
        await page.evaluate(() => {
            const { element } = (window as unknown as Shown).earshot.player;
            const at: Record<string, number> = {};
            Object.assign(window, { __at: at });
            for (const kind of ["emptied", "playing"])
                element.addEventListener(kind, (event) => (at[kind] = event.timeStamp));
        });
        await page.clock.fastForward(91_000);
        await expect.poll(() => rungOf(page), { timeout: 10_000 }).toBe("whep");
        await page.waitForTimeout(1500);
        const [level = -180] = levels(await record(page, 2, "track"), 523);
        expect(level).toBeGreaterThan(-35);
        const now = await page.evaluate(() => {
            const { element, state } = (window as unknown as Shown).earshot.player;
            const { emptied = 0, playing = 0 } = (window as unknown as { __at: Record<string, number> }).__at;
            return { state, paused: element.paused, muted: element.muted, pause: playing - emptied };
        });
        expect(now).toMatchObject({ state: "playing", paused: false, muted: false });
        expect(now.pause).toBeGreaterThan(0);
        expect(now.pause).toBeLessThan(300);
        await page.close();
    });
});
