#!/usr/bin/env bash
# Stops the cluster on $DATA: stop.sh BINARY [--remove]. With --remove nothing of it stays.
set -euo pipefail
binary=$1 remove=${2:-}
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
file=$DATA/evenkeel.pid

# The process that serves $DATA holds a lock on the file with its id.
runs() { [ -s "$file" ] && ! $sudo flock --nonblock --shared "$file" true; }

if runs; then $sudo kill -TERM "$($sudo cat "$file")"; fi
for _ in $(seq 200); do
  runs || break
  sleep 0.05
done
if runs; then
  echo "evenkeel does not stop: process $($sudo cat "$file")" >&2
  exit 1
fi
echo "stopped"
[ "$remove" = --remove ] || exit 0

if [ -e "$DATA" ]; then
  [ -x "$binary" ] || { echo "$binary is missing: run make build first" >&2; exit 1; }
  $sudo "$binary" clean --data-dir "$DATA"
  $sudo rm -rf "$DATA"
fi
echo "removed $DATA, and what it had in the kernel"
