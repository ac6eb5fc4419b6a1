#!/usr/bin/env bash
# Chromium beside a crowd, over TLS, for SOAK_MINUTES (10); appends what it found to bench/RESULTS.md. Fails if a page heard a gap.
# SOAK_LISTENERS fixes the crowd's size. SOAK_NICE=-18 puts all of it before whatever else the machine does (root only).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/out/soak
mkdir -p "$out"
rm -f "$out"/*

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
  -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout "$out/key.pem" -out "$out/cert.pem" 2>/dev/null

went=0
(cd ui && NODE_EXTRA_CA_CERTS="$out/cert.pem" SOAK_OUT="$out" nice -n "${SOAK_NICE:-0}" npx vitest run --config e2e/soak.config.ts >&2) || went=$?
if [[ -f $out/beside.json ]]; then
  node bench/beside.mjs "$out/beside.json" | tee -a "${SOAK_RESULTS:-bench/RESULTS.md}"
fi
exit "$went"
