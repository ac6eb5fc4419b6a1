import type { Page } from "playwright-core";
import type { Tapped } from "./browser";

/** Loudness of what a page plays, in windows of 20 ms, and how often its element ran dry. */
export interface Heard {
    rms: number[];
    /** Events of the media element that say that it waits for audio. */
    waits: number;
    /** At each of them, milliseconds into the measurement, and how much audio the element still had. */
    dry: { at: number; ahead: number }[];
    /** The lowest and the highest playback rate of the element. */
    slowest: number;
    fastest: number;
    /** Milliseconds that the page measured for, and of these not: the page's thread was too busy for the meter. */
    ms: number;
    missed: number;
}

interface Meter extends Tapped {
    __meter?: { heard: Heard; stop: () => void };
}

/** Begins to measure what the page plays, until `endMeter`. `from` picks the newest WebRTC track or the media element. */
export async function beginMeter(page: Page, from: "track" | "element"): Promise<void> {
    await page.evaluate(async (from) => {
        const w = window as unknown as Meter;
        const el = w.__elements[w.__elements.length - 1] as HTMLMediaElement & { captureStream(): MediaStream };
        const stream = from === "track" ? w.__taps[w.__taps.length - 1] : el.captureStream();
        if (!stream) throw new Error(`the page plays no ${from}`);
        const context = new AudioContext({ sampleRate: 48_000 });
        await context.resume();
        const source = context.createMediaStreamSource(stream);
        const tap = context.createScriptProcessor(4096, 1, 1);
        const heard: Heard = { rms: [], waits: 0, dry: [], slowest: 9, fastest: 0, ms: 0, missed: 0 };
        let sum = 0;
        let n = 0;
        tap.onaudioprocess = (e) => {
            for (const v of e.inputBuffer.getChannelData(0)) {
                sum += v * v;
                if (++n < 960) continue;
                heard.rms.push(Math.sqrt(sum / n));
                sum = n = 0;
            }
            heard.slowest = Math.min(heard.slowest, el.playbackRate);
            heard.fastest = Math.max(heard.fastest, el.playbackRate);
        };
        const waits = () => {
            heard.waits++;
            const { buffered, currentTime } = el;
            const end = buffered.length > 0 ? buffered.end(buffered.length - 1) : 0;
            heard.dry.push({ at: heard.rms.length * 20, ahead: (end - currentTime) * 1000 });
        };
        el.addEventListener("waiting", waits);
        source.connect(tap).connect(context.destination);
        const began = context.currentTime;
        const stop = () => {
            heard.ms = (context.currentTime - began) * 1000;
            heard.missed = Math.max(0, heard.ms - heard.rms.length * 20 - 200); // what is under way counts as measured
            el.removeEventListener("waiting", waits);
            source.disconnect();
            tap.disconnect();
            void context.close();
        };
        w.__meter = { heard, stop };
    }, from);
}

export function endMeter(page: Page): Promise<Heard> {
    return page.evaluate(() => {
        const { __meter } = window as unknown as Meter;
        if (!__meter) throw new Error("nothing is measured");
        __meter.stop();
        return __meter.heard;
    });
}

/**
 * Where a tone that never pauses paused: the beginning and the length of each gap, in milliseconds. The first 200 ms do not
 * count, in which the meter itself begins, nor single windows, which a busy machine's audio thread may lose.
 */
export function gaps({ rms }: Pick<Heard, "rms">): { at: number; ms: number }[] {
    const usual = [...rms].sort((a, b) => a - b)[Math.floor(rms.length / 2)] ?? 0;
    const found: { at: number; ms: number }[] = [];
    rms.forEach((v, i) => {
        if (i < 10 || v > usual / 5) return;
        const last = found[found.length - 1];
        if (last && last.at + last.ms === i * 20) last.ms += 20;
        else found.push({ at: i * 20, ms: 20 });
    });
    return found.filter(({ ms }) => ms > 20);
}

/** What a page's newest connection received: packets, and samples that were made up because audio was missing. */
export function received(
    page: Page,
): Promise<{ packets: number; lost: number; concealed: number; target: number | null }> {
    return page.evaluate(async () => {
        const w = window as unknown as Meter;
        const peer = w.__peers[w.__peers.length - 1];
        if (!peer) throw new Error("the page has no connection");
        let [packets, lost, concealed] = [0, 0, 0];
        (await peer.getStats()).forEach((report: RTCInboundRtpStreamStats) => {
            if (report.type !== "inbound-rtp") return;
            packets = report.packetsReceived ?? 0;
            lost = report.packetsLost ?? 0;
            concealed = (report.concealedSamples ?? 0) - (report.silentConcealedSamples ?? 0);
        });
        return { packets, lost, concealed, target: peer.getReceivers()[0]?.jitterBufferTarget ?? null };
    });
}
