#!/usr/bin/env bash
# Builds one binary that needs nothing of the machine it runs on: static.sh VERSION FILE. libopus and the C library are linked into it,
# names are resolved and users looked up by Go (the C library's ways need it at run time), and time zones are inside.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 file=$2

if ! libdir=$(pkg-config --variable=libdir opus) || [[ ! -f $libdir/libopus.a ]]; then
  echo "static.sh: there is no libopus.a to link; on Debian it is in libopus-dev" >&2
  exit 1
fi
CGO_ENABLED=1 GOFLAGS= go build -trimpath -tags nolibopusfile,netgo,osusergo,timetzdata \
  -ldflags "-s -w -X main.version=$version -linkmode external -extldflags '-static -lm'" -o "$file" ./cmd/earshot
