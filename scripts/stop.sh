#!/usr/bin/env bash
# Stops the cluster on $DATA: stop.sh BINARY [--remove]. With --remove nothing of it stays.
set -euo pipefail
binary=$1 remove=${2:-}
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
pids() { pgrep -f "evenkeel up --data-dir $DATA( |\$)" || true; }

for pid in $(pids); do $sudo kill -TERM "$pid" 2>/dev/null || true; done
for _ in $(seq 200); do
  [ -z "$(pids)" ] && break
  sleep 0.05
done
[ -z "$(pids)" ] || { echo "evenkeel does not stop: processes $(pids)" >&2; exit 1; }
echo "stopped"
[ "$remove" = --remove ] || exit 0

if [ -e "$DATA" ]; then
  [ -x "$binary" ] || { echo "$binary is missing: run make build first" >&2; exit 1; }
  $sudo "$binary" clean --data-dir "$DATA"
  $sudo rm -rf "$DATA"
fi
echo "removed $DATA, and what it had in the kernel"
