import { boxes, viewOf, type Box } from "./boxes";
import { parseCues, type Cue } from "./cue";

const scheme = "urn:earshot:cues";

/** The cues of a segment: what its emsg boxes (version 1, DASH-IF event message) of our scheme say, in order. */
export function emsgCues(bytes: Uint8Array): Cue[] {
    const view = viewOf(bytes);
    const cues: Cue[] = [];
    for (const box of boxes(view)) {
        if (box.type === "emsg") cues.push(...parseCues(message(bytes, view, box) ?? "[]"));
    }
    return cues;
}

function message(bytes: Uint8Array, view: DataView, box: Box): string | undefined {
    // version and flags 4, timescale 4, presentation time 8, duration 4, id 4, then two strings that end in a zero
    if (box.end - box.body < 24 || view.getUint8(box.body) !== 1) return undefined;
    const id = text(bytes, box.body + 24, box.end);
    if (id?.text !== scheme) return undefined;
    const value = text(bytes, id.next, box.end);
    return value && new TextDecoder().decode(bytes.subarray(value.next, box.end));
}

function text(bytes: Uint8Array, from: number, to: number): { text: string; next: number } | undefined {
    const zero = bytes.indexOf(0, from);
    if (zero < 0 || zero >= to) return undefined;
    return { text: new TextDecoder().decode(bytes.subarray(from, zero)), next: zero + 1 };
}
