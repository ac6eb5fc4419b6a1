#!/usr/bin/env bash
# Makes sure that what building (need.sh build) or testing (need.sh test) needs is on this machine: installs missing Debian
# packages where it may, else names them.
set -euo pipefail

declare -A packages=() # Debian packages that are missing
gi_has() { /usr/bin/python3 -c "import gi; gi.require_version('$1', '1.0')"; }
need() { if ! eval "$2" >/dev/null 2>&1; then packages[$1]=1; fi; }

for tool in go node npm; do
  if ! command -v "$tool" >/dev/null; then
    echo "Earshot is built with Go 1.26, Node 20 and npm; '$tool' is not on this machine's PATH." >&2
    exit 1
  fi
done
need gcc 'command -v gcc'
need pkg-config 'command -v pkg-config'
need libopus-dev 'pkg-config --exists opus'
if [[ ${1:-build} == test ]]; then
  need chromium 'command -v chromium'
  need ffmpeg 'command -v ffmpeg && command -v ffprobe'
  need espeak-ng 'command -v espeak-ng'
  need strace 'command -v strace'
  need gstreamer1.0-tools 'command -v gst-launch-1.0'
  need gstreamer1.0-plugins-base 'gst-inspect-1.0 opusenc'
  need gstreamer1.0-plugins-good 'gst-inspect-1.0 rtpopuspay'
  need gstreamer1.0-plugins-bad 'gst-inspect-1.0 webrtcbin'
  need gstreamer1.0-nice 'gst-inspect-1.0 nicesrc'
  need python3-gi '/usr/bin/python3 -c "import gi"'
  need gir1.2-gst-plugins-base-1.0 'gi_has GstSdp'
  need gir1.2-gst-plugins-bad-1.0 'gi_has GstWebRTC'
  need curl 'command -v curl'
  need openssl 'command -v openssl'
fi
[[ ${#packages[@]} == 0 ]] && exit 0

missing=$(printf '%s\n' "${!packages[@]}" | sort | tr '\n' ' ')
sudo=()
if [[ $(id -u) != 0 ]]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo=(sudo -n); else sudo=(false); fi
fi
if [[ ${sudo[0]:-} != false ]] && command -v apt-get >/dev/null; then
  echo "Installing: $missing" >&2
  log=$(mktemp)
  # shellcheck disable=SC2086 # the list is words
  if "${sudo[@]}" apt-get update -qq >"$log" 2>&1 &&
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends $missing >>"$log" 2>&1; then
    rm -f "$log"
    exit 0
  fi
  tail -n 20 "$log" >&2
  rm -f "$log"
fi
echo "Missing on this machine: $missing" >&2
echo "Install it, on Debian with:  apt-get install $missing" >&2
exit 1
