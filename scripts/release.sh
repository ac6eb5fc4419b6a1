#!/usr/bin/env bash
# Builds what is handed out: release.sh VERSION. In out/release then lie the static binary, the Debian package and their sums, and all of it
# was tried (release-check.sh). The same commit gives the same bytes, where Go and libopus are the same.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
umask 022

arch=$(dpkg --print-architecture)
out=out/release
rm -rf "$out"
mkdir -p "$out"
binary=$out/earshot-$version-linux-$arch
scripts/static.sh "$version" "$binary"

# A version of Debian's begins with a digit; of a commit without a tag only its name is known.
deb=${version#v}
[[ $deb =~ ^[0-9] && $deb == *.* ]] || deb=0~$deb
deb=${deb//[^A-Za-z0-9.+~]/+}

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
install -D -m 755 "$binary" "$tree/usr/bin/earshot"
install -D -m 644 packaging/earshot.service "$tree/usr/lib/systemd/system/earshot.service"
install -D -m 644 packaging/earshot.sysusers "$tree/usr/lib/sysusers.d/earshot.conf"
install -D -m 640 packaging/earshot.default "$tree/etc/default/earshot"
install -D -m 644 LICENSE "$tree/usr/share/doc/earshot/copyright"
install -m 644 README.md PROTOCOL.md CHANGES.md "$tree/usr/share/doc/earshot/"
# Its code is in the binary, and its licence asks to be with it.
install -m 644 /usr/share/doc/libopus-dev/copyright "$tree/usr/share/doc/earshot/copyright.libopus"
install -d -m 755 "$tree/DEBIAN"
install -m 755 packaging/postinst packaging/prerm packaging/postrm "$tree/DEBIAN/"
echo /etc/default/earshot >"$tree/DEBIAN/conffiles"
cat >"$tree/DEBIAN/control" <<END
Package: earshot
Version: $deb
Architecture: $arch
Maintainer: the Earshot authors <earshot@localhost>
Section: sound
Priority: optional
Installed-Size: $(du -k -s "$tree" | cut -f1)
Depends: passwd
Recommends: ca-certificates, ffmpeg
Description: live voice event server
 A host and speakers talk from their browsers; anyone with the link listens.
 One program, one folder of data; the store runs inside it.
END
dpkg-deb --root-owner-group --build "$tree" "$out/earshot_${deb}_$arch.deb" >/dev/null

scripts/release-check.sh "$version" "$binary" "$out/earshot_${deb}_$arch.deb"
(cd "$out" && sha256sum -- * >SHA256SUMS)
ls -l "$out"
