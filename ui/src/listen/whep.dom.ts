import { api, Problem } from "../api";
import { askNack, type Incoming, type Signalling } from "./whep";
import type { Failure } from "./rung";

/** A receiving RTCPeerConnection that plays through the element, if unheard only once it is taken. */
export function peerLink(element: HTMLAudioElement, unheard = false): Incoming {
    let out = element;
    if (unheard) {
        out = new Audio(); // what no element plays is not decoded
        out.muted = true;
    }
    const pc = new RTCPeerConnection();
    const { receiver } = pc.addTransceiver("audio", { direction: "recvonly" });
    const link: Incoming = {
        onstate: () => undefined,
        onblocked: () => undefined,
        async offer() {
            const { sdp = "" } = await pc.createOffer();
            const asking = askNack(sdp);
            try {
                await pc.setLocalDescription({ type: "offer", sdp: asking });
                return asking;
            } catch {
                await pc.setLocalDescription({ type: "offer", sdp }); // a browser that lets nobody touch its offer
                return sdp;
            }
        },
        answer: (sdp) => pc.setRemoteDescription({ type: "answer", sdp }),
        timestamp: () => receiver.getSynchronizationSources()[0]?.rtpTimestamp ?? null,
        buffer(ms) {
            if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = ms;
        },
        async roundTrip() {
            let trip: number | null = null;
            (await pc.getStats()).forEach((report: RTCIceCandidatePairStats) => {
                if (report.type === "candidate-pair" && report.nominated && report.currentRoundTripTime !== undefined)
                    trip = report.currentRoundTripTime * 1000;
            });
            return trip;
        },
        close() {
            pc.close();
            if (out.srcObject === stream) out.srcObject = null;
        },
        take() {
            const before = out;
            out = element;
            play();
            if (before !== out) before.srcObject = null;
        },
    };
    const stream = new MediaStream([receiver.track]);
    const play = () => {
        out.srcObject = stream;
        out.removeAttribute("src");
        out.playbackRate = 1;
        out.play().catch((error: unknown) => {
            if (error instanceof DOMException && error.name === "NotAllowedError") link.onblocked();
        });
    };
    pc.ontrack = play;
    pc.onconnectionstatechange = () => link.onstate(pc.connectionState);
    // A server that ends the session says so by closing DTLS; the connection's own state follows only much later.
    const watchTransport = () => {
        const transport = receiver.transport;
        if (transport) transport.onstatechange = () => transport.state === "closed" && link.onstate("closed");
    };
    pc.onsignalingstatechange = watchTransport;
    return link;
}

/** Posts the offer, with all candidates or none: the server is ICE-lite and needs none. */
export function whepSignalling(slug: string): Signalling {
    return {
        async post(offer) {
            const response = await api.send("POST", `/e/${slug}/whep`, {
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

/** What a refused or unanswered request means to a listener. */
export function explain(error: unknown): Failure {
    if (!(error instanceof Problem)) return { why: "unsupported" };
    if (error.status === 0) return { why: "connection" };
    if (error.code === "conflict") return { why: "closed" };
    if (error.code === "busy" || error.code === "unavailable")
        return error.retryAfter > 0 ? { why: "full", backIn: error.retryAfter } : { why: "full" };
    return { why: "refused" };
}
