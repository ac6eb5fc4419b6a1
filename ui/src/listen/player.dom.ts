import type { Cue } from "../cues/cue";
import { clock } from "../lib/clock";
import type { LiveEdge } from "./edge";
import { hlsPossible, hlsRung } from "./hls.dom";
import { Player, type Facts } from "./player";
import { Push } from "./push";
import { mediaSink, opusType, socketWire } from "./push.dom";
import type { MakeRung, RungName } from "./rung";
import { Whep } from "./whep";
import { explain, peerLink, whepSignalling } from "./whep.dom";

export interface PlayerParts {
    element: HTMLAudioElement;
    slug: string;
    /** Time of frame 0, in milliseconds of the epoch. */
    origin: () => number;
    edge: LiveEdge;
    /** Cues that came with the audio. */
    cues: (cues: Cue[]) => void;
    open: () => Promise<boolean>;
    changed: (facts: Facts) => void;
    /** The one rung to use, where the address asks for one (`?via=`). */
    via: RungName | null;
}

/** The player of this browser: what it can do, in the order in which it is tried. */
export function makePlayer({ element, slug, origin, edge, cues, open, changed, via }: PlayerParts): Player {
    const near = () => edge.now() ?? (Date.now() - origin()) / 20;
    const whep =
        (unheard: boolean): MakeRung =>
        (port) =>
            new Whep(port, peerLink(element, unheard), whepSignalling(slug), clock, near, explain);
    const push: MakeRung = (port) =>
        new Push(port, socketWire(slug), mediaSink(element), clock, cues, (frame) => edge.see(frame));
    const hls: MakeRung = (port) => hlsRung(element, slug, origin, clock, port);
    const all: { name: RungName; make: MakeRung; unheard?: MakeRung; can: boolean }[] = [
        { name: "whep", make: whep(false), unheard: whep(true), can: "RTCPeerConnection" in globalThis },
        { name: "push", make: push, can: opusType() !== undefined },
        { name: "hls", make: hls, can: hlsPossible(element) },
    ];
    const rungs = all.filter((rung) => rung.can && (via === null || rung.name === via));
    return new Player({ rungs, clock, open, online: () => navigator.onLine, changed });
}

/** Must run within a click: lets the element sound later without one, where a browser ties that to the element. */
export function unlock(element: HTMLAudioElement): void {
    const wav = new Uint8Array(44 + 160).fill(128); // 20 ms of silence: 8 kHz, mono, 8 bit
    const view = new DataView(wav.buffer);
    const text = (at: number, value: string) => [...value].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
    text(0, "RIFF");
    view.setUint32(4, 36 + 160, true);
    text(8, "WAVEfmt ");
    view.setUint32(16, 16, true);
    view.setUint16(20, 1, true);
    view.setUint16(22, 1, true);
    view.setUint32(24, 8000, true);
    view.setUint32(28, 8000, true);
    view.setUint16(32, 1, true);
    view.setUint16(34, 8, true);
    text(36, "data");
    view.setUint32(40, 160, true);
    const url = URL.createObjectURL(new Blob([wav], { type: "audio/wav" }));
    element.src = url;
    element.play().catch(() => undefined);
    setTimeout(() => URL.revokeObjectURL(url), 5000);
}
