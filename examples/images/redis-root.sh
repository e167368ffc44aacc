#!/usr/bin/env bash
# Makes a root directory with Debian's redis-server and the libraries it needs: redis-root.sh ROOT
# The packages are downloaded and unpacked, not installed: no daemon starts on this machine.
set -euo pipefail
root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

packages="redis-server redis-tools libc6 libgcc-s1 libatomic1 libjemalloc2 liblua5.1-0 lua-bitop lua-cjson liblzf1 libssl3 libsystemd0 libcap2 liblz4-1 liblzma5 libzstd1 libgcrypt20 libgpg-error0"
download() { (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root $packages >/dev/null); }
# A machine that has never asked has no list of packages yet.
download 2>/dev/null || {
  sudo=""
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  $sudo apt-get update -qq
  download
}
mkdir "$work/all"
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/all"; done

rm -rf "$root"
mkdir -p "$root"/{usr/bin,data,tmp,etc}
chmod 1777 "$root/tmp"
cp -L "$work/all/usr/bin/redis-server" "$root/usr/bin/"
cp -L "$work/all/usr/bin/redis-cli" "$root/usr/bin/"
# The libraries that the two programs name, found among the unpacked packages.
libraries=$(find "$work/all/lib" "$work/all/usr/lib" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
loader=$(find "$work/all" -name 'ld-linux*' | head -n1)
"$loader" --library-path "$libraries" --list "$work/all/usr/bin/redis-server" |
  awk '/=> \//{print $3}' | sort -u | while read -r library; do
    mkdir -p "$root/lib"
    cp -L "$library" "$root/lib/"
  done
case $(uname -m) in x86_64) place=lib64 ;; *) place=lib ;; esac
mkdir -p "$root/$place"
cp -L "$loader" "$root/$place/"
