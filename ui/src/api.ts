/** The HTTP interface of the server (PROTOCOL), typed. Every refusal is thrown as a Problem. */

export type Phase = "scheduled" | "doors" | "live" | "ended" | "cancelled";

export interface EventInfo {
    id: string;
    slug: string;
    title: string;
    description: string;
    start: string;
    zone: string;
    listed: boolean;
    recorded: boolean;
    auto_live: boolean;
    idle_end_s: number;
    phase: Phase;
    doors_at: string;
    origin?: string;
    live_at?: string;
    ended_at?: string;
    created: string;
    revision: number;
    replay?: { duration_s: number; segments: number };
}

export type EventFields = Pick<
    EventInfo,
    "slug" | "title" | "description" | "start" | "zone" | "listed" | "recorded" | "auto_live" | "idle_end_s"
>;

export type Role = "host" | "cohost" | "speaker" | "interpreter" | "producer" | "moderator" | "listener";

/** What not everybody may do. The server says who may; pages only ask. */
export type Action =
    | "operate"
    | "steer"
    | "change"
    | "invite"
    | "hand_over"
    | "admit"
    | "mute"
    | "remove"
    | "ban"
    | "see"
    | "speak"
    | "monitor"
    | "raise_hand";

export interface Grant {
    event: string;
    person: string;
    name: string;
    role: Role;
    may: Action[];
}

export interface Session {
    operator: boolean;
    grants: Grant[];
}

export interface Invite {
    id: string;
    role: Role;
    label: string;
    created: string;
    expires?: string;
    /** How many may open it; any number where it is absent, and then they are not counted. */
    uses?: number;
    used?: number;
    revoked?: boolean | string;
    secret?: string;
    link?: string;
}

export interface StagePerson {
    id: string;
    name: string;
    role: string;
    muted: "" | "self" | "host";
    connected: boolean;
    level: number;
    speaking: boolean;
    loss: number;
    jitter_ms: number;
}

export interface Hand {
    id: string;
    /** Empty where it is not for everybody. */
    name: string;
    named: boolean;
    since: string;
    admitted: boolean;
}

export interface Banned {
    person: string;
    name: string;
    role: Role;
    at: string;
}

export interface StageState {
    phase: Phase;
    live_at?: string;
    you?: string;
    may: Action[];
    people: StagePerson[];
    hands: Hand[];
    /** Since when the host is missed. */
    host_lost?: string;
    listening: number;
    programme: number;
}

/** An error as the server puts it (RFC 9457). `detail` is meant for people. status 0: no answer came at all. */
export class Problem extends Error {
    constructor(
        readonly status: number,
        readonly code: string,
        readonly detail: string,
        readonly field = "",
        /** Seconds, 0 if the server did not say. */
        readonly retryAfter = 0,
    ) {
        super(detail);
        this.name = "Problem";
    }
}

export type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

/** Reads a refusal; a body that is no problem JSON (a proxy's page) still becomes a Problem. */
export async function problemOf(response: Response): Promise<Problem> {
    const retryAfter = Number.parseInt(response.headers.get("Retry-After") ?? "", 10) || 0;
    let body: Record<string, unknown> = {};
    if (/json/.test(response.headers.get("Content-Type") ?? "")) {
        body = ((await response.json().catch(() => null)) ?? {}) as Record<string, unknown>;
    }
    const text = (value: unknown, otherwise: string) => (typeof value === "string" && value !== "" ? value : otherwise);
    return new Problem(
        response.status,
        text(body.code, "internal"),
        text(body.detail, text(body.title, `The server answered ${response.status}.`)),
        text(body.field, ""),
        retryAfter,
    );
}

export class Api {
    constructor(private readonly fetch: Fetch = (input, init) => globalThis.fetch(input, init)) {}

    /** Sends a request and gives the response, if it was a success. */
    async send(method: string, path: string, init: RequestInit = {}): Promise<Response> {
        let response: Response;
        try {
            response = await this.fetch(path, { method, ...init });
        } catch (error) {
            if (error instanceof DOMException && error.name === "AbortError") throw error;
            throw new Problem(0, "network", "");
        }
        if (!response.ok) throw await problemOf(response);
        return response;
    }

    private async json<T>(method: string, path: string, body?: unknown): Promise<T> {
        const init: RequestInit = { headers: { Accept: "application/json" } };
        if (body !== undefined) {
            init.headers = { Accept: "application/json", "Content-Type": "application/json" };
            init.body = JSON.stringify(body);
        }
        const response = await this.send(method, "/api/v1/" + path, init);
        return (response.status === 204 ? undefined : await response.json()) as T;
    }

    session = () => this.json<Session>("GET", "session").then(wholeSession);
    exchange = (secret: string, name: string) =>
        this.json<Session>("POST", "session", { secret, name }).then(wholeSession);
    forget = () => this.json<unknown>("DELETE", "session");

    events = () => this.json<{ events: EventInfo[] | null }>("GET", "events").then((r) => r.events ?? []);
    event = (slug: string) => this.json<EventInfo>("GET", at(slug));
    create = (fields: Partial<EventFields>) => this.json<EventInfo>("POST", "events", fields);
    change = (slug: string, fields: Partial<EventFields>) => this.json<EventInfo>("PATCH", at(slug), fields);
    turn = (slug: string, to: "doors" | "live" | "end" | "cancel") => this.json<EventInfo>("POST", at(slug, to));

    invites = (slug: string) =>
        this.json<{ invites: Invite[] | null }>("GET", at(slug, "invites")).then((r) => r.invites ?? []);
    invite = (slug: string, role: Role, label: string, uses?: number) =>
        this.json<Invite>("POST", at(slug, "invites"), { role, label, uses });
    revoke = (slug: string, id: string) => this.json<unknown>("DELETE", at(slug, "invites", id));

    stage = (slug: string) => this.json<StageState>("GET", at(slug, "stage")).then(wholeStage);
    raiseHand = (slug: string, name: string, named: boolean) =>
        this.json<unknown>("POST", at(slug, "hand"), { name, named });
    lowerHand = (slug: string) => this.json<unknown>("DELETE", at(slug, "hand"));
    person = (slug: string, id: string, act: "admit" | "lower" | "mute" | "unmute" | "remove" | "ban" | "host") =>
        this.json<unknown>("POST", at(slug, "people", id, act));
    bans = (slug: string) => this.json<{ bans: Banned[] | null }>("GET", at(slug, "bans")).then((r) => r.bans ?? []);
    unban = (slug: string, id: string) => this.json<unknown>("DELETE", at(slug, "bans", id));
}

function at(slug: string, ...rest: string[]): string {
    return ["events", slug, ...rest].map(encodeURIComponent).join("/");
}

/** A list that is empty may come as null. */
function wholeSession(session: Session): Session {
    return { ...session, grants: (session.grants ?? []).map((grant) => ({ ...grant, may: grant.may ?? [] })) };
}

export function wholeStage(state: StageState): StageState {
    return { ...state, may: state.may ?? [], people: state.people ?? [], hands: state.hands ?? [] };
}

export const api = new Api();

/** The slug of the event whose page this is. */
export function slugOf(path: string): string {
    return decodeURIComponent(/^\/e\/([^/]+)/.exec(path)?.[1] ?? "");
}
