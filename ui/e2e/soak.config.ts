import { defineConfig } from "vitest/config";

// What takes long: run by bench/beside.sh, never by `make test`.
export default defineConfig({
    test: {
        dir: "..",
        include: ["bench/**/*.soak.ts"],
        fileParallelism: false,
        pool: "forks", // a process of its own reads NODE_EXTRA_CA_CERTS
        testTimeout: 120_000,
        hookTimeout: 120_000,
    },
    server: { fs: { strict: false } },
});
