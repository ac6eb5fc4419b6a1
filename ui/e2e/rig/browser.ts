import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BrowserContext, type Page, chromium } from "playwright-core";

/** Flags that keep Chromium from calling home, and give it a microphone without asking. */
const flags = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
];

export interface Options {
    /** A WAV file that plays, again and again, as the microphone. */
    microphone?: string;
    viewport?: { width: number; height: number };
    locale?: string;
    colorScheme?: "light" | "dark";
    /** The microphone as it is. Without, Chromium's noise suppression takes a steady tone for noise. */
    rawMicrophone?: boolean;
    /** Takes a certificate that nobody vouches for. */
    anyCertificate?: boolean;
}

/** What `hear` leaves in a page's window, the newest of each last. */
export interface Tapped {
    __peers: RTCPeerConnection[];
    __taps: MediaStream[];
    __elements: HTMLMediaElement[];
}

/** Records what pages complain of: console errors, uncaught exceptions, blocked by policy, requests to elsewhere. */
export class Visitor {
    readonly complaints: string[] = [];

    private constructor(readonly context: BrowserContext) {}

    static async start(options: Options = {}): Promise<Visitor> {
        const args = [...flags];
        if (options.microphone) args.push(`--use-file-for-fake-audio-capture=${options.microphone}`);
        const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "earshot-browser-")), {
            executablePath: "/usr/bin/chromium",
            headless: true,
            args,
            permissions: ["microphone", "clipboard-read", "clipboard-write"],
            viewport: options.viewport ?? { width: 1100, height: 800 },
            locale: options.locale ?? "en-GB",
            colorScheme: options.colorScheme ?? "light",
            ignoreHTTPSErrors: options.anyCertificate ?? false,
        });
        const v = new Visitor(context);
        await context.addInitScript(hear);
        if (options.rawMicrophone) await context.addInitScript(raw);
        return v;
    }

    async open(url: string, door?: Page): Promise<Page> {
        const page = door ?? (await this.context.newPage());
        const origin = new URL(url).origin;
        page.on("console", (m) => {
            if (m.type() === "error") this.complaints.push(`${page.url()}: ${m.text()} ${m.location().url}`);
        });
        page.on("pageerror", (e) => this.complaints.push(`${page.url()}: ${e.message}`));
        page.on("request", (r) => {
            const u = new URL(r.url());
            if (u.protocol.startsWith("http") && u.origin !== origin) this.complaints.push(`request to ${r.url()}`);
        });
        await page.goto(url);
        return page;
    }

    close(): Promise<void> {
        return this.context.close();
    }
}

/** Runs in every page before its own code: keeps hold of whatever audio the page plays, for `record` and the like. */
function hear(): void {
    const w = window as unknown as Tapped;
    w.__peers = [];
    w.__taps = [];
    w.__elements = [];
    const Native = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Native {
        constructor(c?: RTCConfiguration) {
            super(c);
            w.__peers.push(this);
            this.addEventListener("track", (e) => w.__taps.push(new MediaStream([e.track])));
        }
    };
    const play = HTMLMediaElement.prototype.play;
    HTMLMediaElement.prototype.play = function (this: HTMLMediaElement) {
        if (!w.__elements.includes(this)) w.__elements.push(this);
        return play.call(this);
    };
}

function raw(): void {
    const ask = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
    if (!ask) return;
    navigator.mediaDevices.getUserMedia = (c) => {
        const audio = typeof c?.audio === "object" ? c.audio : {};
        return ask({ audio: { ...audio, echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    };
}

/** Records `seconds` of what the page plays: 48 kHz mono. `from` picks the newest WebRTC track or the media element. */
export async function record(page: Page, seconds: number, from: "track" | "element"): Promise<Float32Array> {
    const encoded = await page.evaluate(
        async ({ seconds, from }) => {
            const w = window as unknown as Tapped;
            let stream = w.__taps[w.__taps.length - 1];
            if (from === "element") {
                const el = w.__elements[w.__elements.length - 1] as
                    (HTMLMediaElement & { captureStream(): MediaStream }) | undefined;
                stream = el?.captureStream();
            }
            if (!stream) throw new Error(`the page plays no ${from}`);
            const context = new AudioContext({ sampleRate: 48_000 });
            await context.resume();
            const source = context.createMediaStreamSource(stream);
            const tap = context.createScriptProcessor(4096, 1, 1);
            const chunks: Float32Array[] = [];
            let n = 0;
            await new Promise<void>((done) => {
                tap.onaudioprocess = (e) => {
                    chunks.push(e.inputBuffer.getChannelData(0).slice());
                    n += 4096;
                    if (n >= seconds * 48_000) done();
                };
                source.connect(tap).connect(context.destination);
            });
            source.disconnect();
            tap.disconnect();
            await context.close();
            const all = new Float32Array(n);
            chunks.forEach((c, i) => {
                if (i * 4096 < n) all.set(c, i * 4096);
            });
            const bytes = new Uint8Array(all.buffer);
            let s = "";
            for (let i = 0; i < bytes.length; i += 32768) s += String.fromCharCode(...bytes.subarray(i, i + 32768));
            return btoa(s);
        },
        { seconds, from },
    );
    const b = Buffer.from(encoded, "base64");
    return new Float32Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength));
}
