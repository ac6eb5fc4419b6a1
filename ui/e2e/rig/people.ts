import type { Page } from "playwright-core";
import { studio, listen, mic } from "../../src/text/en";
import { Visitor } from "./browser";
import type { Server } from "./server";

/** Opens an invite's link and comes in under a name. */
export async function enterStudio(visitor: Visitor, link: string, name: string): Promise<Page> {
    const page = await visitor.open(link);
    await page.getByLabel(studio.name).fill(name);
    await page.getByRole("button", { name: studio.enter, exact: true }).click();
    await page.getByRole("button", { name: studio.join, exact: true }).waitFor();
    return page;
}

/** Opens an invite's link, comes in, and joins the stage with the microphone. */
export async function takeStage(visitor: Visitor, link: string, name: string): Promise<Page> {
    const page = await enterStudio(visitor, link, name);
    await page.getByRole("button", { name: studio.join, exact: true }).click();
    await page.getByRole("button", { name: mic.mute, exact: true }).and(page.locator(":enabled")).waitFor();
    return page;
}

/** Opens an event's page, in `door` where that is given, and listens by one rung. */
export async function tuneIn(
    visitor: Visitor,
    server: Server,
    slug: string,
    rung: "whep" | "push" | "hls",
    door?: Page,
): Promise<Page> {
    const page = await visitor.open(`${server.base}/e/${slug}?via=${rung}`, door);
    await page.getByRole("button", { name: listen.listen, exact: true }).click();
    await page.getByRole("button", { name: listen.pause, exact: true }).waitFor();
    return page;
}

/** Where the audio of a rung is found on the page. */
export const outlet = { whep: "track", push: "element", hls: "element" } as const;
