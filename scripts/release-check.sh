#!/usr/bin/env bash
# Tries what release.sh built: release-check.sh VERSION BINARY DEB. The binary must need no library and say its version; the package must
# unpack, and what is in it must serve a demo, be backed up and restored; the unit must be valid and tight.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 binary=$2 deb=$3
fail() { echo "release-check: $*" >&2; exit 1; }

if readelf -d "$binary" 2>/dev/null | grep -q NEEDED; then fail "$binary needs libraries"; fi
[[ $("$binary" --version) == "$version" ]] || fail "$binary does not say that it is $version"

root=$(mktemp -d)
node=
finish() {
  if [[ -n $node ]]; then kill "$node" 2>/dev/null && wait "$node" || true; fi
  rm -rf "$root"
}
trap finish EXIT
dpkg-deb -x "$deb" "$root"
dpkg-deb -e "$deb" "$root/DEBIAN"
for file in postinst prerm postrm; do
  sh -n "$root/DEBIAN/$file" || fail "$file is no shell script"
done
for file in usr/bin/earshot usr/lib/systemd/system/earshot.service usr/lib/sysusers.d/earshot.conf etc/default/earshot usr/share/doc/earshot/copyright; do
  [[ -f $root/$file ]] || fail "$deb lacks $file"
done
# In a folder that holds nothing else, where this user may make that its root: no library, no time zones, no certificates, no shell.
if [[ $(id -u) == 0 ]]; then
  [[ $(chroot "$root" /usr/bin/earshot --version) == "$version" ]] || fail "the binary does not run alone"
fi

earshot=$root/usr/bin/earshot
port=$((20000 + RANDOM % 10000))
"$earshot" serve --demo --listen "127.0.0.1:$port" --udp 127.0.0.1:0 --data "$root/data" >"$root/log" 2>&1 &
node=$!
for _ in {1..100}; do
  kill -0 "$node" 2>/dev/null || { cat "$root/log" >&2; fail "the node ended"; }
  curl -fsS "http://127.0.0.1:$port/readyz" >/dev/null 2>&1 && break
  sleep .1
done
curl -fsS "http://127.0.0.1:$port/api/openapi.json" | grep -q "\"version\":\"$version\"" || fail "the API's document is not of version $version"
curl -fsS "http://127.0.0.1:$port/e/demo" | grep -qi '<!doctype html>' || fail "the event has no page"
"$earshot" backup -q --url "http://127.0.0.1:$port" --data "$root/data" "$root/backup.tar"
kill "$node"
wait "$node" || fail "the node did not end in order"
node=
"$earshot" restore -q "$root/backup.tar" --data "$root/restored"
[[ -f $root/restored/format ]] || fail "nothing was restored"

if command -v systemd-analyze >/dev/null; then
  unit=$root/earshot.service # with a program that is there
  sed "s|^ExecStart=/usr/bin/earshot|ExecStart=$earshot|" packaging/earshot.service >"$unit"
  systemd-analyze verify "$unit" 2>&1 | grep -v -e '^$' -e 'network-online' >"$root/complaints" || true
  if grep -q earshot.service "$root/complaints"; then cat "$root/complaints" >&2; fail "the unit is not valid"; fi
  systemd-analyze security --offline=true --threshold=20 "$unit" >"$root/security" || { cat "$root/security" >&2; fail "the unit is not tight"; }
  tail -n 1 "$root/security"
fi
echo "release-check: $version is fine"
