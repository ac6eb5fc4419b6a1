import type Hls from "hls.js";
import type { Cue } from "../cues/cue";
import { hlsOptions, loadHls, takeCues } from "./hls.dom";
import { opusType } from "./push.dom";

/** The recording of an event, played by HLS; its cues come in the segments. */
export class Recording {
    private hls: Hls | undefined;

    constructor(
        private readonly element: HTMLAudioElement & { getStartDate?: () => Date },
        private readonly slug: string,
        /** Time of frame 0, in milliseconds of the epoch. */
        private readonly origin: number,
        private readonly cues: (cues: Cue[]) => void,
        private readonly failed: () => void,
    ) {}

    /** Loads the playlist and begins to play at this position, or, if it is null, at an instant of the day. */
    async open(position: number | null, instant: number): Promise<void> {
        const { element } = this;
        const url = `/e/${this.slug}/hls/index.m3u8`;
        element.onerror = () => this.failed();
        if (opusType() === undefined) {
            element.src = url;
            if (position) element.currentTime = position;
        } else {
            const Kind = await loadHls();
            const hls = new Kind({ ...hlsOptions, autoStartLoad: false });
            this.hls = hls;
            takeCues(hls, Kind, this.cues);
            hls.on(Kind.Events.ERROR, (_, { fatal }) => fatal && this.failed());
            hls.once(Kind.Events.LEVEL_LOADED, (_, { details }) => {
                const first = details.fragments[0]?.programDateTime;
                const skip = first ? (instant - first) / 1000 : 0;
                const start = position ?? (skip > 2 && skip < details.totalduration ? skip : 0);
                hls.startLoad(start);
                element.currentTime = start;
            });
            hls.on(Kind.Events.MANIFEST_PARSED, () => hls.startLoad(0));
            hls.loadSource(url);
            hls.attachMedia(element);
        }
        element.play().catch((error: unknown) => {
            if (error instanceof DOMException && error.name === "NotSupportedError") this.failed();
        });
    }

    frame(): number | null {
        const { element } = this;
        const start = this.hls ? this.hls.playingDate?.getTime() : element.getStartDate?.().getTime();
        if (start === undefined || Number.isNaN(start)) return null;
        return ((this.hls ? start : start + element.currentTime * 1000) - this.origin) / 20;
    }

    close(): void {
        this.element.onerror = null;
        this.hls?.destroy();
        if (!this.hls) this.element.removeAttribute("src");
    }
}
