/** A small record carried at a frame of the programme (PROTOCOL, "Cues"). */
export interface Cue {
    frame: number;
    about?: number;
    kind: string;
    data?: unknown;
}

/** Reads a JSON array of cues; what is not one is left out. */
export function parseCues(text: string): Cue[] {
    let value: unknown;
    try {
        value = JSON.parse(text);
    } catch {
        return [];
    }
    return Array.isArray(value) ? value.filter(isCue) : [];
}

/** Tells whether a value read from the network is a cue that can be placed. */
export function isCue(value: unknown): value is Cue {
    const cue = value as Cue | null;
    return (
        typeof cue === "object" &&
        cue !== null &&
        typeof cue.kind === "string" &&
        Number.isFinite(cue.frame) &&
        cue.frame >= 0
    );
}

/** The kinds whose cues hold until the next of their kind. */
export const stickyKinds = ["stage", "count", "hands"];

export function sticky(kind: string): boolean {
    return stickyKinds.includes(kind);
}
