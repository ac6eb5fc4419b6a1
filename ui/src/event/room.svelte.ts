import { api, Problem, slugOf, type EventInfo } from "../api";
import { CueBuffer } from "../cues/buffer";
import { isCue, type Cue } from "../cues/cue";
import { apply, emptyScene, fade, type Scene } from "../cues/scene";
import { clock } from "../lib/clock";
import { Stream } from "../lib/stream";
import { LiveEdge } from "../listen/edge";
import { changeOf } from "../listen/pace";
import type { Facts, Player } from "../listen/player";
import { makePlayer, unlock } from "../listen/player.dom";
import type { RungName } from "../listen/rung";
import { say } from "../parts/say";

const idle: Facts = { state: "idle", rung: null, trouble: null, retryIn: 0 };

/**
 * One visitor's event: what the server says of it, the player, and the scene at the frame that is heard (at the head of
 * the programme, while nothing is heard). Components read its fields and call its methods; it alone talks to the server.
 */
export class Room {
    readonly slug = slugOf(location.pathname);
    readonly element = new Audio();

    info: EventInfo | null = $state.raw(null);
    missing = $state(false);
    problem = $state("");
    facts: Facts = $state.raw(idle);
    scene: Scene = $state.raw(emptyScene);
    /** Milliseconds behind the head, smoothed; null while nothing is heard. */
    behind: number | null = $state(null);
    /** The visitor's clock, each second. */
    now = $state(Date.now());
    volume = $state(1);
    /** Set while somebody speaks from this page: the mix without them is what they hear. */
    onStage = $state(false);

    /** The phase at the moment that is heard. */
    readonly phase = $derived.by(() => {
        const known = this.info?.phase;
        if (known !== "doors" && known !== "live") return known;
        return this.scene.phase === "live" || this.scene.phase === "doors" ? this.scene.phase : known;
    });

    private readonly edge = new LiveEdge(clock);
    private cues = new CueBuffer();
    private readonly feed: Stream;
    private readonly player: Player;
    private forgetRefresh: () => void = () => undefined;

    constructor() {
        const take = (data: unknown) => isCue(data) && this.take([data], true);
        const connect = () => new EventSource(`/e/${this.slug}/cues`);
        const cadence = (data: unknown) => {
            const change = isCue(data) ? changeOf(data) : null; // for the player at once, not for the scene
            if (change) this.player.announce(change);
        };
        this.feed = new Stream(
            connect,
            { stage: take, levels: take, count: take, hands: take, notice: take, cadence },
            clock,
        );
        this.player = makePlayer({
            element: this.element,
            slug: this.slug,
            origin: () => Date.parse(this.info?.origin ?? ""),
            edge: this.edge,
            cues: (cues) => this.take(cues, false),
            open: async () => {
                const info = await this.refresh();
                if (!info) throw new Error("no answer");
                return info.phase !== "ended" && info.phase !== "cancelled";
            },
            changed: (facts) => this.changed(facts),
            via: viaOf(location.search),
        });
        expose(this, this.player);
    }

    /** Runs until the returned function is called. */
    run(): () => void {
        void this.refresh();
        const seconds = setInterval(() => (this.now = Date.now()), 1000);
        const ticks = setInterval(() => this.tick(), 100);
        const online = () => this.player.hurry();
        const leave = () => this.player.pause(); // tell the server at once
        const shown = () => document.hidden || this.phase === "doors" || this.phase === "live" || void this.refresh();
        addEventListener("online", online);
        document.addEventListener("visibilitychange", shown);
        addEventListener("pagehide", leave);
        return () => {
            clearInterval(seconds);
            clearInterval(ticks);
            removeEventListener("online", online);
            document.removeEventListener("visibilitychange", shown);
            removeEventListener("pagehide", leave);
            this.forgetRefresh();
            this.feed.close();
            this.player.pause();
        };
    }

    /** To be called within a click. */
    listen(): void {
        unlock(this.element);
        this.player.listen();
    }

    pause(): void {
        this.player.pause();
    }

    setVolume(volume: number): void {
        this.volume = volume;
        this.element.volume = volume;
    }

    /** Fetches the event, and decides when to do so again. Gives null if there was no answer. */
    async refresh(): Promise<EventInfo | null> {
        this.forgetRefresh();
        let answered = false;
        try {
            this.info = await api.event(this.slug);
            this.problem = "";
            answered = true;
            const trip = tripOf(`/api/v1/events/${this.slug}`);
            if (trip > 0) this.edge.roundTrip(trip);
            const { phase } = this.info;
            if (phase === "doors" || phase === "live") {
                if (this.facts.state !== "playing" || this.facts.rung !== "push") this.feed.open();
            } else {
                this.feed.close();
            }
            if (phase === "ended" || phase === "cancelled") this.player.end();
        } catch (error) {
            this.missing = error instanceof Problem && error.status === 404;
            if (!this.info) this.problem = say(error);
            if (this.missing) return null;
        }
        const ms = nextLook(this.info, Date.now());
        if (ms !== null) this.forgetRefresh = clock.after(ms * (1 + Math.random() / 5), () => void this.refresh());
        return answered ? this.info : null;
    }

    private changed(facts: Facts): void {
        this.facts = facts;
        if (facts.state !== "playing") this.behind = null;
        // With push the cues come with the audio; else by the stream.
        if (facts.state === "playing" && facts.rung === "push") this.feed.close();
        else if (this.info?.phase === "doors" || this.info?.phase === "live") this.feed.open();
        if (facts.state === "ended" && this.info?.phase !== "ended") void this.refresh();
    }

    private take(cues: Cue[], asTheyClose: boolean): void {
        if (asTheyClose) for (const cue of cues) this.edge.seeCue(cue.frame);
        this.cues.add(cues);
    }

    private tick(): void {
        const heard = this.player.frameHeard();
        const frame = heard ?? this.edge.now();
        if (frame === null) return;
        if (heard !== null) {
            this.edge.see(heard);
            const behind = this.edge.behind(heard);
            if (behind !== null) this.behind = this.behind === null ? behind : this.behind * 0.9 + behind * 0.1;
        }
        let scene = this.scene;
        for (const cue of this.cues.advance(frame)) scene = apply(scene, cue);
        scene = fade(scene, frame);
        if (scene === this.scene) return;
        const turned = scene.phase !== this.scene.phase;
        this.scene = scene;
        if (turned && scene.phase !== this.info?.phase) void this.refresh();
    }
}

/** How long the last request for a path was on its way and at the server, in milliseconds; 0 if that is not known. */
function tripOf(path: string): number {
    const entries = performance.getEntriesByName(location.origin + path, "resource") as PerformanceResourceTiming[];
    const last = entries[entries.length - 1];
    return last ? last.responseStart - last.requestStart : 0;
}

/** In how many milliseconds to look at the event again, null for never. */
function nextLook(info: EventInfo | null, now: number): number | null {
    switch (info?.phase) {
        case undefined:
            return 5000;
        case "scheduled": {
            const left = Date.parse(info.doors_at) - now;
            // A host may open the doors early, but hardly a day before.
            return left > 0 ? Math.min(left + 1000, left > 3_600_000 ? 60_000 : 20_000) : 5000;
        }
        case "doors":
        case "live":
            return 60_000; // cues tell sooner
        case "ended":
            return info.recorded && !info.replay && now - Date.parse(info.ended_at ?? "") < 600_000 ? 3000 : null;
        default:
            return null;
    }
}

function viaOf(search: string): RungName | null {
    const via = new URLSearchParams(search).get("via");
    return via === "whep" || via === "push" || via === "hls" ? via : null;
}

/**
 * `window.earshot.player`: what a test or a supporter may read in the console, and nothing that changes anything.
 * `element` is the audio element that sounds (its srcObject or captureStream() can be analysed).
 */
function expose(room: Room, player: Player): void {
    const handle = {
        get state() {
            return room.facts.state;
        },
        get rung() {
            return room.facts.rung;
        },
        get trouble() {
            return room.facts.trouble;
        },
        get frameHeard() {
            return player.frameHeard();
        },
        get behindMs() {
            return room.behind;
        },
        get scene() {
            return $state.snapshot(room.scene);
        },
        element: room.element,
    };
    Object.assign(window, { earshot: { player: handle } });
}
