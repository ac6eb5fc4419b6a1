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
});
