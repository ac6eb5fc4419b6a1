import type { Cue } from "./cue";

export interface Voice {
    id: string;
    name: string;
    role: string;
    muted: boolean;
}

/** What the audience can see of the stage at the frame it hears. */
export interface Scene {
    phase: string;
    people: Voice[];
    /** dBFS by person; who is absent is silent. */
    levels: Record<string, number>;
    levelsFrame: number;
    count: { now: number; peak: number; tuned_in: number } | null;
    notice: { code: string; text: string; back_in_s?: number } | null;
}

export const emptyScene: Scene = { phase: "", people: [], levels: {}, levelsFrame: -1, count: null, notice: null };

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
                notice: null,
            };
        case "levels":
            return { ...scene, levels: data as Record<string, number>, levelsFrame: cue.frame };
        case "count":
            return { ...scene, count: data as unknown as Scene["count"] };
        case "notice":
            return { ...scene, notice: data as unknown as Scene["notice"] };
        default:
            return scene;
    }
}

/** Levels that no cue has renewed for half a second are over. */
export function fade(scene: Scene, frame: number): Scene {
    if (scene.levelsFrame < 0 || frame - scene.levelsFrame <= 25) return scene;
    return { ...scene, levels: {}, levelsFrame: -1 };
}
