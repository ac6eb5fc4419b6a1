import { api, type StagePerson } from "../api";
import { clock } from "../lib/clock";
import { mic as text } from "../text/en";
import { Seat, type SeatFacts } from "./seat";
import { Mic, stageLink, stageSignalling } from "./stage.dom";

/** A microphone and a seat on stage, for components. */
export class Speaking {
    facts: SeatFacts = $state.raw({ state: "off", detail: "" });
    mic: Mic | null = $state.raw(null);
    devices: { id: string; name: string }[] = $state.raw([]);
    device = $state("");
    level = $state(-90);
    problem = $state("");
    /** Nothing came from the microphone for some seconds. */
    silent = $state(false);

    private readonly element = new Audio();
    private readonly seat: Seat;
    private heardAt = 0;

    constructor(readonly slug: string) {
        this.seat = new Seat({
            link: () => stageLink((this.mic as Mic).track, this.element),
            signalling: stageSignalling(slug),
            stage: () => api.stage(slug),
            clock,
            changed: (facts) => (this.facts = facts),
        });
    }

    /** Runs until the returned function is called; then the seat is left and the microphone closed. */
    run(): () => void {
        const timer = setInterval(() => this.tick(), 100);
        const online = () => this.seat.hurry();
        const leave = () => this.seat.leave();
        addEventListener("online", online);
        addEventListener("pagehide", leave);
        return () => {
            clearInterval(timer);
            removeEventListener("online", online);
            removeEventListener("pagehide", leave);
            this.seat.leave();
            this.closeMic();
        };
    }

    async openMic(device = this.device): Promise<boolean> {
        this.problem = "";
        if (!("mediaDevices" in navigator)) {
            this.problem = text.insecure;
            return false;
        }
        try {
            const mic = await Mic.open(device);
            const rejoin = this.facts.state === "on" || this.facts.state === "back" || this.facts.state === "joining";
            if (rejoin) this.seat.leave();
            this.closeMic();
            this.mic = mic;
            this.heardAt = clock.now();
            this.devices = await Mic.list();
            this.device = mic.track.getSettings().deviceId ?? device;
            if (rejoin) this.seat.join();
            return true;
        } catch (error) {
            const name = error instanceof DOMException ? error.name : "";
            this.problem =
                name === "NotAllowedError" || name === "NotFoundError" || name === "NotReadableError"
                    ? text[name]
                    : text.other;
            return false;
        }
    }

    async join(): Promise<void> {
        if (this.mic || (await this.openMic())) this.seat.join();
    }

    leave(): void {
        this.seat.leave();
        this.element.srcObject = null;
    }

    /** What the server says of this person: a muted voice is not even sent. */
    heed(me: StagePerson | undefined): void {
        if (this.mic) this.mic.track.enabled = !me || me.muted === "";
    }

    private closeMic(): void {
        this.mic?.close();
        this.mic = null;
        this.level = -90;
    }

    private tick(): void {
        if (!this.mic) return;
        this.level = this.mic.level();
        if (this.level > -70 || !this.mic.track.enabled) this.heardAt = clock.now();
        this.silent = clock.now() - this.heardAt > 4000;
    }
}
