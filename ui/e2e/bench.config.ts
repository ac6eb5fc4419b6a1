import { defineConfig } from "vitest/config";

// Measurements: run by bench/run.sh, never by `make test`.
export default defineConfig({
    test: {
        dir: "..",
        include: ["bench/**/*.bench.ts"],
        fileParallelism: false,
        testTimeout: 600_000,
        hookTimeout: 60_000,
    },
    server: { fs: { strict: false } },
});
