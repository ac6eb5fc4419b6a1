import { api, Problem, wholeStage, type StageState } from "../api";
import { clock } from "../lib/clock";
import { Stream } from "../lib/stream";

export interface Watching {
    state: (state: StageState) => void;
    /** dBFS by person, "" for the programme. */
    levels: (levels: Record<string, number>) => void;
    /** The stream broke off: the reason, if the server gave one. */
    lost: (problem: Problem | null) => void;
}

/** Follows the stage of an event until the returned function is called. */
export function watchStage(slug: string, { state, levels, lost }: Watching): () => void {
    let stopped = false;
    const stream = new Stream(
        () => new EventSource(`/api/v1/events/${slug}/stage/watch`),
        {
            stage: (data) => state(wholeStage(data as StageState)),
            levels: (data) => levels(data as Record<string, number>),
        },
        clock,
        (refused) => {
            if (!refused) return lost(null);
            // An event stream does not say why it was refused; the plain request does.
            api.stage(slug).then(
                () => !stopped && lost(null),
                (error: unknown) => !stopped && lost(error instanceof Problem ? error : null),
            );
        },
    );
    stream.open();
    return () => {
        stopped = true;
        stream.close();
    };
}
