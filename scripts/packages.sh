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
  [etcd]=etcd-server
  [etcdctl]=etcd-client
)
missing=()
for command in "${!needs[@]}"; do
  command -v "$command" >/dev/null || [ -x "/usr/sbin/$command" ] || missing+=("${needs[$command]}")
done
# The Python client is for the Python that is Debian's own.
/usr/bin/python3 -c 'import kubernetes' 2>/dev/null || missing+=(python3-kubernetes)
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
# Debian's etcd-server enables and starts a service of that name. The tests start their own, on
# addresses of their own, and nobody asked for one that runs for ever: so services may not start
# during the installation, unless this machine has said already what may.
policy=/usr/sbin/policy-rc.d
quiet=""
if [[ " ${missing[*]} " == *" etcd-server "* ]] && [ ! -e "$policy" ]; then
  quiet=yes
  trap '$sudo rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
  $sudo chmod 755 "$policy"
fi
$sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
if [[ " ${missing[*]} " == *" etcd-server "* ]] && [ -d /run/systemd/system ]; then
  # It would start with the machine otherwise.
  $sudo systemctl disable --quiet etcd.service || true
fi
[ -z "$quiet" ] || $sudo rm -f "$policy"
