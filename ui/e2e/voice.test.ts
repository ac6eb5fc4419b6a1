import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Page } from "playwright-core";
import { Visitor, record } from "./rig/browser";
import { outlet, takeStage, tuneIn } from "./rig/people";
import { Server } from "./rig/server";
import { envelope, levels, likeness, speech, tone, wav } from "./rig/sound";

// Two microphones with a tone each, on stage through the studio: who hears whom, measured.
describe("two speakers", () => {
    const tones = [440, 1100] as const;
    let server: Server;
    let slug: string;
    const visitors: Visitor[] = [];
    const stages: Page[] = [];

    beforeAll(async () => {
        server = await Server.start();
        slug = await server.event();
        for (const hertz of tones) {
            const v = await Visitor.start({ microphone: wav(`tone${hertz}`, tone(hertz)), rawMicrophone: true });
            visitors.push(v);
            const { link } = await server.invite(slug, hertz === tones[0] ? "host" : "speaker");
            stages.push(await takeStage(v, link, `Tone ${hertz}`));
        }
        visitors.push(await Visitor.start());
    });
    afterAll(async () => {
        for (const v of visitors) await v.close();
        await server.discard();
    });

    tones.forEach((own, i) => {
        it(`${own} Hz hears the other and not themself`, async () => {
            const other = tones[1 - i] ?? 0;
            const [heardOwn = 0, heardOther = 0] = levels(await record(stages[i] as Page, 4, "track"), own, other);
            expect(heardOther).toBeGreaterThan(-35);
            expect(heardOwn).toBeLessThan(heardOther - 40);
        });
    });

    for (const rung of ["whep", "push", "hls"] as const) {
        it(`a listener by ${rung} hears both`, async () => {
            const listener = visitors[2] as Visitor;
            const page = await tuneIn(listener, server, slug, rung);
            await page.waitForTimeout(2000); // the voices come to their level
            const heard = await record(page, 4, outlet[rung]);
            const [a = 0, b = 0, nobody = 0] = levels(heard, ...tones, 700);
            expect(a).toBeGreaterThan(-35);
            expect(b).toBeGreaterThan(-35);
            expect(nobody).toBeLessThan(Math.min(a, b) - 30);
            await page.close();
        });
    }

    it("nobody's page complained", () => {
        expect(visitors.flatMap((v) => v.complaints)).toEqual([]);
    });
});

// A sentence, spoken into a browser's microphone with all of its processing, arrives as that sentence.
describe("speech", () => {
    for (const rung of ["whep", "push", "hls"] as const) {
        it(`is recognised by its envelope on ${rung}`, async () => {
            const said = speech(
                "The doors are open. We begin on time, however many of you arrive in the same minute. Welcome, and listen.",
            );
            const server = await Server.start();
            const speaker = await Visitor.start({ microphone: wav("speech", said) });
            const listener = await Visitor.start();
            try {
                const slug = await server.event();
                await takeStage(speaker, (await server.invite(slug, "speaker")).link, "A voice");
                const page = await tuneIn(listener, server, slug, rung);
                await page.waitForTimeout(3000);
                const heard = await record(page, 6, outlet[rung]);
                const like = likeness(envelope(said), envelope(heard));
                const backwards = likeness(envelope(said.slice().reverse()), envelope(heard));
                expect(like).toBeGreaterThan(0.85);
                expect(like, "than to the sentence backwards").toBeGreaterThan(backwards + 0.1);
            } finally {
                await speaker.close();
                await listener.close();
                await server.discard();
            }
        });
    }
});
