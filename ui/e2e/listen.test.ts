import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listen } from "../src/text/en";
import { Visitor, record } from "./rig/browser";
import { Server } from "./rig/server";
import { envelope } from "./rig/sound";

// The demo at the first click, by each way to listen.
describe("a listener", () => {
    let server: Server;
    let visitor: Visitor;
    beforeAll(async () => {
        server = await Server.start({ demo: true });
        visitor = await Visitor.start();
    });
    afterAll(async () => {
        await visitor.close();
        await server.discard();
    });

    for (const [rung, from] of [
        ["whep", "track"],
        ["push", "element"],
        ["hls", "element"],
    ] as const) {
        it(`hears the demo by ${rung}`, async () => {
            const page = await visitor.open(`${server.base}/e/demo?via=${rung}`);
            await page.getByRole("button", { name: listen.listen, exact: true }).click();
            await page.getByRole("button", { name: listen.pause, exact: true }).waitFor();
            const loud = envelope(await record(page, 8, from), 100);
            const heard = loud.filter((v) => v > 0.01).length;
            expect(heard, "windows of 100 ms in which a voice is heard").toBeGreaterThan(loud.length / 2);
            await page.close();
            expect(visitor.complaints).toEqual([]);
        });
    }

    it("who finds the house full by every way comes back when the server said", async () => {
        const page = await visitor.context.newPage();
        const full = { status: 503, headers: { "Retry-After": "7" }, contentType: "application/problem+json" };
        let asked = 0;
        await page.route(/\/(whep|index\.m3u8)$/, (route) => {
            asked++;
            return route.fulfill({ ...full, body: '{"status": 503, "code": "unavailable", "detail": "Full."}' });
        });
        await page.routeWebSocket(/\/live$/, (socket) => socket.close({ code: 1013 }));
        await page.goto(`${server.base}/e/demo`);
        await page.getByRole("button", { name: listen.listen, exact: true }).click();
        await page.getByText(/The house is full at the moment\. Trying again in [789] seconds\./).waitFor();
        expect(asked, "by WebRTC and by HLS, once each").toBe(2);
        await page.unrouteAll();
        await page.getByRole("button", { name: listen.pause, exact: true }).waitFor({ timeout: 15_000 });
        await page.close();
    });
});
