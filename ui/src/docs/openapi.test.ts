import { describe, expect, it } from "vitest";
import { lines, operations, type Document } from "./openapi";

const document: Document = {
    info: { title: "t", version: "1" },
    paths: {
        "/a": {
            parameters: [],
            post: {
                operationId: "make",
                summary: "Makes",
                tags: ["things"],
                requestBody: { content: { "application/json": { schema: { $ref: "#/components/schemas/Node" } } } },
                responses: { "201": { description: "Made" } },
            },
        },
    },
    components: {
        schemas: {
            Node: {
                type: "object",
                required: ["name"],
                properties: {
                    name: { type: "string", description: "How it is called" },
                    role: { type: "string", enum: ["host", "speaker"] },
                    children: { type: ["array", "null"], items: { $ref: "#/components/schemas/Node" } },
                    at: { type: "string", format: "date-time" },
                },
            },
        },
    },
};

describe("openapi", () => {
    it("lists the operations", () => {
        expect(operations(document)).toMatchObject([
            {
                method: "POST",
                path: "/a",
                id: "make",
                tag: "things",
                body: [{ type: "application/json" }],
                answers: [{ status: "201" }],
            },
        ]);
    });

    it("shows a schema line by line, and one within itself only by name", () => {
        const schema = operations(document)[0]?.body[0]?.schema;
        expect(lines(document, schema).map((l) => `${l.depth} ${l.name}: ${l.type}${l.required ? " !" : ""}`)).toEqual([
            "0 name: string !",
            '0 role: "host" | "speaker"',
            "0 children: [Node]",
            "0 at: string, date-time",
        ]);
    });
});
