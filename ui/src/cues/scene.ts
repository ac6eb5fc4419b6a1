import type { Cue } from "./cue";

export interface Voice {
    id: string;
    name: string;
    role: string;
    muted: boolean;
}

/** The raised hands, in their order: how many, and the first of them. */
export interface Hands {
    up: number;
    /** A name only where its owner shows it to all. */
    first: { id: string; name?: string; admitted?: boolean }[];
}

/** What the audience can see of the stage at the frame it hears. */
export interface Scene {
    phase: string;
    people: Voice[];
    /** dBFS by person; who is absent is silent. */
    levels: Record<string, number>;
    levelsFrame: number;
    count: { now: number; peak: number; tuned_in: number } | null;
    hands: Hands;
    notice: { code: string; text: string; back_in_s?: number } | null;
    noticeFrame: number;
}

/** The stage's cue, which comes at least every two seconds, takes no notice away that is younger than this many frames: eight seconds. */
const noticed = 400;

export const emptyScene: Scene = {
    phase: "",
    people: [],
    levels: {},
    levelsFrame: -1,
    count: null,
    hands: { up: 0, first: [] },
    notice: null,
    noticeFrame: -1,
};

/** The scene after a cue; the same object if the cue says nothing to it. */
export function apply(scene: Scene, cue: Cue): Scene {
    const data = cue.data as Record<string, unknown> | null | undefined;
    if (typeof data !== "object" || data === null) return scene;
    switch (cue.kind) {
        case "stage":
            return {
                ...scene,
                phase: typeof data.phase === "string" ? data.phase : scene.phase,
                people: Array.isArray(data.people) ? (data.people as Voice[]) : [],
                // Of the server's restart, the first word after it takes the notice away.
                notice:
                    scene.notice?.code.startsWith("host") && cue.frame - scene.noticeFrame < noticed
                        ? scene.notice
                        : null,
            };
        case "levels":
            return { ...scene, levels: data as Record<string, number>, levelsFrame: cue.frame };
        case "count":
            return { ...scene, count: data as unknown as Scene["count"] };
        case "notice":
            return { ...scene, notice: data as unknown as Scene["notice"], noticeFrame: cue.frame };
        case "hands":
            return {
                ...scene,
                hands: {
                    up: typeof data.up === "number" ? data.up : 0,
                    first: Array.isArray(data.first) ? (data.first as Hands["first"]) : [],
                },
            };
        default:
            return scene;
    }
}

/** Levels that no cue has renewed for half a second are over. */
export function fade(scene: Scene, frame: number): Scene {
    if (scene.levelsFrame < 0 || frame - scene.levelsFrame <= 25) return scene;
    return { ...scene, levels: {}, levelsFrame: -1 };
}
