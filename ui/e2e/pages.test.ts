import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Page } from "playwright-core";
import { common, docs, home, listen, missing, operator, studio } from "../src/text/en";
import { Visitor } from "./rig/browser";
import { enterStudio } from "./rig/people";
import { Server } from "./rig/server";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What axe finds against WCAG 2.2 AA, a line each. */
async function faults(page: Page): Promise<string[]> {
    await page.evaluate(axe);
    return page.evaluate(async () => {
        const { axe } = window as unknown as {
            axe: { run(o: unknown): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> };
        };
        const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
        const found = await axe.run({ runOnly: { type: "tag", values: tags } });
        return found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" ")}`);
    });
}

/** How far the page is wider than its window. */
const overflow = (page: Page) =>
    page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

// Every page, wide in light and narrow in dark: nothing for axe to find, nothing wider than the window, no complaint.
describe.each([
    { width: 1100, height: 800, colorScheme: "light" },
    { width: 320, height: 640, colorScheme: "dark" },
] as const)("pages at $width px, $colorScheme", ({ width, height, colorScheme }) => {
    let server: Server;
    let visitor: Visitor;
    const long =
        "A very long title that somebody typed without taking a breath, اجتماع البلدة السنوي, 👩‍👩‍👧‍👦, the end of it";

    beforeAll(async () => {
        server = await Server.start();
        visitor = await Visitor.start({ viewport: { width, height }, colorScheme });
    });
    afterAll(async () => {
        await visitor.close();
        await server.discard();
    });

    const check = async (page: Page) => {
        expect(await faults(page)).toEqual([]);
        expect(await overflow(page)).toBeLessThanOrEqual(0);
        await page.close();
    };

    it("home, empty", async () => {
        const page = await visitor.open(server.base);
        await page.getByText(home.emptyTitle).waitFor();
        await check(page);
    });

    it("operator", async () => {
        const page = await visitor.open(server.operator);
        await page.getByText(operator.none).waitFor();
        expect(page.url()).not.toContain("#");
        await page.getByRole("button", { name: operator.create, exact: true }).click();
        await page.getByLabel(operator.form.title, { exact: true }).fill(long);
        await page.getByLabel(operator.form.slug, { exact: true }).fill("long");
        await page.getByRole("button", { name: operator.form.add, exact: true }).click();
        await page.getByText(long).first().waitFor();
        await check(page);
    });

    it("event before, live, after and cancelled; home with all of them", async () => {
        await server.event({ slug: "before" }, "scheduled");
        await server.event({ slug: "live" });
        await server.event({ slug: "after" });
        await server.api("POST", "/api/v1/events/after/end");
        await server.event({ slug: "cancelled" }, "scheduled");
        await server.api("POST", "/api/v1/events/cancelled/cancel");
        for (const [slug, words] of [
            ["before", ""],
            ["live", common.phases.live],
            ["after", common.phases.ended],
            ["cancelled", common.phases.cancelled],
            ["long", ""],
        ] as const) {
            const page = await visitor.open(`${server.base}/e/${slug}`);
            await page.getByRole("heading", { level: 1 }).waitFor();
            if (words) await page.getByText(words, { exact: true }).first().waitFor();
            await check(page);
        }
        const page = await visitor.open(server.base);
        await page.getByText(home.live).first().waitFor();
        await check(page);
    });

    it("studio", async () => {
        const { link } = await server.invite("live", "host");
        const page = await enterStudio(visitor, link, long.slice(0, 60));
        await page.getByRole("heading", { name: studio.hands }).waitFor();
        await check(page);
    });

    it("API description", async () => {
        const page = await visitor.open(`${server.base}/api/docs`);
        await page.getByRole("heading", { name: docs.title }).waitFor();
        await page.getByText("/api/v1/events").first().waitFor();
        await check(page);
    });

    it("left nothing to complain of", () => {
        expect(visitor.complaints).toEqual([]);
    });
});

describe("odd ways in", () => {
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

    it("an address that leads nowhere", async () => {
        const page = await visitor.open(`${server.base}/e/no-such-event`);
        await page.getByText(missing.title).waitFor();
        expect(await faults(page)).toEqual([]);
    });

    it("a link whose secret is wrong", async () => {
        const page = await visitor.open(`${server.base}/e/demo/studio#k=ei_00000000000000000000000000`);
        await page.getByLabel(studio.name).fill("Somebody");
        await page.getByRole("button", { name: studio.enter, exact: true }).click();
        await page.getByRole("alert").first().waitFor();
        expect(await page.getByRole("button", { name: studio.join, exact: true }).count()).toBe(0);
    });

    it("listening with the keyboard alone", async () => {
        const page = await visitor.open(`${server.base}/e/demo`);
        await page.getByRole("button", { name: listen.listen, exact: true }).waitFor();
        for (let i = 0; i < 12; i++) {
            await page.keyboard.press("Tab");
            if ((await page.evaluate(() => document.activeElement?.textContent.trim())) === listen.listen) break;
        }
        await page.keyboard.press("Enter");
        await page.getByRole("button", { name: listen.pause, exact: true }).waitFor();
    });

    it("is the same page for everyone", async () => {
        const [a, b] = await Promise.all(
            ["en", "ar"].map(async (l) =>
                (await fetch(`${server.base}/e/demo`, { headers: { "accept-language": l } })).text(),
            ),
        );
        expect(a).toEqual(b);
        expect(a).toContain("<title>Two voices, taking turns");
    });
});
