#!/usr/bin/env bash
# Installs the servers that `make bench-peers` measures beside Earshot, as far as they can be had: Icecast, nginx, Janus and ffmpeg
# from Debian, LiveKit from the Go module proxy into out/peers/bin. What cannot be had is named, and is then left out of the run.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
bin=$root/out/peers/bin
mkdir -p "$bin"

# Debian's packages start their services at once, and at each boot: a benchmark wants neither.
declare -A wanted=([icecast2]=icecast2 [nginx-light]=nginx [janus]=janus [ffmpeg]=ffmpeg)
missing=()
for package in "${!wanted[@]}"; do
  command -v "${wanted[$package]}" >/dev/null || [[ -x /usr/sbin/${wanted[$package]} ]] || missing+=("$package")
done
if [[ ${#missing[@]} != 0 ]]; then
  sudo=()
  [[ $(id -u) == 0 ]] || sudo=(sudo -n)
  echo "Installing: ${missing[*]}" >&2
  log=$(mktemp)
  if "${sudo[@]}" apt-get update -qq >"$log" 2>&1 &&
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
    if [[ -d /run/systemd/system ]]; then
      for service in icecast2 nginx janus; do
        [[ " ${missing[*]} " == *" $service"* ]] && "${sudo[@]}" systemctl disable --quiet --now "$service"
      done
    fi
  else
    tail -n 5 "$log" >&2
    echo "Could not install ${missing[*]}: these rows will be missing." >&2
  fi
  rm -f "$log"
fi

# The newest LiveKit that `go install` takes: later ones have replace directives in their go.mod, which it refuses.
livekit=v1.8.4
if ! [[ -x $bin/livekit-server ]]; then
  echo "Building LiveKit $livekit" >&2
  if GOFLAGS='' GOBIN=$bin go install "github.com/livekit/livekit-server/cmd/server@$livekit" >&2; then
    mv "$bin/server" "$bin/livekit-server"
  else
    echo "Could not build LiveKit $livekit: its row will be missing." >&2
  fi
fi

# Earshot in several processes meets at a NATS server, the one of the Go module that it embeds.
if ! [[ -x $bin/nats-server ]]; then
  GOFLAGS='' GOBIN=$bin go install "github.com/nats-io/nats-server/v2@$(cd "$root" && go list -m -f '{{.Version}}' github.com/nats-io/nats-server/v2)" >&2 ||
    echo "Could not build nats-server: the row of several processes will be missing." >&2
fi
exit 0
