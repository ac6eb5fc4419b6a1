import type Hls from "hls.js";
import { emsgCues } from "../cues/emsg";
import type { Cue } from "../cues/cue";
import { every, type Clock } from "../lib/clock";
import { opusType } from "./push.dom";
import type { Failure, Port, Rung } from "./rung";

/** Loads hls.js; nobody else pays for it. */
export async function loadHls(): Promise<typeof Hls> {
    return (await import("hls.js/light")).default;
}

/** Apple's own player plays an address, and says to which instant of the day its zero belongs. */
type Native = HTMLAudioElement & { getStartDate?: () => Date };

export function hlsPossible(element: HTMLAudioElement): boolean {
    return opusType() !== undefined || element.canPlayType("application/vnd.apple.mpegurl") !== "";
}

/** Options that hold for live and replay: no worker, because the page's policy lets no script be made at run time. */
export const hlsOptions = { enableWorker: false, backBufferLength: 60 };

/** Hands out the cues in whatever hls.js loads. */
export function takeCues(hls: Hls, Kind: typeof Hls, take: (cues: Cue[]) => void): void {
    hls.on(Kind.Events.FRAG_LOADED, (_, { payload }) => take(emsgCues(new Uint8Array(payload))));
}

/** A server that is full says when to come back; hls.js by itself would ask again in a second. */
function refusable(Kind: typeof Hls): Partial<typeof Hls.DefaultConfig> {
    const policy = Kind.DefaultConfig.manifestLoadPolicy.default;
    const { errorRetry } = policy;
    if (!errorRetry) return {};
    type Ask = NonNullable<typeof errorRetry.shouldRetry>;
    const shouldRetry: Ask = (_, __, ___, answer, retry) => retry && answer?.code !== 503;
    return { manifestLoadPolicy: { default: { ...policy, errorRetry: { ...errorRetry, shouldRetry } } } };
}

function failureOf(status: number | undefined, request: unknown): Failure {
    if (status === 409) return { why: "closed" };
    if (status !== 503 && status !== 429) return { why: "connection" };
    const asked = request instanceof XMLHttpRequest ? request.getResponseHeader("Retry-After") : null;
    const backIn = Number.parseInt(asked ?? "", 10);
    return backIn > 0 ? { why: "full", backIn } : { why: "full" };
}

/** Listening by HLS: hls.js wherever there are source buffers, else the browser's own player. */
export function hlsRung(element: Native, slug: string, origin: () => number, clock: Clock, port: Port): Rung {
    const url = `/e/${slug}/hls/index.m3u8`;
    let hls: Hls | undefined;
    let stopped = false;
    let stopPolling: () => void = () => undefined;

    const play = () =>
        element.play().catch((error: unknown) => {
            if (!stopped && error instanceof DOMException && error.name === "NotAllowedError")
                port.failed({ why: "blocked" });
        });
    const watch = () => {
        const from = element.currentTime;
        stopPolling = every(clock, 100, () => {
            if (element.paused || element.currentTime === from || frame() === null) return;
            stopPolling();
            port.sound();
        });
    };
    const frame = () => {
        const start = hls ? hls.playingDate?.getTime() : element.getStartDate?.().getTime();
        if (start === undefined || Number.isNaN(start)) return null;
        return ((hls ? start : start + element.currentTime * 1000) - origin()) / 20;
    };
    const begin = async () => {
        element.srcObject = null;
        element.onended = () => port.ended();
        if (opusType() === undefined) {
            element.onerror = () => port.failed({ why: "connection" });
            element.src = url;
        } else {
            const Kind = await loadHls();
            if (stopped) return;
            hls = new Kind({ ...hlsOptions, ...refusable(Kind), lowLatencyMode: true, maxLiveSyncPlaybackRate: 1.05 });
            hls.on(Kind.Events.ERROR, (_, { fatal, response, networkDetails }) => {
                if (fatal) port.failed(failureOf(response?.code, networkDetails));
            });
            hls.loadSource(url);
            hls.attachMedia(element);
        }
        watch();
        void play();
    };

    return {
        start: () => void begin().catch(() => port.failed({ why: "connection" })),
        stop() {
            stopped = true;
            stopPolling();
            element.onended = null;
            element.onerror = null;
            hls?.destroy();
            if (!hls) {
                element.removeAttribute("src");
                element.load();
            }
        },
        frame,
    };
}
