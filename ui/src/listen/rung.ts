import type { Change } from "./pace";

/** The ways to listen, fastest first. */
export type RungName = "whep" | "push" | "hls";

/** Why there is no sound; the catalogue has a sentence for each. */
export type Trouble =
    "no_sound" | "connection" | "refused" | "full" | "restart" | "closed" | "offline" | "blocked" | "unsupported";

export interface Failure {
    why: Trouble;
    /** When the server asked to be asked again, in seconds. */
    backIn?: number;
}

/** What a rung tells the player. After stop() it tells nothing. */
export interface Port {
    /** The first sound was played. */
    sound(): void;
    failed(failure: Failure): void;
    /** The programme is over and all of it was played. */
    ended(): void;
}

/** One way to listen, used once: started, then stopped. */
export interface Rung {
    start(): void;
    stop(): void;
    /** The frame that is heard at this moment, with a fraction; null before the first. */
    frame(): number | null;
    /** The server announced other packets or another cadence, by another way than this rung's own. */
    announce?(change: Change): void;
    /** What was made to be tried unheard is to be heard from now on. */
    take?(): void;
}

export type MakeRung = (port: Port) => Rung;
