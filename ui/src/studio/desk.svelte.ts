import { api, type Action, type Banned, type EventInfo, type StageState } from "../api";
import { say } from "../parts/say";
import { Speaking } from "../stage/seat.svelte";
import { watchStage } from "../stage/watch.dom";

/** The studio's state: the event, the stage as the server sees it, and this person's own seat. */
export class DeskState {
    readonly speaking: Speaking;
    info: EventInfo | null = $state.raw(null);
    stage: StageState | null = $state.raw(null);
    levels: Record<string, number> = $state.raw({});
    /** The stage stream is interrupted. */
    lost = $state(false);
    bans: Banned[] = $state.raw([]);
    problem = $state("");
    now = $state(Date.now());

    readonly me = $derived.by(() => this.stage?.people.find((person) => person.id === this.stage?.you));

    private stopWatching: (() => void) | null = null;

    constructor(
        readonly slug: string,
        /** What one may do as far as is known before the stage says it. */
        private readonly rights: Action[],
    ) {
        this.speaking = new Speaking(slug);
    }

    /** Whether one sees the stage without being on it. */
    get sees(): boolean {
        return this.rights.includes("see");
    }

    /** Whether one may do something: by the stage, where it is followed, because roles change hands. */
    may(action: Action): boolean {
        return (this.stage?.may ?? this.rights).includes(action);
    }

    run(): () => void {
        void this.refresh();
        if (this.rights.includes("ban")) void this.loadBans();
        const stop = this.speaking.run();
        const looks = setInterval(() => void this.refresh(), 10_000);
        const seconds = setInterval(() => (this.now = Date.now()), 1000);
        return () => {
            clearInterval(looks);
            clearInterval(seconds);
            this.unwatch();
            stop();
        };
    }

    async refresh(): Promise<void> {
        try {
            this.info = await api.event(this.slug);
            document.title = this.info.title;
        } catch (error) {
            if (!this.info) this.problem = say(error);
        }
    }

    /** Does something, and says in words when it was refused. */
    async act(what: () => Promise<unknown>): Promise<void> {
        this.problem = "";
        try {
            await what();
        } catch (error) {
            this.problem = say(error);
        }
    }

    /** Bans somebody from the event, or takes that back. */
    async ban(id: string, banned: boolean): Promise<void> {
        await this.act(() => (banned ? api.person(this.slug, id, "ban") : api.unban(this.slug, id)));
        await this.loadBans();
    }

    async loadBans(): Promise<void> {
        this.bans = await api.bans(this.slug).catch(() => this.bans);
    }

    async turn(to: "doors" | "live" | "end"): Promise<void> {
        await this.act(async () => (this.info = await api.turn(this.slug, to)));
        await this.refresh();
    }

    /** Follows the stage, as long as the server shows it: to whoever steers, and to those on it. */
    follow(on: boolean): void {
        if (!on) return this.unwatch();
        this.stopWatching ??= watchStage(this.slug, {
            state: (stage) => {
                const turned = this.stage !== null && stage.phase !== this.info?.phase;
                this.stage = stage;
                this.levels = Object.fromEntries([["", stage.programme], ...stage.people.map((p) => [p.id, p.level])]);
                this.lost = false;
                if (turned) void this.refresh();
            },
            levels: (levels) => (this.levels = levels),
            lost: (why) => {
                this.lost = true;
                if (why?.code === "conflict") void this.refresh();
            },
        });
    }

    private unwatch(): void {
        this.stopWatching?.();
        this.stopWatching = null;
        this.stage = null;
        this.lost = false;
    }
}
