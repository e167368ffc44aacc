#!/usr/bin/env bash
# Installs the Debian packages that building, testing and running need and that are missing.
set -euo pipefail

declare -A needs=(
  [cc]=gcc
  [curl]=curl
  [nft]=nftables
  [ip]=iproute2
  [busybox]=busybox-static
  [kubectl]=kubernetes-client
)
missing=()
for command in "${!needs[@]}"; do
  command -v "$command" >/dev/null || [ -x "/usr/sbin/$command" ] || missing+=("${needs[$command]}")
done
# A static program needs the C library's archive.
[ -e /usr/lib/x86_64-linux-gnu/libc.a ] || [ -e /usr/lib/aarch64-linux-gnu/libc.a ] || missing+=(libc6-dev)

if ! command -v cargo >/dev/null; then
  echo "cargo is missing: install a Rust toolchain (1.90 or newer), then run this again" >&2
  exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
echo "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
