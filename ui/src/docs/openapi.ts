/** As much of OpenAPI 3.1 as the page shows. */

export interface Schema {
    type?: string | string[];
    format?: string;
    description?: string;
    enum?: unknown[];
    items?: Schema;
    properties?: Record<string, Schema>;
    required?: string[];
    additionalProperties?: boolean | Schema;
    $ref?: string;
}

export interface Operation {
    method: string;
    path: string;
    id: string;
    summary: string;
    description: string;
    tag: string;
    parameters: { name: string; in: string; required?: boolean; description?: string; schema?: Schema }[];
    body: { type: string; schema?: Schema }[];
    answers: { status: string; description: string; content: { type: string; schema?: Schema }[] }[];
}

type Content = Record<string, { schema?: Schema }> | undefined;

export interface Document {
    info: { title: string; version: string; description?: string };
    paths?: Record<string, Record<string, unknown>>;
    components?: { schemas?: Record<string, Schema> };
}

const methods = ["get", "post", "put", "patch", "delete", "head", "options"];

const contentOf = (content: Content) => Object.entries(content ?? {}).map(([type, { schema }]) => ({ type, schema }));

/** The document's operations, in its own order. */
export function operations(document: Document): Operation[] {
    return Object.entries(document.paths ?? {}).flatMap(([path, item]) =>
        methods
            .filter((method) => method in item)
            .map((method) => {
                const op = item[method] as {
                    operationId?: string;
                    summary?: string;
                    description?: string;
                    tags?: string[];
                    parameters?: Operation["parameters"];
                    requestBody?: { content?: Content };
                    responses?: Record<string, { description?: string; content?: Content }>;
                };
                return {
                    method: method.toUpperCase(),
                    path,
                    id: op.operationId ?? `${method}-${path}`,
                    summary: op.summary ?? "",
                    description: op.description ?? "",
                    tag: op.tags?.[0] ?? "",
                    parameters: op.parameters ?? [],
                    body: contentOf(op.requestBody?.content),
                    answers: Object.entries(op.responses ?? {}).map(([status, answer]) => ({
                        status,
                        description: answer.description ?? "",
                        content: contentOf(answer.content),
                    })),
                };
            }),
    );
}

export interface Line {
    depth: number;
    name: string;
    type: string;
    required: boolean;
    description: string;
}

/** A schema as lines: a field each, what a field holds one step further in. A schema within itself is only named. */
export function lines(document: Document, schema: Schema | undefined): Line[] {
    const found: Line[] = [];
    walk(schema, 0, []);
    return found;

    function walk(given: Schema | undefined, depth: number, within: string[]): void {
        const { schema: s, name } = resolve(given);
        if (!s || (name && within.includes(name)) || depth > 6) return;
        const inside = name ? [...within, name] : within;
        if (s.items) return walk(s.items, depth, inside);
        for (const [field, value] of Object.entries(s.properties ?? {})) {
            if (field === "$schema") continue;
            const required = s.required?.includes(field) ?? false;
            const description = value.description ?? resolve(value).schema?.description ?? "";
            found.push({ depth, name: field, type: typeOf(value), required, description });
            walk(value, depth + 1, inside);
        }
    }

    function resolve(given: Schema | undefined): { schema: Schema | undefined; name: string } {
        const name = given?.$ref?.replace("#/components/schemas/", "") ?? "";
        return name ? { schema: document.components?.schemas?.[name], name } : { schema: given, name };
    }

    function typeOf(given: Schema): string {
        const { schema: s, name } = resolve(given);
        if (!s) return name;
        if (name && s.properties) return name;
        if (s.enum) return s.enum.map((value) => JSON.stringify(value)).join(" | ");
        const type = [s.type ?? "any"]
            .flat()
            .filter((t) => t !== "null")
            .join(" | ");
        if (type === "array" && s.items) return `[${typeOf(s.items)}]`;
        return s.format ? `${type}, ${s.format}` : type;
    }
}
