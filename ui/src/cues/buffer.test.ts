import { describe, expect, it } from "vitest";
import { CueBuffer } from "./buffer";
import type { Cue } from "./cue";
import { apply, emptyScene, fade } from "./scene";

const cue = (frame: number, kind: string): Cue => ({ frame, kind, data: {} });
const shown = (cues: Cue[]) => cues.map((c) => `${c.kind}@${c.frame}`);

describe("CueBuffer", () => {
    it("hands out each cue once, at its frame, in order, however it came", () => {
        const buffer = new CueBuffer();
        buffer.add([cue(20, "levels"), cue(10, "levels")]);
        buffer.add([cue(10, "levels"), cue(10, "stage")]);
        expect(shown(buffer.advance(9.9))).toEqual([]);
        expect(shown(buffer.advance(10.1))).toEqual(["levels@10", "stage@10"]);
        expect(shown(buffer.advance(19))).toEqual([]);
        expect(shown(buffer.advance(20))).toEqual(["levels@20"]);
    });

    it("is not upset by kinds that it does not know, nor is the scene", () => {
        const buffer = new CueBuffer();
        buffer.add([cue(10, "stage"), { frame: 11, kind: "cadence", data: { rung: "push", ms: 400, from: 600 } }]);
        buffer.add([cue(12, "levels")]);
        const due = buffer.advance(12);
        expect(shown(due)).toEqual(["stage@10", "cadence@11", "levels@12"]);
        expect(apply(emptyScene, due[1] as Cue)).toBe(emptyScene);
    });

    it("applies a late cue at once, unless time or a later one has overtaken it", () => {
        const buffer = new CueBuffer();
        buffer.advance(100);
        buffer.add([cue(95, "levels"), cue(60, "levels"), cue(98, "count"), cue(90, "count")]);
        expect(shown(buffer.advance(101))).toEqual(["levels@95", "count@98"]);
    });

    it("after a seek shows what was in force, in both directions", () => {
        const buffer = new CueBuffer(Infinity);
        for (let f = 0; f < 1000; f += 100) buffer.add([cue(f, "stage"), cue(f, "levels")]);
        buffer.advance(0);
        expect(shown(buffer.advance(855))).toEqual(["stage@800"]);
        expect(shown(buffer.advance(310))).toEqual(["stage@300", "levels@300"]);
        expect(shown(buffer.advance(400))).toEqual(["stage@400", "levels@400"]);
    });

    it("keeps a bounded past, and of the sticky kinds what is in force", () => {
        const buffer = new CueBuffer(1000);
        buffer.add([cue(0, "count")]);
        for (let f = 0; f < 20_000; f += 10) {
            buffer.add([cue(f, "levels")]);
            buffer.advance(f);
        }
        expect(buffer.size).toBeLessThan(1000);
        expect(shown(buffer.advance(18_900))).toContain("count@0");
    });

    it("works through a four-hour recording in good time", () => {
        const buffer = new CueBuffer(Infinity);
        const all: Cue[] = [];
        for (let f = 0; f < 720_000; f += 10) all.push(cue(f, "levels"));
        buffer.add(all);
        const began = performance.now();
        for (let f = 600_000; f < 605_000; f += 5) buffer.advance(f);
        expect(performance.now() - began).toBeLessThan(500);
    });
});

describe("scene", () => {
    it("is made of the cues applied", () => {
        const people = [{ id: "p_1", name: "A", role: "host", muted: false }];
        let scene = apply(emptyScene, { frame: 5, kind: "stage", data: { phase: "live", people } });
        scene = apply(scene, { frame: 10, kind: "levels", data: { p_1: -20 } });
        scene = apply(scene, { frame: 10, kind: "count", data: { now: 3, peak: 4, tuned_in: 5 } });
        expect(scene).toMatchObject({ phase: "live", people, levels: { p_1: -20 }, count: { now: 3 } });
        expect(apply(scene, { frame: 11, kind: "unknown", data: {} })).toBe(scene);
        expect(apply(scene, { frame: 11, kind: "stage", data: null })).toBe(scene);
    });

    it("falls silent when no level has come for half a second", () => {
        const scene = apply(emptyScene, { frame: 10, kind: "levels", data: { p_1: -20 } });
        expect(fade(scene, 30)).toBe(scene);
        expect(fade(scene, 36).levels).toEqual({});
    });
});

describe("the scene", () => {
    it("knows the raised hands", () => {
        const first = [{ id: "p_1" }, { id: "p_2", name: "Bo" }];
        const scene = apply(emptyScene, { frame: 100, kind: "hands", data: { up: 2, first } });
        expect(scene.hands).toEqual({ up: 2, first });
        expect(apply(scene, { frame: 200, kind: "hands", data: {} }).hands).toEqual({ up: 0, first: [] });
    });

    it("shows who is the host now for a while, and a restart until the stage is back", () => {
        const stage = (frame: number) => ({ frame, kind: "stage", data: { phase: "live", people: [] } });
        const told = (code: string) => apply(emptyScene, { frame: 100, kind: "notice", data: { code, text: "…" } });
        expect(apply(told("host"), stage(200)).notice).toMatchObject({ code: "host" });
        expect(apply(told("host"), stage(500)).notice).toBeNull();
        expect(apply(told("restart"), stage(101)).notice).toBeNull();
    });
});
