import { beforeEach, describe, expect, it } from "vitest";
import { FakeClock, settle } from "../lib/fake";
import { Player, type Facts } from "./player";
import type { Port, Rung, RungName } from "./rung";

class FakeRung implements Rung {
    started = false;
    stopped = false;
    heard: number | null = null;
    constructor(
        readonly name: RungName,
        readonly port: Port,
        readonly unheard = false,
    ) {}
    taken = false;
    take() {
        this.taken = true;
    }
    start() {
        this.started = true;
    }
    stop() {
        this.stopped = true;
    }
    frame() {
        return this.heard;
    }
    announced: number[] = [];
    announce = ({ ms }: { ms: number }) => void this.announced.push(ms);
    sound() {
        this.heard = 100;
        this.port.sound();
    }
}

let clock: FakeClock;
let made: FakeRung[];
let facts: Facts;
let open: boolean | Error;
let online: boolean;
let player: Player;
const last = () => made[made.length - 1] as FakeRung;
const names = () => made.map((rung) => rung.name);

beforeEach(() => {
    clock = new FakeClock();
    made = [];
    open = online = true;
    const make =
        (name: RungName, unheard = false) =>
        (port: Port) => {
            made.push(new FakeRung(name, port, unheard));
            return last();
        };
    player = new Player({
        rungs: [
            { name: "whep", make: make("whep"), unheard: make("whep", true) },
            { name: "push", make: make("push") },
            { name: "hls", make: make("hls") },
        ],
        clock,
        random: () => 1,
        open: () => (open instanceof Error ? Promise.reject(open) : Promise.resolve(open)),
        online: () => online,
        changed: (f) => (facts = f),
    });
});

describe("Player", () => {
    it("plays by the first rung, and tells the frame heard", () => {
        player.listen();
        expect(facts).toMatchObject({ state: "connecting", rung: "whep" });
        expect(player.frameHeard()).toBeNull();
        last().sound();
        expect(facts).toMatchObject({ state: "playing", rung: "whep", trouble: null });
        expect(player.frameHeard()).toBe(100);
    });

    it("goes down the ladder at once when a rung fails, or gives no sound in its time", async () => {
        player.listen();
        last().port.failed({ why: "refused" });
        await settle();
        expect(facts).toMatchObject({ state: "connecting", rung: "push", trouble: "refused" });
        clock.advance(5000);
        await settle();
        expect(facts).toMatchObject({ state: "connecting", rung: "hls", trouble: "no_sound" });
        expect(made.map((rung) => rung.stopped)).toEqual([true, true, false]);
        last().sound();
        expect(facts.trouble).toBeNull();
    });

    it("waits when all have failed, longer each round, and starts over", async () => {
        player.listen();
        const waits: number[] = [];
        for (let round = 0; round < 3; round++) {
            for (let i = 0; i < 3; i++) {
                last().port.failed({ why: "connection" });
                await settle();
            }
            expect(facts.state).toBe("waiting");
            waits.push(facts.retryIn);
            clock.advance(facts.retryIn);
            await settle();
        }
        expect(waits).toEqual([1000, 2000, 4000]);
        expect(facts).toMatchObject({ state: "connecting", rung: "whep" });
    });

    it("gives a rung that has played another chance before the next", async () => {
        player.listen();
        last().sound();
        last().port.failed({ why: "connection" });
        expect(facts).toMatchObject({ state: "waiting", trouble: "connection" });
        clock.advance(500);
        await settle();
        expect(names()).toEqual(["whep", "whep"]);
        last().port.failed({ why: "connection" });
        await settle();
        expect(names()).toEqual(["whep", "whep", "push"]);
    });

    it("does not go down the ladder while the server can't be reached", async () => {
        player.listen();
        last().sound();
        open = new Error("unreachable");
        for (let i = 0; i < 4; i++) {
            last().port.failed({ why: "connection" });
            await settle();
            expect(facts.state).toBe("waiting");
            clock.advance(facts.retryIn);
            await settle();
        }
        open = true;
        last().sound();
        expect(facts).toMatchObject({ state: "playing", rung: "whep" });
        expect(new Set(names())).toEqual(new Set(["whep"]));
    });

    it("ends instead of going down when the event is over", async () => {
        player.listen();
        open = false;
        last().port.failed({ why: "no_sound" });
        await settle();
        expect(facts.state).toBe("ended");
    });

    it("notices that the frame heard stands still", async () => {
        player.listen();
        last().sound();
        for (let i = 0; i < 20; i++) {
            last().heard = i;
            clock.advance(1000);
        }
        expect(facts.state).toBe("playing");
        clock.advance(5000);
        expect(facts).toMatchObject({ state: "waiting", trouble: "no_sound" });
        clock.advance(500);
        await settle();
        expect(facts).toMatchObject({ state: "connecting", rung: "whep" });
    });

    it("comes back by the first rung when the server said it would be there, spread by chance", async () => {
        player.listen();
        last().port.failed({ why: "refused" });
        await settle();
        last().sound();
        last().port.failed({ why: "restart", backIn: 4 });
        expect(facts).toMatchObject({ state: "waiting", trouble: "restart", retryIn: 5000 });
        clock.advance(4999);
        await settle();
        expect(made).toHaveLength(2);
        clock.advance(1);
        await settle();
        expect(names()).toEqual(["whep", "push", "whep"]);
    });

    it("ends when the event is over, whether a rung or the server says so", async () => {
        player.listen();
        open = false;
        last().port.failed({ why: "closed" });
        expect(names()).toEqual(["whep"]); // the other rungs would be closed too
        clock.advance(facts.retryIn);
        await settle();
        expect(facts.state).toBe("ended");
        player.listen();
        expect(made).toHaveLength(1);
    });

    it("tries the other ways into a full house, then waits as long as it was asked to", async () => {
        player.listen();
        last().port.failed({ why: "full", backIn: 20 });
        await settle();
        expect(facts).toMatchObject({ state: "connecting", rung: "push", trouble: "full" });
        clock.advance(1000);
        last().port.failed({ why: "connection" }); // a page is not told why a WebSocket was refused
        await settle();
        last().port.failed({ why: "connection" });
        expect(facts).toMatchObject({ state: "waiting", retryIn: 24_000 });
        clock.advance(24_000);
        await settle();
        expect(names()).toEqual(["whep", "push", "hls", "whep"]);
        // the next time it is HLS that says so
        for (let i = 0; i < 2; i++) {
            last().port.failed({ why: "connection" });
            await settle();
        }
        last().port.failed({ why: "full", backIn: 8 });
        expect(facts).toMatchObject({ state: "waiting", trouble: "full", retryIn: 10_000 });
    });

    it("hands announcements to the rung in use", () => {
        player.announce({ rung: "whep", ms: 60, from: 1 });
        player.listen();
        player.announce({ rung: "whep", ms: 120, from: 2 });
        expect(last().announced).toEqual([120]);
    });

    it("sits out being offline, and hurries when back", async () => {
        player.listen();
        last().sound();
        online = false;
        last().port.failed({ why: "connection" });
        expect(facts).toMatchObject({ state: "waiting", trouble: "offline" });
        online = true;
        player.hurry();
        await settle();
        expect(facts.state).toBe("connecting");
    });

    it("goes back to the button when the browser wants a click", () => {
        player.listen();
        last().port.failed({ why: "blocked" });
        expect(facts).toMatchObject({ state: "idle", trouble: "blocked" });
        player.listen();
        expect(facts).toMatchObject({ state: "connecting", trouble: null });
    });

    it("stops everything at pause, and hears no rung that it has stopped", async () => {
        player.listen();
        const old = last();
        player.pause();
        expect(old.stopped).toBe(true);
        old.sound();
        old.port.failed({ why: "connection" });
        old.port.ended();
        clock.advance(60_000);
        await settle();
        expect(facts.state).toBe("idle");
        expect(made).toHaveLength(1);
    });

    it("does not begin again when paused while asking whether the event is open", async () => {
        player.listen();
        last().sound();
        last().port.failed({ why: "connection" });
        clock.advance(500);
        player.pause();
        await settle();
        expect(facts.state).toBe("idle");
        expect(made).toHaveLength(1);
    });

    describe("on a lower rung", () => {
        /** Falls to push, which then plays on and on. */
        const fall = async () => {
            player.listen();
            last().port.failed({ why: "connection" });
            await settle();
            last().sound();
            return last();
        };
        /** Lets all that sounds go on for some seconds. */
        const play = async (seconds: number) => {
            for (let i = 0; i < seconds * 2; i++) {
                for (const rung of made) if (rung.heard !== null && !rung.stopped) rung.heard += 25;
                clock.advance(500);
                await settle();
            }
        };

        it("tries the better one unheard after a while, and takes it once it has sounded for two seconds", async () => {
            const push = await fall();
            await play(89);
            expect(names()).toEqual(["whep", "push"]);
            await play(2);
            const whep = last();
            expect(whep).toMatchObject({ name: "whep", unheard: true, started: true, taken: false });
            expect(facts).toMatchObject({ state: "playing", rung: "push" });
            whep.sound();
            await play(1);
            expect([whep.taken, push.stopped]).toEqual([false, false]);
            expect(player.frameHeard()).toBe(push.heard);
            await play(2);
            expect([whep.taken, push.stopped]).toEqual([true, true]);
            expect(facts).toMatchObject({ state: "playing", rung: "whep", trouble: null });
            expect(player.frameHeard()).toBe(whep.heard);
            // from then on it is a rung like any other
            whep.port.failed({ why: "connection" });
            expect(facts).toMatchObject({ state: "waiting", rung: "whep", trouble: "connection" });
        });

        it.each([
            ["fails", (rung: FakeRung) => rung.port.failed({ why: "full", backIn: 9 })],
            ["has no sound in its time", () => undefined],
            [
                "gives a single sound",
                (rung: FakeRung) => {
                    rung.port.sound();
                },
            ],
        ])("goes on undisturbed where the better one %s, and tries again after twice the time", async (_, happens) => {
            const push = await fall();
            await play(90);
            const first = last();
            expect(first.unheard).toBe(true);
            happens(first);
            await play(6);
            expect([first.stopped, push.stopped]).toEqual([true, false]);
            expect(facts).toMatchObject({ state: "playing", rung: "push", trouble: null });
            const before = made.length;
            await play(170);
            expect(made).toHaveLength(before);
            await play(10);
            expect(made).toHaveLength(before + 1);
        });

        it("waits longer to climb after each fall, until the better one has held", async () => {
            const climb = async (after: number) => {
                await play(after);
                expect(facts.rung).toBe("push");
                await play(2);
                expect(last().unheard).toBe(true);
                last().sound();
                await play(4);
                expect(facts.rung).toBe("whep");
            };
            const drop = async () => {
                last().port.failed({ why: "connection" });
                clock.advance(facts.retryIn);
                await settle();
                last().port.failed({ why: "connection" });
                await settle();
                last().sound();
                expect(facts.rung).toBe("push");
            };
            await fall();
            await climb(89);
            await drop();
            await climb(179);
            await play(400);
            await drop();
            await climb(89);
        });

        it("stops a trial with everything else", async () => {
            await fall();
            await play(91);
            const trial = last();
            player.pause();
            expect(trial.stopped).toBe(true);
            trial.sound();
            clock.advance(60_000);
            expect(trial.taken).toBe(false);
            expect(facts.state).toBe("idle");
        });
    });
});
