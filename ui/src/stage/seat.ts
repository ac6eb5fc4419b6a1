import { Problem, type StageState } from "../api";
import { backoff, type Clock } from "../lib/clock";
import type { Link, Signalling } from "../listen/whep";

export type SeatState = "off" | "joining" | "on" | "back" | "displaced" | "removed" | "over" | "refused";

export interface SeatFacts {
    state: SeatState;
    /** What the server said when it refused. */
    detail: string;
}

export interface SeatOptions {
    /** A new connection that sends the microphone and plays the mix without it. */
    link: () => Link;
    signalling: Signalling;
    /** The stage as the server sees it at this moment. */
    stage: () => Promise<StageState>;
    clock: Clock;
    random?: () => number;
    changed: (facts: SeatFacts) => void;
}

const connectWithin = 10_000;
const healing = 3000;
const goodAfter = 10_000;

/**
 * A place on stage, kept through lost connections. When the connection breaks by itself it is made again; when the server
 * ended it, the server is asked why: because the same person came in elsewhere (then this place is given up, or two
 * windows would displace each other for ever), because a host removed them, or because the event is over.
 */
export class Seat {
    private state: SeatState = "off";
    private detail = "";
    private link: Link | null = null;
    private location = "";
    private failures = 0;
    private forget: () => void = () => undefined;
    private readonly random: () => number;

    constructor(private readonly options: SeatOptions) {
        this.random = options.random ?? Math.random;
    }

    facts(): SeatFacts {
        return { state: this.state, detail: this.detail };
    }

    join(): void {
        if (this.state === "joining" || this.state === "on" || this.state === "back") return;
        this.failures = 0;
        this.become("joining");
        this.begin();
    }

    leave(): void {
        this.drop();
        this.become("off");
    }

    /** The network is back: do not sit out a wait. */
    hurry(): void {
        if (this.state === "back" && !this.link) {
            this.forget();
            this.begin();
        }
    }

    private become(state: SeatState, detail = ""): void {
        this.state = state;
        this.detail = detail;
        this.options.changed(this.facts());
    }

    private drop(): void {
        this.forget();
        this.forget = () => undefined;
        const { link, location } = this;
        this.link = null;
        this.location = "";
        link?.close();
        if (location) this.options.signalling.end(location);
    }

    private begin(): void {
        this.drop();
        const link = this.options.link();
        this.link = link;
        link.onstate = (state) => link === this.link && this.turned(state);
        this.forget = this.options.clock.after(connectWithin, () => this.lost());
        this.connect(link).catch((error: unknown) => link === this.link && this.refused(error));
    }

    private async connect(link: Link): Promise<void> {
        const offer = await link.offer();
        if (link !== this.link) return;
        const { answer, location } = await this.options.signalling.post(offer);
        if (link !== this.link) return this.options.signalling.end(location);
        this.location = location;
        await link.answer(answer);
    }

    private turned(state: string): void {
        const { clock } = this.options;
        if (state === "connected") {
            this.forget();
            this.forget = clock.after(goodAfter, () => (this.failures = 0));
            if (this.state !== "on") this.become("on");
        } else if (state === "disconnected") {
            this.forget();
            this.forget = clock.after(healing, () => this.lost());
        } else if (state === "failed") {
            this.lost();
        } else if (state === "closed") {
            this.location = ""; // the server has ended it
            this.drop();
            this.become("back");
            void this.why();
        }
    }

    /**
     * The server closed the connection. Somebody who is then not on stage was removed, or the server is being restarted
     * and has emptied it: it is asked again for a while, and only if it stays there all the time was it a removal.
     */
    private async why(looks = 6): Promise<void> {
        let stage: StageState;
        try {
            stage = await this.options.stage();
        } catch (error) {
            if (this.state !== "back") return;
            const code = error instanceof Problem ? error.code : "";
            if (code === "conflict" || code === "not_found") this.become("over");
            else if (code === "forbidden" || code === "unauthorized") this.gone(looks);
            else this.lost();
            return;
        }
        if (this.state !== "back") return;
        const me = stage.people.find((person) => person.id === stage.you);
        if (stage.phase === "ended" || stage.phase === "cancelled") this.become("over");
        else if (!me) this.gone(looks);
        else if (me.connected) this.become("displaced");
        else this.lost();
    }

    private gone(looks: number): void {
        if (looks === 0) this.become("removed");
        else this.forget = this.options.clock.after(500, () => void this.why(looks - 1));
    }

    private refused(error: unknown): void {
        if (error instanceof Problem && error.status >= 400 && error.status < 500 && error.code !== "busy") {
            this.drop();
            this.become("refused", error.detail);
        } else if (error instanceof Problem) {
            this.lost(error.retryAfter);
        } else {
            this.drop();
            this.become("refused");
        }
    }

    private lost(retryAfter = 0): void {
        this.drop();
        if (this.state !== "back") this.become("back");
        const ms = Math.max(retryAfter * 1000, backoff(this.failures++, this.random, 500, 8000));
        this.forget = this.options.clock.after(ms, () => this.begin());
    }
}
