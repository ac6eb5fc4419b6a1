import { describe, expect, it } from "vitest";
import { chunks } from "./boxes";
import { emsgCues } from "./emsg";
import { box, chunk, emsg, join } from "./mp4.fixture";

const ours = "urn:earshot:cues";

describe("emsgCues", () => {
    it("reads every box of our scheme, among other boxes, in order", () => {
        const segment = join(
            emsg(ours, 100, '[{"frame":100,"kind":"stage","data":{"people":[]}},{"frame":104,"kind":"x"}]'),
            chunk(100),
            emsg("urn:other", 110, '[{"frame":1,"kind":"no"}]'),
            emsg(ours, 120, '[{"frame":120,"kind":"count","data":{"now":"ä🎙"}}]'),
            chunk(120),
        );
        expect(emsgCues(segment)).toEqual([
            { frame: 100, kind: "stage", data: { people: [] } },
            { frame: 104, kind: "x" },
            { frame: 120, kind: "count", data: { now: "ä🎙" } },
        ]);
    });

    it("reads within a larger buffer", () => {
        const whole = join(new Uint8Array(7), emsg(ours, 0, '[{"frame":0,"kind":"a"}]'));
        expect(emsgCues(whole.subarray(7))).toHaveLength(1);
    });

    it("leaves out what is not a cue, another version, and a message that is not JSON", () => {
        expect(
            emsgCues(emsg(ours, 0, '[{"frame":-1,"kind":"a"},{"frame":1},7,null,{"frame":"1","kind":"a"}]')),
        ).toEqual([]);
        expect(emsgCues(emsg(ours, 0, '[{"frame":0,"kind":"a"}]', 0))).toEqual([]);
        expect(emsgCues(emsg(ours, 0, "{"))).toEqual([]);
        expect(emsgCues(box("emsg", [1, 0, 0, 0]))).toEqual([]);
    });

    it("survives every truncation and any byte turned", () => {
        const segment = join(emsg(ours, 0, '[{"frame":0,"kind":"a"}]'), chunk(0));
        for (let n = 0; n < segment.length; n++) {
            emsgCues(segment.subarray(0, n));
            chunks(segment.subarray(0, n));
            const turned = segment.slice();
            turned[n] = 255 - (turned[n] as number);
            expect(Array.isArray(emsgCues(turned))).toBe(true);
            expect(chunks(turned).length).toBeLessThanOrEqual(1);
        }
    });
});

describe("chunks", () => {
    it("gives place, decode time and duration, with what stands before a chunk as part of it", () => {
        const first = join(emsg(ours, 0, "[]"), chunk(61_230, 10));
        const second = chunk(61_240, 4);
        expect(chunks(join(first, second))).toEqual([
            { start: 0, end: first.length, time: 61_230 * 960, samples: 9600 },
            { start: first.length, end: first.length + second.length, time: 61_240 * 960, samples: 3840 },
        ]);
    });
});
