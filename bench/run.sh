#!/usr/bin/env bash
# Measures, beside peers and limits, and appends what it found to bench/RESULTS.md. Takes about eight minutes on a quiet machine.
set -euo pipefail
cd "$(dirname "$0")/.."
out=out/bench
mkdir -p "$out"
rm -f "$out"/*

echo "== the stage: one second with 13 speakers, and with 50" >&2
go test -run '^$' -bench 'StageSecond' -benchtime 5x -count 6 ./internal/mix | tee "$out/stage.txt" >&2
go test -run '^$' -bench 'BenchmarkAppend$' -benchmem -count 6 ./internal/timeline | tee "$out/timeline.txt" >&2

echo "== start and rest" >&2
bench/start.sh >"$out/start.txt"

echo "== mouth to ear, and first sound, in Chromium" >&2
(cd ui && npx vitest run --config e2e/bench.config.ts >&2)

node bench/report.mjs "$out" >>bench/RESULTS.md
tail -n 40 bench/RESULTS.md
