#!/usr/bin/env bash
# Runs every fuzz target of the repository for the time given, one after the other. What is found is made small for two seconds only: a
# large input would take a minute, and no other would be tried meanwhile.
set -euo pipefail
time=${1:-20s}
go list -f '{{.Dir}} {{.ImportPath}}' ./... | while read -r dir pkg; do
  grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go 2>/dev/null | sed 's/^func //' | while read -r target; do
    echo "== $pkg $target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 2s "$pkg" </dev/null
  done
done
