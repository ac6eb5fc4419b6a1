import type { Page } from "playwright-core";
import { rate } from "./sound";

/** Bursts of 1500 Hz, 40 ms long, at uneven distances, so that each can be told from its neighbours. */
export function bursts(count: number): { pcm: Float32Array; seconds: number } {
    const gaps = [0.83, 1.07, 0.91, 1.19, 0.97, 1.13];
    const starts: number[] = [];
    let t = 0.5;
    for (let i = 0; i < count; i++) {
        starts.push(t);
        t += gaps[i % gaps.length] ?? 1;
    }
    const pcm = new Float32Array(Math.round(t * rate));
    for (const s of starts) {
        const at = Math.round(s * rate);
        const n = 0.04 * rate;
        for (let i = 0; i < n; i++)
            pcm[at + i] = 0.5 * Math.sin((2 * Math.PI * 1500 * i) / rate) * Math.min(1, i / 48, (n - i) / 48);
    }
    return { pcm, seconds: t };
}

export interface Channels {
    mic: Float32Array;
    /** The same microphone through a direct connection between two peers in this browser. */
    direct: Float32Array;
    /** What the page plays. */
    heard: Float32Array;
}

/**
 * On an event page that is listening: speaks on the stage with the page's own microphone, and records the microphone, a
 * direct peer connection and what the page plays in one AudioContext, so that all three share one clock to the sample.
 */
export async function recordTogether(
    page: Page,
    stageURL: string,
    secret: string,
    from: "track" | "element",
    seconds: number,
): Promise<Channels> {
    const encoded = await page.evaluate(
        async ({ stageURL, secret, from, seconds }) => {
            const w = window as unknown as { __taps: MediaStream[]; __elements: HTMLMediaElement[] };
            const whole = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
            const mic = await navigator.mediaDevices.getUserMedia({ audio: whole });
            const heardNow = (): MediaStream | undefined => {
                if (from === "track") return w.__taps[w.__taps.length - 1];
                const el = w.__elements[w.__elements.length - 1] as
                    (HTMLMediaElement & { captureStream(): MediaStream }) | undefined;
                return el?.captureStream();
            };
            const heard = heardNow();
            if (!heard) throw new Error(`the page plays no ${from}`);

            const gathered = (pc: RTCPeerConnection) =>
                new Promise<void>((done) => {
                    if (pc.iceGatheringState === "complete") return done();
                    pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && done());
                });
            const speak = new RTCPeerConnection();
            for (const t of mic.getTracks()) speak.addTrack(t, mic);
            await speak.setLocalDescription(await speak.createOffer());
            await gathered(speak);
            const answer = await fetch(stageURL, {
                method: "POST",
                headers: { "content-type": "application/sdp", authorization: `Bearer ${secret}` },
                body: speak.localDescription?.sdp ?? "",
                credentials: "omit",
            });
            if (!answer.ok) throw new Error(`stage: ${answer.status} ${await answer.text()}`);
            await speak.setRemoteDescription({ type: "answer", sdp: await answer.text() });

            const a = new RTCPeerConnection();
            const b = new RTCPeerConnection();
            a.onicecandidate = (e) => void b.addIceCandidate(e.candidate ?? undefined);
            b.onicecandidate = (e) => void a.addIceCandidate(e.candidate ?? undefined);
            const direct = new Promise<MediaStream>((done) => (b.ontrack = (e) => done(new MediaStream([e.track]))));
            for (const t of mic.getTracks()) a.addTrack(t, mic);
            await a.setLocalDescription(await a.createOffer());
            await b.setRemoteDescription(a.localDescription as RTCSessionDescription);
            await b.setLocalDescription(await b.createAnswer());
            await a.setRemoteDescription(b.localDescription as RTCSessionDescription);
            const directStream = await direct;

            // A remote track is decoded only while an element plays it.
            const sinks = [directStream, ...(from === "track" ? [heard] : [])].map((s) => {
                const el = document.createElement("audio");
                el.srcObject = s;
                el.volume = 0.01;
                void el.play();
                return el;
            });
            await new Promise((r) => setTimeout(r, 4000)); // jitter buffers settle

            const context = new AudioContext({ sampleRate: 48_000 });
            await context.resume();
            const merger = context.createChannelMerger(3);
            [mic, directStream, heard].forEach((s, i) => context.createMediaStreamSource(s).connect(merger, 0, i));
            const tap = context.createScriptProcessor(4096, 3, 1);
            const chunks: Float32Array[][] = [[], [], []];
            await new Promise<void>((done) => {
                tap.onaudioprocess = (e) => {
                    for (let c = 0; c < 3; c++) chunks[c]?.push(e.inputBuffer.getChannelData(c).slice());
                    if ((chunks[0]?.length ?? 0) * 4096 >= seconds * 48_000) done();
                };
                merger.connect(tap).connect(context.destination);
            });
            tap.disconnect();
            await context.close();
            for (const el of sinks) el.srcObject = null;
            for (const pc of [speak, a, b]) pc.close();
            for (const t of mic.getTracks()) t.stop();
            return chunks.map((list) => {
                const bytes = new Uint8Array(list.length * 4096 * 4);
                list.forEach((c, i) => bytes.set(new Uint8Array(c.buffer), i * 4096 * 4));
                let s = "";
                for (let i = 0; i < bytes.length; i += 32768) s += String.fromCharCode(...bytes.subarray(i, i + 32768));
                return btoa(s);
            });
        },
        { stageURL, secret, from, seconds },
    );
    const [mic, direct, heard] = encoded.map((s) => {
        const b = Buffer.from(s, "base64");
        return new Float32Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength));
    });
    return { mic: mic ?? new Float32Array(), direct: direct ?? new Float32Array(), heard: heard ?? new Float32Array() };
}

/** Times in seconds at which a burst of 1500 Hz begins, after at least 300 ms without one. */
export function onsets(pcm: Float32Array): number[] {
    const n = 240; // 5 ms
    const w = (2 * Math.PI * 1500) / rate;
    const level: number[] = [];
    for (let i = 0; i + n <= pcm.length; i += n) {
        let re = 0;
        let im = 0;
        for (let j = 0; j < n; j++) {
            re += (pcm[i + j] ?? 0) * Math.cos(w * j);
            im += (pcm[i + j] ?? 0) * Math.sin(w * j);
        }
        level.push((2 * Math.hypot(re, im)) / n);
    }
    const top = [...level].sort((a, b) => b - a)[Math.floor(level.length / 100)] ?? 0;
    const threshold = Math.max(0.02, top * 0.35);
    const found: number[] = [];
    let quiet = 60;
    level.forEach((v, i) => {
        if (v < threshold) {
            quiet++;
            return;
        }
        if (quiet >= 60) found.push((i * n) / rate);
        quiet = 0;
    });
    return found;
}

/** For each burst in `said`, how much later it was heard, in milliseconds. Bursts heard by nobody are left out. */
export function delays(said: Float32Array, heard: Float32Array, longest = 8): number[] {
    const from = onsets(said);
    const to = onsets(heard);
    // The bursts come at uneven distances: the shift under which most of them meet is the delay.
    let best: number[] = [];
    for (const f of from.slice(0, 6)) {
        for (const t of to) {
            const shift = t - f;
            if (shift < 0 || shift > longest) continue;
            const met = from.flatMap((x) => {
                const y = to.find((u) => Math.abs(u - x - shift) < 0.045);
                return y === undefined ? [] : [(y - x) * 1000];
            });
            if (met.length > best.length) best = met;
        }
    }
    return best;
}

/** The p-th percentile (nearest rank). */
export function percentile(values: number[], p: number): number {
    const v = [...values].sort((a, b) => a - b);
    return v[Math.min(v.length - 1, Math.max(0, Math.ceil((p / 100) * v.length) - 1))] ?? NaN;
}

/** Presses the button of that name and answers after how many milliseconds the page first plays something audible. */
export function firstSound(page: Page, button: string, from: "track" | "element"): Promise<number> {
    return page.evaluate(
        async ({ button, from }) => {
            const w = window as unknown as { __taps: MediaStream[]; __elements: HTMLMediaElement[] };
            const context = new AudioContext({ sampleRate: 48_000, latencyHint: "interactive" });
            await context.resume();
            const tap = context.createScriptProcessor(256, 1, 1);
            tap.connect(context.destination);
            const target = [...document.querySelectorAll("button")].find((b) => b.textContent.trim() === button);
            if (!target) throw new Error(`no button ${button}`);
            const connect = (source: AudioNode) => {
                clearInterval(look);
                source.connect(tap);
            };
            const pressed = performance.now();
            const heard = new Promise<number>((done) => {
                tap.onaudioprocess = (e) => {
                    if (e.inputBuffer.getChannelData(0).some((v) => Math.abs(v) > 0.003)) done(performance.now());
                };
            });
            target.click();
            const look = setInterval(() => {
                const track = w.__taps[w.__taps.length - 1];
                const el = w.__elements[w.__elements.length - 1];
                if (from === "track" && track) connect(context.createMediaStreamSource(track));
                // The element itself, since a captured stream falls silent when the player seeks to the live edge.
                if (from === "element" && el) connect(context.createMediaElementSource(el));
            }, 4);
            const late = new Promise<number>((_, fail) =>
                setTimeout(() => fail(new Error("no sound within 15 s")), 15_000),
            );
            const at = await Promise.race([heard, late]);
            await context.close();
            return at - pressed;
        },
        { button, from },
    );
}
