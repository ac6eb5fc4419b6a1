import js from "@eslint/js";
import svelte from "eslint-plugin-svelte";
import globals from "globals";
import ts from "typescript-eslint";
import svelteConfig from "./svelte.config.js";

// Protocol code never touches the DOM: it is given what it needs, so that tests can give it something else.
const dom = [
    "window",
    "document",
    "navigator",
    "fetch",
    "WebSocket",
    "EventSource",
    "RTCPeerConnection",
    "MediaSource",
];

export default ts.config(
    { ignores: ["dist/", "node_modules/"] },
    js.configs.recommended,
    ...ts.configs.strict,
    ...svelte.configs.recommended,
    { languageOptions: { globals: { ...globals.browser, ...globals.node } } },
    {
        files: ["**/*.svelte", "**/*.svelte.ts"],
        languageOptions: { parserOptions: { parser: ts.parser, extraFileExtensions: [".svelte"], svelteConfig } },
    },
    {
        files: ["src/listen/*.ts", "src/cues/*.ts", "src/stage/*.ts", "src/lib/*.ts"],
        ignores: ["**/*.dom.ts", "**/*.svelte.ts"],
        rules: { "no-restricted-globals": ["error", ...dom] },
    },
    { rules: { "no-console": "error", eqeqeq: "error" } },
);
