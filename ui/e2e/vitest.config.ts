import { defineConfig } from "vitest/config";

// Browser tests run one file at a time: each starts servers and browsers of its own, and sound is measured in real time.
export default defineConfig({
    test: {
        include: ["e2e/**/*.test.ts"],
        fileParallelism: false,
        testTimeout: 90_000,
        hookTimeout: 60_000,
        reporters: ["default"],
    },
});
