import { describe, expect, it } from "vitest";
import { Api, Problem, slugOf } from "./api";

function answering(status: number, body: unknown, headers: Record<string, string> = {}) {
    const asked: { input: string; init: RequestInit | undefined }[] = [];
    const api = new Api((input, init) => {
        asked.push({ input, init });
        const text = typeof body === "string" ? body : JSON.stringify(body);
        return Promise.resolve(new Response(status === 204 ? null : text, { status, headers }));
    });
    return { api, asked };
}

describe("Api", () => {
    it("asks as PROTOCOL has it", async () => {
        const { api, asked } = answering(204, "");
        await api.person("town-hall", "p_a/b", "mute");
        expect(asked[0]).toMatchObject({
            input: "/api/v1/events/town-hall/people/p_a%2Fb/mute",
            init: { method: "POST" },
        });
        await api.raiseHand("town-hall", "Ö", true);
        expect(asked[1]?.init?.body).toBe('{"name":"Ö","named":true}');
        await api.invite("town-hall", "cohost", "Bo");
        expect(asked[2]?.init?.body).toBe('{"role":"cohost","label":"Bo"}');
        await api.invite("town-hall", "speaker", "Cy", 2);
        expect(asked[3]?.init?.body).toBe('{"role":"speaker","label":"Cy","uses":2}');
    });

    it("takes a list that came as null", async () => {
        expect(await answering(200, { events: null }).api.events()).toEqual([]);
        expect(await answering(200, { phase: "live", people: null, hands: null }).api.stage("x")).toMatchObject({
            may: [],
            people: [],
            hands: [],
        });
        expect(await answering(200, { operator: false, grants: null }).api.session()).toMatchObject({ grants: [] });
    });

    it("throws the server's words", async () => {
        const problem = {
            title: "Conflict",
            status: 409,
            code: "conflict",
            detail: "The event has ended.",
            field: "slug",
        };
        const { api } = answering(409, problem, { "Content-Type": "application/problem+json", "Retry-After": "7" });
        await expect(api.event("x")).rejects.toMatchObject({
            status: 409,
            code: "conflict",
            detail: "The event has ended.",
            field: "slug",
            retryAfter: 7,
        });
    });

    it("makes a problem of a proxy's page, of broken JSON and of no answer", async () => {
        await expect(answering(502, "<h1>Bad", { "Content-Type": "text/html" }).api.event("x")).rejects.toMatchObject({
            status: 502,
            code: "internal",
        });
        const json = { "Content-Type": "application/problem+json" };
        await expect(answering(500, "{", json).api.event("x")).rejects.toBeInstanceOf(Problem);
        await expect(answering(500, "null", json).api.event("x")).rejects.toBeInstanceOf(Problem);
        const api = new Api(() => Promise.reject(new TypeError("fetch failed")));
        await expect(api.event("x")).rejects.toMatchObject({ status: 0, code: "network" });
    });
});

it("slugOf reads the address", () => {
    expect(["/e/demo", "/e/town-hall/studio", "/"].map(slugOf)).toEqual(["demo", "town-hall", ""]);
});
