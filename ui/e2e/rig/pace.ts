import type { Page } from "playwright-core";

interface Change {
    rung: string;
    ms: number;
    from: number;
}

/** What comes on a page's WebSocket: when messages with audio came, and the announcements between them. */
export interface Wire {
    messages: number[];
    announced: { frame: number; data: Change }[];
}

/** Begins to note what comes on the WebSockets that the page opens from now on. */
export function overhear(page: Page): Wire {
    const heard: Wire = { messages: [], announced: [] };
    page.on("websocket", (socket) =>
        socket.on("framereceived", ({ payload }) => {
            if (typeof payload !== "string") return void heard.messages.push(performance.now());
            const cues: unknown = JSON.parse(payload);
            if (!Array.isArray(cues)) return;
            for (const cue of cues as { kind: string; frame: number; data: Change }[])
                if (cue.kind === "cadence") heard.announced.push(cue);
        }),
    );
    return heard;
}

/** The longest silence between two messages of the last seconds, in milliseconds. */
export function cadenceOf({ messages }: Wire, seconds: number): number {
    const recent = messages.filter((at) => at > performance.now() - seconds * 1000);
    return Math.max(0, ...recent.slice(1).map((at, i) => at - (recent[i] ?? at)));
}

/** The cadence that the server tells a newcomer. */
export function hello(page: Page, slug: string): Promise<unknown> {
    return page.evaluate(async (slug) => {
        const socket = new WebSocket(`${location.origin.replace("http", "ws")}/e/${slug}/live`, "earshot.1");
        const { data } = await new Promise<MessageEvent>((done, fail) => {
            socket.onmessage = done;
            socket.onerror = fail;
        });
        socket.close();
        return (JSON.parse(String(data)) as { cadence_ms: unknown }).cadence_ms;
    }, slug);
}

/** How far behind the programme the page says that it is, in milliseconds. */
export const behind = (page: Page) =>
    page.evaluate(() => (window as unknown as { earshot: { player: { behindMs: number } } }).earshot.player.behindMs);
