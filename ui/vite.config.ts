import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const pages = ["home", "event", "studio", "operator", "docs", "404"];

/** Writes a .br and a .gz beside each asset, so that the server never compresses; and the placeholder that Go embeds. */
function precompress(): Plugin {
    return {
        name: "precompress",
        apply: "build",
        closeBundle() {
            const assets = join(import.meta.dirname, "dist", "assets");
            for (const name of readdirSync(assets)) {
                if (!/\.(js|css|svg)$/.test(name)) continue;
                const path = join(assets, name);
                const raw = readFileSync(path);
                const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: raw.length };
                writeFileSync(path + ".br", brotliCompressSync(raw, { params }));
                writeFileSync(path + ".gz", gzipSync(raw, { level: 9 }));
            }
            writeFileSync(join(import.meta.dirname, "dist", ".keep"), "");
        },
    };
}

export default defineConfig({
    plugins: [svelte(), precompress()],
    build: {
        target: ["chrome108", "firefox115", "safari16"],
        modulePreload: { polyfill: false }, // the policy allows no inline script, and the targets need none
        assetsInlineLimit: 0, // nor data: addresses
        rollupOptions: {
            input: Object.fromEntries(pages.map((name) => [name, join(import.meta.dirname, name + ".html")])),
        },
    },
    test: { include: ["src/**/*.test.ts"] },
});
