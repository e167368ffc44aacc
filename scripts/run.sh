#!/usr/bin/env bash
# Starts a cluster and the shop: run.sh BINARY IMAGES. Run again, it comes back on the same data.
set -euo pipefail
binary=$1 images=$2
here=$(cd "$(dirname "$0")/.." && pwd)
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
log=$DATA/evenkeel.log
say() { printf '  %s\n' "$*"; }
fail() {
  printf 'make run: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

$sudo mkdir -p "$DATA"
export KUBECONFIG=$DATA/kubeconfig
answers() { $sudo curl -sk -o /dev/null -m 1 "https://$LISTEN/readyz"; }

if answers; then
  say "a cluster runs at $LISTEN already"
else
  say "starting evenkeel (log: $log)"
  # In a session of its own, so that it outlives this terminal.
  $sudo setsid nohup "$binary" up --data-dir "$DATA" --listen "$LISTEN" </dev/null >/dev/null 2>>"$log" &
  for _ in $(seq 300); do
    answers && break
    kill -0 $! 2>/dev/null || fail "evenkeel ended:" "$($sudo tail -n 3 "$log")"
    sleep 0.05
  done
  answers || fail "the API server did not get ready in 15 s; see $log"
fi

say "loading images"
for image in shop redis; do
  $sudo "$binary" image import "$images/$image.tar" --data-dir "$DATA" >/dev/null ||
    fail "the image $images/$image.tar can't be loaded"
done

say "applying examples/shop"
kubectl="$sudo kubectl --kubeconfig $KUBECONFIG"
for _ in $(seq 50); do
  $kubectl get serviceaccount default >/dev/null 2>&1 && break
  sleep 0.1
done
$kubectl apply -f "$here/examples/shop" >/dev/null || fail "kubectl apply failed"
for deployment in session-cache shop; do
  $kubectl rollout status "deployment/$deployment" --timeout=60s >/dev/null ||
    fail "deployment/$deployment is not ready:" "$($sudo "$binary" why "deployment/$deployment" --data-dir "$DATA" 2>&1)"
done

url=http://127.0.0.1:30080/
for _ in $(seq 50); do
  reply=$(curl -s -m 2 "$url") && break
  sleep 0.1
done
[ -n "${reply:-}" ] || fail "the shop does not answer at $url" "kubectl --kubeconfig $KUBECONFIG get pods"

cat <<TEXT

The shop serves:   $url
  it says:         $reply
  order something: curl -X POST ${url}orders
Use kubectl:       export KUBECONFIG=$KUBECONFIG
                   kubectl get pods -A
Ask why:           $binary why deployment/shop --data-dir $DATA
Stop:              make stop            (containers go on; make run comes back to them)
Remove:            make clean-cluster
TEXT
