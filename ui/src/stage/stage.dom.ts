import { api } from "../api";
import type { Link, Signalling } from "../listen/whep";

/** A connection that sends a track and plays what comes back through the element. */
export function stageLink(track: MediaStreamTrack, element: HTMLAudioElement): Link {
    const pc = new RTCPeerConnection();
    const { receiver, sender } = pc.addTransceiver(track, {
        direction: "sendrecv",
        streams: [new MediaStream([track])],
    });
    const link: Link = {
        onstate: () => undefined,
        onblocked: () => undefined,
        async offer() {
            await pc.setLocalDescription();
            return pc.localDescription?.sdp ?? "";
        },
        answer: (sdp) => pc.setRemoteDescription({ type: "answer", sdp }),
        timestamp: () => receiver.getSynchronizationSources()[0]?.rtpTimestamp ?? null,
        close: () => pc.close(),
    };
    pc.ontrack = () => {
        element.srcObject = new MediaStream([receiver.track]);
        element.play().catch(() => link.onblocked());
    };
    pc.onconnectionstatechange = () => link.onstate(pc.connectionState);
    pc.onsignalingstatechange = () => {
        const { transport } = sender;
        if (transport) transport.onstatechange = () => transport.state === "closed" && link.onstate("closed");
    };
    return link;
}

export function stageSignalling(slug: string): Signalling {
    return {
        async post(offer) {
            const response = await api.send("POST", `/e/${slug}/stage`, {
                headers: { "Content-Type": "application/sdp" },
                body: offer,
            });
            return { answer: await response.text(), location: response.headers.get("Location") ?? "" };
        },
        end(location) {
            if (location) fetch(location, { method: "DELETE", keepalive: true }).catch(() => undefined);
        },
    };
}

/** A microphone with a level, to be tried before anybody hears it. */
export class Mic {
    private constructor(
        readonly track: MediaStreamTrack,
        private readonly context: AudioContext,
        private readonly analyser: AnalyserNode,
    ) {}

    /** Asks for the microphone; throws the browser's DOMException if there is none, or it may not be used. */
    static async open(deviceId = ""): Promise<Mic> {
        const stream = await navigator.mediaDevices.getUserMedia({
            audio: {
                ...(deviceId && { deviceId: { exact: deviceId } }),
                echoCancellation: true,
                noiseSuppression: true,
                autoGainControl: true,
                channelCount: 1,
            },
        });
        const track = stream.getAudioTracks()[0] as MediaStreamTrack;
        const context = new AudioContext();
        const analyser = context.createAnalyser();
        context.createMediaStreamSource(stream).connect(analyser);
        void context.resume();
        return new Mic(track, context, analyser);
    }

    /** The microphones by name; names are known only once one was opened. */
    static async list(): Promise<{ id: string; name: string }[]> {
        const devices = await navigator.mediaDevices.enumerateDevices();
        return devices.filter((d) => d.kind === "audioinput").map((d) => ({ id: d.deviceId, name: d.label }));
    }

    /** dBFS (RMS), -90 for silence. */
    level(): number {
        const samples = new Float32Array(this.analyser.fftSize);
        this.analyser.getFloatTimeDomainData(samples);
        const power = samples.reduce((sum, s) => sum + s * s, 0) / samples.length;
        return Math.max(-90, 10 * Math.log10(power + 1e-9));
    }

    close(): void {
        this.track.stop();
        void this.context.close();
    }
}
