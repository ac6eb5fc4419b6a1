import { backoff, type Clock } from "./clock";

/** As much of an EventSource as a stream uses. */
export interface Source {
    readonly readyState: number;
    addEventListener(kind: string, fn: (event: { data?: unknown }) => void): void;
    close(): void;
}

const closed = 2; // EventSource.CLOSED

/**
 * An event stream that comes back. A browser reconnects by itself after a lost connection but gives up on an error
 * status; then this does, later and later. Data that is no JSON is left out.
 */
export class Stream {
    private source: Source | null = null;
    private failures = 0;
    private forget: () => void = () => undefined;

    constructor(
        private readonly connect: () => Source,
        /** What to do with the data of each kind of event. */
        private readonly kinds: Record<string, (data: unknown) => void>,
        private readonly clock: Clock,
        /** Told of each interruption, and whether the server refused. */
        private readonly lost: (refused: boolean) => void = () => undefined,
        private readonly random: () => number = Math.random,
    ) {}

    open(): void {
        if (this.source) return;
        this.forget();
        const source = this.connect();
        this.source = source;
        for (const [kind, take] of Object.entries(this.kinds)) {
            source.addEventListener(kind, ({ data }) => {
                if (source !== this.source) return;
                this.failures = 0;
                let value: unknown;
                try {
                    value = JSON.parse(String(data));
                } catch {
                    return;
                }
                take(value);
            });
        }
        source.addEventListener("error", () => {
            if (source !== this.source) return;
            const refused = source.readyState === closed;
            if (refused) {
                this.source = null;
                this.forget = this.clock.after(backoff(this.failures++, this.random, 1000), () => this.open());
            }
            this.lost(refused);
        });
    }

    close(): void {
        this.forget();
        this.source?.close();
        this.source = null;
    }
}
