#!/usr/bin/env bash
# Clients that need other toolchains, against a cluster of the binary under test: client-go, Helm
# (a Go module), the JavaScript client. What is missing on this machine is said and left out, and
# fails the run unless EVENKEEL_FOREIGN names what is wanted: EVENKEEL_FOREIGN="go helm js".
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
wanted=${EVENKEEL_FOREIGN:-go helm js}
helm_version=v3.22.0
tools=$target/foreign
mkdir -p "$tools"

cargo build --locked -q -p evenkeel
evenkeel=$(realpath "$target/debug/evenkeel")

data=$(mktemp -d "${TMPDIR:-/tmp}/evenkeel-foreign.XXXXXX")
port=$((20000 + RANDOM % 20000))
flags=("--data-dir=$data/data" "--listen=127.0.0.1:$port" --cluster-cidr=10.207.0.0/16
  --service-cidr=10.237.0.0/16 --node-name=foreign --node-port=0 --eviction-hard=)
"$evenkeel" up "${flags[@]}" >"$data/log" 2>&1 &
up=$!
end() {
  code=$?
  trap - EXIT
  [ $code -eq 0 ] || tail -30 "$data/log" >&2
  kill -TERM $up 2>/dev/null || true
  wait $up 2>/dev/null || true
  "$evenkeel" clean "${flags[@]}" >/dev/null 2>&1 || true
  rm -rf "$data"
  exit $code
}
trap end EXIT
export KUBECONFIG=$data/data/kubeconfig
ready() { kubectl get --raw /readyz >/dev/null 2>&1 && kubectl get serviceaccount default >/dev/null 2>&1; }
for _ in $(seq 300); do ready && break; sleep 0.2; done
ready
kubectl wait --for=condition=Ready --timeout=60s node/foreign >/dev/null

# The image of the tests: busybox and its names.
root=$data/root
mkdir -p "$root/bin" "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
for name in $("$root/bin/busybox" --list); do [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"; done
tar -C "$root" -cf "$data/layer.tar" .
digest=$(sha256sum "$data/layer.tar" | cut -d' ' -f1)
mkdir "$data/image"
mv "$data/layer.tar" "$data/image/layer.tar"
printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
  "$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')" "$digest" >"$data/image/config.json"
printf '[{"Config":"config.json","RepoTags":["busybox:test"],"Layers":["layer.tar"]}]' >"$data/image/manifest.json"
tar -C "$data/image" -cf "$data/busybox.tar" manifest.json config.json layer.tar
"$evenkeel" image import "$data/busybox.tar" --as busybox:test --data-dir "$data/data" >/dev/null

missing=()
for client in $wanted; do
  case $client in
    go)
      echo "== client-go"
      if ! command -v go >/dev/null; then missing+=(go); continue; fi
      (cd foreign/go && go build -o "$(realpath "$tools")/client-go" .)
      "$tools/client-go" "$KUBECONFIG"
      ;;
    helm)
      echo "== Helm"
      if ! command -v go >/dev/null; then missing+=(helm); continue; fi
      [ -x "$tools/helm" ] || GOBIN=$(realpath "$tools") go install "helm.sh/helm/v3/cmd/helm@$helm_version"
      HELM_CACHE_HOME=$data/helm HELM_CONFIG_HOME=$data/helm HELM_DATA_HOME=$data/helm \
        foreign/helm.sh "$tools/helm" "$KUBECONFIG"
      ;;
    js)
      echo "== JavaScript"
      if ! command -v npm >/dev/null; then missing+=(js); continue; fi
      cp -r foreign/js "$tools/"
      (cd "$tools/js" && npm install --silent --no-audit --no-fund && node test.mjs "$KUBECONFIG")
      ;;
    *) echo "unknown client $client" >&2; exit 1 ;;
  esac
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "not run, for want of a toolchain: ${missing[*]}" >&2
  exit 1
fi
