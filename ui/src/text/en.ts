/** All text of all pages. A translation is another file of this shape. */
import type { Trouble, RungName } from "../listen/rung";

/** Times and numbers are written as the visitor's own English has it. */
export const locale = globalThis.navigator?.languages?.find((l) => l.startsWith("en")) ?? "en-GB";

const plural = (n: number, one: string, many: string) => `${number(n)} ${n === 1 ? one : many}`;

export function number(n: number): string {
    return new Intl.NumberFormat(locale).format(n);
}

/** "Sat 28 November, 19:00" and the zone's short name, in the visitor's own zone or another. */
export function when(iso: string, zone?: string): string {
    const date = new Date(iso);
    const far = Math.abs(date.getTime() - Date.now()) > 300 * 86_400_000;
    return new Intl.DateTimeFormat(locale, {
        weekday: "short",
        day: "numeric",
        month: "long",
        year: far ? "numeric" : undefined,
        hour: "numeric",
        minute: "2-digit",
        timeZoneName: "short",
        timeZone: zone,
    }).format(date);
}

/** "1 hour 12 minutes": the two largest units of a span. */
export function span(seconds: number): string {
    const s = Math.max(0, Math.round(seconds));
    const units: [number, string, string][] = [
        [86_400, "day", "days"],
        [3600, "hour", "hours"],
        [60, "minute", "minutes"],
        [1, "second", "seconds"],
    ];
    const first = units.findIndex(([size]) => s >= size);
    if (first < 0) return plural(0, "second", "seconds");
    const [size, one, many] = units[first] as [number, string, string];
    const text = plural(Math.floor(s / size), one, many);
    const next = units[first + 1];
    const rest = next ? Math.floor((s % size) / next[0]) : 0;
    return next && rest > 0 ? `${text} ${plural(rest, next[1], next[2])}` : text;
}

export const common = {
    name: "Earshot",
    home: "Earshot, to the start page",
    skip: "Skip to the content",
    loading: "One moment…",
    close: "Close",
    cancel: "Cancel",
    copy: "Copy",
    copied: "Copied",
    copyFailed: "Select the link and copy it yourself.",
    again: "Try again",
    network: "The server can't be reached. Check your connection, then try again.",
    api: "API",
    operator: "Operator",
    roles: {
        host: "host",
        cohost: "co-host",
        speaker: "speaker",
        interpreter: "interpreter",
        producer: "producer",
        moderator: "moderator",
        listener: "from the audience",
    } as Record<string, string>,
    phases: { scheduled: "Planned", doors: "Doors open", live: "Live", ended: "Ended", cancelled: "Cancelled" },
};

export const home = {
    claim: "Conversations you can listen in on.",
    live: "Live now",
    doors: "Doors are open",
    soon: "Coming up",
    past: "Past",
    replay: (seconds: number) => `Replay, ${span(seconds)}`,
    noReplay: "Not recorded",
    unlisted: "Unlisted: only you see it here",
    emptyTitle: "Nothing is planned yet.",
    emptyText:
        "When an event is announced, it appears here, and a click is all it takes to listen. To plan one yourself, go to the",
    emptyLink: "operator's page",
};

const rungs: Record<RungName, string> = {
    whep: "WebRTC, the fastest way",
    push: "a steady stream of short parts",
    hls: "HLS, in longer parts",
};

const troubles: Record<Trouble, string> = {
    no_sound: "No sound is arriving.",
    connection: "The connection was lost.",
    refused: "The server did not accept this way of listening.",
    full: "The house is full at the moment.",
    restart: "The server is restarting.",
    closed: "The programme is not open right now.",
    offline: "You are offline.",
    blocked: "Your browser wants a click before it plays sound.",
    unsupported: "This browser can't play the programme.",
};

export const listen = {
    listen: "Listen",
    pause: "Pause",
    stop: "Stop waiting",
    connecting: "Connecting…",
    volume: "Volume",
    ready: "You're in. The sound starts by itself; you can leave this page open.",
    invite: "Press Listen, and you will hear it.",
    inviteDoors: "Press Listen now, and the start needs no further click.",
    way: (rung: RungName) => `You listen by ${rungs[rung]}.`,
    behind(ms: number): string {
        if (ms < 450) return "Less than half a second behind the stage.";
        if (ms < 800) return "About half a second behind the stage.";
        if (ms < 1500) return "About a second behind the stage.";
        if (ms < 60_000) return `About ${Math.round(ms / 1000)} seconds behind the stage.`;
        return `About ${span(Math.round(ms / 60_000) * 60)} behind the stage.`;
    },
    trouble(why: Trouble, retryIn: number | null): string {
        if (why === "blocked") return troubles.blocked + " Press Listen once more.";
        if (why === "unsupported") return troubles.unsupported + " Try a current Chrome, Edge, Firefox or Safari.";
        if (why === "offline") return troubles.offline + " It goes on as soon as you are back.";
        if (retryIn === null) return troubles[why] + " Trying another way…";
        const seconds = Math.round(retryIn / 1000);
        return troubles[why] + (seconds > 1 ? ` Trying again in ${seconds} seconds.` : " Trying again…");
    },
    volumeValue: (v: number) => `${Math.round(v * 100)} %`,
};

export const event = {
    starts: "Starts",
    startsIn: (s: number) => `Starts in ${span(s)}.`,
    soon: "It is about to start.",
    late: (s: number) => (s < 600 ? "It will start any moment." : "The start is delayed."),
    doorsAt: (at: string) => `Doors open ${at}.`,
    doorsOpen: "Doors are open.",
    zone: (text: string) => `${text} where it is announced`,
    onAir: "Live",
    since: (s: number) => `live for ${span(s)}`,
    onStage: "On stage",
    nobody: "Nobody is on stage yet.",
    quiet: "The stage is empty at the moment.",
    muted: "muted",
    speaking: "speaking",
    listening: (n: number) => plural(n, "listening now", "listening now"),
    hands: (n: number) => plural(n, "hand is up", "hands are up"),
    definition: "Connections that took audio in the last ten seconds.",
    peak: (n: number) => `${number(n)} at the peak`,
    about: "About",
    missing: "There is no event at this address.",
    missingHint: "Perhaps the link was cut short. Look on the start page.",
    cancelled: "This event was cancelled.",
    cancelledWas: (at: string) => `It was planned for ${at}.`,
    ended: "This event has ended.",
    endedAt: (at: string) => `It ended ${at}.`,
    noReplay: "It was not recorded.",
    replayMaking: "The replay is being prepared…",
    recorded: "This event is recorded.",
    backIn: (s: number) => `Back in about ${span(s)}.`,
};

export const replay = {
    title: "Replay",
    play: "Play",
    pause: "Pause",
    seek: "Position",
    at: (at: string, of: string) => `${at} of ${of}`,
    speed: "Speed",
    times: (x: number) => `${number(x)}×`,
    back: "Back 15 seconds",
    forward: "Forward 30 seconds",
    download: "Download the recording (Opus)",
    failed: "The replay can't be played here. You can download it instead.",
};

export const hand = {
    raise: "Raise your hand",
    title: "Ask for the floor",
    text: "The hosts see your name. If they admit you, you can speak to everyone.",
    name: "Your name",
    named: "Show my name to everyone who listens, too",
    send: "Raise my hand",
    raised: (place: number, of: number) =>
        place < 1
            ? "Your hand is up. The hosts can see it."
            : place === 1
              ? "Your hand is up, and yours is the next."
              : `Your hand is up, number ${number(place)} of ${number(of)}.`,
    lower: "Take it back",
    lowered: "Your hand was taken down.",
    admitted: "You may speak now.",
    open: "Open my microphone",
    opening: "Opening your microphone…",
    onAir: "You are on stage. Everyone hears you.",
    onAirMuted: "You are on stage, muted.",
    leave: "Leave the stage",
    back: "Back to listening",
};

export const mic = {
    choose: "Microphone",
    standard: "The system's choice",
    try: "Try my microphone",
    trying: "Say something: the bar should move.",
    silent: "Nothing is heard from this microphone. Is it switched on, or is another one meant?",
    level: "Your level",
    NotAllowedError: "The browser may not use your microphone. Allow it in the address bar, then try again.",
    NotFoundError: "No microphone was found. Plug one in, then try again.",
    NotReadableError: "Another program keeps the microphone to itself. Close that, then try again.",
    insecure: "A browser gives a microphone only to a page with https.",
    other: "The microphone could not be opened. Try another one.",
    mute: "Mute me",
    unmute: "Unmute me",
    byHost: "A host muted you. Only a host can undo it.",
};

export const seat = {
    joining: "Joining…",
    on: "You are on stage.",
    back: "The connection was lost. Coming back by itself…",
    displaced: "You came in from another window or device, so this one has stepped back.",
    here: "Speak from here instead",
    removed: "A host took you off the stage.",
    over: "The event is over. Thank you.",
    refused: "The stage did not let you in.",
    off: "",
};

export const studio = {
    title: "Studio",
    noLink: "This is the studio of the people on stage.",
    noLinkHint: "To come in, open the personal link that the host or operator sent you.",
    asListener: "To the event's page",
    welcome: (role: string) => `You are invited as ${role}.`,
    invited: "You are invited to the stage.",
    name: "Your name, as the audience will see it",
    enter: "Come in",
    join: "Join the stage",
    leave: "Leave the stage",
    joinHint: "Use headphones if you can. You will hear everyone but yourself.",
    closedStage: "The doors are still closed. You can join once they are open.",
    notLive: "Doors are open: those on stage hear each other, the audience hears silence.",
    hands: "Raised hands",
    noHands: "No hand is up.",
    admit: "Admit",
    admitted: "admitted",
    lower: "Decline",
    mute: "Mute",
    unmute: "Unmute",
    remove: "Remove",
    ban: "Ban",
    banSure: (name: string) => `Ban ${name}? They are removed and can't come back to this event.`,
    banned: "Banned from this event",
    unban: "Take back",
    makeHost: "Make host",
    makeHostSure: (name: string) => `Make ${name} the host? A host who does this is co-host then.`,
    hostLost: "The host's connection is lost. If it stays so for a minute, a co-host follows.",
    neverHeard: "You run this event from here. Your role is never heard.",
    removeSure: (name: string) => `Remove ${name} from the stage?`,
    mutedSelf: "muted",
    mutedHost: "muted by a host",
    lost: "connection lost",
    poor: "poor connection",
    you: "you",
    listening: (n: number) => plural(n, "person is listening", "people are listening"),
    programme: "Programme level",
    steer: "The event",
    doors: "Open the doors",
    live: "Go live",
    liveNow: "Go live now",
    counting: (n: number) => `Live in ${n}…`,
    end: "End the event",
    endSure: "End the event for everyone? This can't be undone.",
    endYes: "End it",
    endNo: "Go on",
    copyLink: "Listeners' link",
    watchLost: "The stage's state is not arriving. Trying again…",
    over: "The event is over.",
    steersOnly: "As the operator you can steer from here. To speak, make a host's link for yourself and open it.",
};

export const invites = {
    title: "Invitations",
    text: "A link is personal: whoever has it can take the role. A number of uses says how many browsers may open it.",
    role: "Role",
    label: "For whom",
    labelHint: "A note for yourself",
    create: "Create a link",
    roles: {
        speaker: "Speaker",
        host: "Host",
        cohost: "Co-host",
        moderator: "Moderator",
        producer: "Producer",
        interpreter: "Interpreter",
        listener: "Listener",
    },
    uses: "Number of uses",
    usesHint: "empty: any number",
    used: (n: number, of: number) => `used ${number(n)} of ${number(of)}`,
    once: "Copy this link now: it is shown only once.",
    linkFor: (who: string) => `Invitation link for ${who}`,
    link: "Invitation link",
    none: "No links yet.",
    revoke: "Revoke",
    revokeSure: "Revoke this link? Who is on stage through it is removed.",
    revoked: "revoked",
    expired: "expired",
    created: (at: string) => `made ${at}`,
};

export const operator = {
    title: "Operator",
    noLink: "This is the operator's page.",
    noLinkHint: "Open the operator link that the server printed when it started.",
    leave: "Forget me on this device",
    create: "Plan an event",
    edit: "Edit",
    events: "Events",
    none: "No events yet. Plan the first one.",
    page: "Event page",
    studio: "Studio",
    invites: "Links",
    cancelEvent: "Cancel the event",
    cancelSure: (title: string) => `Cancel “${title}”? Its address stays taken, and this can't be undone.`,
    cancelYes: "Cancel it",
    cancelNo: "Keep it",
    unlisted: "unlisted",
    notRecorded: "not recorded",
    form: {
        titleNew: "Plan an event",
        titleEdit: "Edit the event",
        title: "Title",
        slug: "Address",
        slugHint:
            "Small letters, digits and hyphens. Leave it empty to make one from the title. It can never be used again.",
        description: "Description",
        start: "Start",
        zone: "Time zone",
        listed: "Listed on the start page",
        recorded: "Recorded, with a replay afterwards",
        auto: "Goes live by itself at its minute",
        idle: "Ends by itself when nobody was on stage for",
        minutes: "minutes",
        save: "Save",
        add: "Plan it",
        badStart: "Give a date and a time.",
        past: "That is in the past: the doors open at once.",
    },
    saved: "Saved.",
};

export const docs = {
    title: "Programming interface",
    text: "Everything that these pages do, a program can do. The description in full:",
    failed: "The description could not be loaded.",
    parameters: "Parameters",
    body: "Request body",
    answers: "Answers",
    required: "required",
    bearer: "Programs authorise with a bearer token: the secret of an operator or invitation link.",
};

export const missing = {
    title: "There is nothing at this address.",
    text: "Perhaps the link was cut short, or the event never existed.",
    home: "To the start page",
};
