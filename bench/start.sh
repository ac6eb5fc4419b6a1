#!/usr/bin/env bash
# From starting the process to its first answer on /readyz, ten times, in milliseconds; and its memory at rest after ten seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
port=18990
for i in $(seq 10); do
  before=$(date +%s%N)
  bin/earshot serve --listen 127.0.0.1:$port --udp 127.0.0.1:0 --data "$data" >/dev/null 2>&1 &
  pid=$!
  for _ in $(seq 2000); do
    if curl -fsS -o /dev/null "http://127.0.0.1:$port/readyz" 2>/dev/null; then break; fi
    sleep 0.005
  done
  echo "start_ms $((($(date +%s%N) - before) / 1000000))"
  if [[ $i == 10 ]]; then
    sleep 10
    awk '/^VmRSS/ { print "rest_kb", $2 }' "/proc/$pid/status"
  fi
  kill "$pid"
  wait "$pid"
done
