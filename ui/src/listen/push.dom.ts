import type { Sink, Wire } from "./push";

/** The MediaSource of this browser: iPhones have only the managed one. */
function mediaSource(): typeof MediaSource | undefined {
    const scope = globalThis as { ManagedMediaSource?: typeof MediaSource; MediaSource?: typeof MediaSource };
    return scope.ManagedMediaSource ?? scope.MediaSource;
}

/** The name under which this browser takes Opus in MP4: Safari wants the capital. undefined: under none. */
export function opusType(): string | undefined {
    const source = mediaSource();
    return ['audio/mp4;codecs="opus"', 'audio/mp4;codecs="Opus"'].find((type) => source?.isTypeSupported(type));
}

const keepBehind = 20; // seconds of what was heard that stay in the source buffer

/** A source buffer behind the element; appends wait for one another. */
export function mediaSink(element: HTMLAudioElement): Sink {
    const Source = mediaSource() as typeof MediaSource;
    const source = new Source();
    const url = URL.createObjectURL(source);
    const queue: { bytes: Uint8Array; offset: number }[] = [];
    let buffer: SourceBuffer | undefined;
    let fail: Parameters<Sink["open"]>[1] = () => undefined;

    const trim = () => {
        const upTo = element.currentTime - keepBehind;
        if (!buffer || buffer.buffered.length === 0 || buffer.buffered.start(0) > upTo - keepBehind) return false;
        buffer.remove(0, upTo);
        return true;
    };
    const pump = () => {
        if (!buffer || buffer.updating || source.readyState !== "open" || trim()) return;
        const next = queue.shift();
        if (!next) return;
        try {
            if (buffer.timestampOffset !== next.offset) buffer.timestampOffset = next.offset;
            buffer.appendBuffer(next.bytes as Uint8Array<ArrayBuffer>);
        } catch {
            fail({ why: "no_sound" });
        }
    };

    return {
        open(ready, failed, dry) {
            fail = failed;
            element.onwaiting = dry;
            element.onerror = () => failed({ why: "no_sound" });
            source.addEventListener(
                "sourceopen",
                () => {
                    const type = opusType();
                    if (!type) return failed({ why: "unsupported" });
                    buffer = source.addSourceBuffer(type);
                    buffer.addEventListener("updateend", pump);
                    buffer.addEventListener("error", () => failed({ why: "no_sound" }));
                    ready();
                },
                { once: true },
            );
            element.disableRemotePlayback = true; // else the managed source never opens
            element.srcObject = null;
            element.src = url;
        },
        append(bytes, offset) {
            queue.push({ bytes, offset });
            pump();
        },
        play() {
            element.play().catch((error: unknown) => {
                if (error instanceof DOMException && error.name === "NotAllowedError") fail({ why: "blocked" });
            });
        },
        seek(time) {
            element.currentTime = time;
        },
        rate(rate) {
            if (Math.abs(element.playbackRate - rate) > 0.004) element.playbackRate = rate;
        },
        time: () => element.currentTime,
        close() {
            queue.length = 0;
            element.onerror = null;
            element.onwaiting = null;
            URL.revokeObjectURL(url);
            if (element.src === url) {
                element.removeAttribute("src");
                element.load();
            }
            element.playbackRate = 1;
        },
    };
}

export function socketWire(slug: string): Wire {
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/e/${slug}/live`, "earshot.1");
    socket.binaryType = "arraybuffer";
    const wire: Wire = {
        onmessage: () => undefined,
        onclose: () => undefined,
        close: () => socket.close(),
    };
    socket.onmessage = ({ data }) =>
        wire.onmessage(typeof data === "string" ? data : new Uint8Array(data as ArrayBuffer));
    socket.onclose = ({ code, reason }) => wire.onclose(code, reason);
    return wire;
}
