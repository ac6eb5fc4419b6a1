import { beforeEach, describe, expect, it } from "vitest";
import { Problem, type StageState } from "../api";
import { FakeClock, settle } from "../lib/fake";
import type { Link } from "../listen/whep";
import { Seat, type SeatFacts } from "./seat";

class FakeLink implements Link {
    closed = false;
    onstate: (state: string) => void = () => undefined;
    onblocked: () => void = () => undefined;
    offer = () => Promise.resolve("offer");
    answer = () => Promise.resolve();
    timestamp = () => null;
    close() {
        this.closed = true;
    }
}

let clock: FakeClock;
let links: FakeLink[];
let ended: string[];
let facts: SeatFacts;
let refuse: Problem | null;
let stage: () => Promise<StageState>;
let seat: Seat;
const last = () => links[links.length - 1] as FakeLink;

function stageWith(me: { connected: boolean } | null, phase = "live"): () => Promise<StageState> {
    const people = me ? [{ id: "p_1", ...me }] : [];
    return () => Promise.resolve({ phase, you: "p_1", people, hands: [] } as unknown as StageState);
}

beforeEach(async () => {
    clock = new FakeClock();
    links = [];
    ended = [];
    refuse = null;
    stage = stageWith({ connected: true });
    seat = new Seat({
        link: () => {
            links.push(new FakeLink());
            return last();
        },
        signalling: {
            post: () =>
                refuse ? Promise.reject(refuse) : Promise.resolve({ answer: "a", location: "/s/" + links.length }),
            end: (location) => void ended.push(location),
        },
        stage: () => stage(),
        clock,
        random: () => 1,
        changed: (f) => (facts = f),
    });
    seat.join();
    await settle();
});

describe("Seat", () => {
    it("joins, and leaves with the session ended", () => {
        expect(facts.state).toBe("joining");
        last().onstate("connected");
        expect(facts.state).toBe("on");
        seat.leave();
        expect(facts.state).toBe("off");
        expect(ended).toEqual(["/s/1"]);
        expect(last().closed).toBe(true);
    });

    it("comes back by itself when the connection breaks", async () => {
        last().onstate("connected");
        last().onstate("disconnected");
        clock.advance(2000);
        last().onstate("connected"); // healed
        clock.advance(10_000);
        expect(links).toHaveLength(1);
        last().onstate("failed");
        expect(facts.state).toBe("back");
        clock.advance(500);
        await settle();
        expect(links).toHaveLength(2);
        last().onstate("connected");
        expect(facts.state).toBe("on");
    });

    it("tries again, later each time, while nothing answers", async () => {
        last().onstate("connected");
        refuse = new Problem(0, "network", "");
        last().onstate("failed");
        for (const ms of [500, 1000, 2000, 4000, 8000, 8000]) {
            const n = links.length;
            clock.advance(ms - 1);
            await settle();
            expect(links).toHaveLength(n);
            clock.advance(1);
            await settle();
            expect(links).toHaveLength(n + 1);
        }
        refuse = null;
        seat.hurry();
        await settle();
        last().onstate("connected");
        expect(facts.state).toBe("on");
    });

    it("tries again when a connection is not made in time", async () => {
        clock.advance(10_000);
        expect(facts.state).toBe("back");
        clock.advance(500);
        await settle();
        expect(links).toHaveLength(2);
    });

    it("stays away when the same person came in elsewhere, until told otherwise", async () => {
        last().onstate("connected");
        last().onstate("closed");
        await settle();
        expect(facts.state).toBe("displaced");
        clock.advance(60_000);
        expect(links).toHaveLength(1);
        seat.join();
        await settle();
        expect(links).toHaveLength(2);
    });

    it.each([
        ["removed", stageWith(null)],
        ["removed", () => Promise.reject(new Problem(403, "forbidden", ""))],
        ["over", stageWith(null, "ended")],
        ["over", () => Promise.reject(new Problem(409, "conflict", ""))],
    ])("is %s when the server closed the connection and says so", async (state, answer) => {
        last().onstate("connected");
        stage = answer as () => Promise<StageState>;
        last().onstate("closed");
        await clock.run(3200, 100);
        expect(facts.state).toBe(state);
        clock.advance(60_000);
        expect(links).toHaveLength(1);
    });

    it.each([
        ["a restart", () => Promise.reject(new Problem(0, "network", ""))],
        ["its own loss of the connection", stageWith({ connected: false })],
    ])("comes back when the server closed the connection for %s", async (_, answer) => {
        last().onstate("connected");
        stage = answer;
        last().onstate("closed");
        await settle();
        expect(facts.state).toBe("back");
        clock.advance(500);
        await settle();
        expect(links).toHaveLength(2);
    });

    it("comes back when the stage was emptied by a restart, however the new stage looks", async () => {
        last().onstate("connected");
        stage = stageWith(null);
        last().onstate("closed");
        await clock.run(1000, 100);
        expect(facts.state).toBe("back");
        stage = () => Promise.reject(new Problem(0, "network", ""));
        await clock.run(500, 100);
        stage = stageWith(null);
        await clock.run(500, 100);
        expect(links).toHaveLength(2);
        last().onstate("connected");
        expect(facts.state).toBe("on");
    });

    it("says what the server said when it refused, and keeps off", async () => {
        seat.leave();
        refuse = new Problem(403, "forbidden", "Ask a host.");
        seat.join();
        await settle();
        expect(facts).toEqual({ state: "refused", detail: "Ask a host." });
        clock.advance(60_000);
        expect(links).toHaveLength(2);
    });

    it("waits as long as a full house asks", async () => {
        seat.leave();
        refuse = new Problem(429, "busy", "Full.", "", 9);
        seat.join();
        await settle();
        refuse = null;
        clock.advance(8999);
        await settle();
        expect(links).toHaveLength(2);
        clock.advance(1);
        await settle();
        expect(links).toHaveLength(3);
    });

    it("ends a session whose answer comes after leaving", async () => {
        seat.leave();
        ended.length = 0;
        seat.join();
        seat.leave();
        await settle();
        expect(ended.length + links.filter((l) => !l.closed).length).toBe(0);
        seat.join();
        await Promise.resolve();
        await Promise.resolve();
        seat.leave();
        await settle();
        expect(links.every((l) => l.closed)).toBe(true);
    });
});
