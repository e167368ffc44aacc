#!/usr/bin/env bash
# The answers of the binary under test beside those of the real kube-apiserver, which is built from
# its public Go module: once, outside the checkout (some 20 minutes of two cores, 0.8 GB beside
# Go's own cache). Usage: compare-reference.sh [PART...] [OPTION...]; foreign/reference/compare.py
# says which there are, and what --write-known does.
# EVENKEEL names another binary than the release build.
set -euo pipefail
cd "$(dirname "$0")/.."
version=1.37.0
libraries=v0.37.0 # of the modules that are developed within Kubernetes' own repository
target=${CARGO_TARGET_DIR:-target}
evenkeel=${EVENKEEL:-$target/release/evenkeel}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/evenkeel/reference
reference=$cache/kube-apiserver-$version
# Parts end by themselves in a few minutes; a server that hangs must not hold the run for hours.
limit=900

missing=()
[ -x "$evenkeel" ] || missing+=("$evenkeel (make build)")
[ -x "$reference" ] || command -v go >/dev/null || missing+=("go (the toolchain that go.mod of Kubernetes $version asks for)")
etcd=$(command -v etcd || true)
[ -n "$etcd" ] || missing+=("etcd (Debian's etcd-server: make packages)")
# The Python that has yaml is Debian's, where another stands before it on PATH.
python=
for each in python3 /usr/bin/python3; do
  "$each" -c 'import yaml' 2>/dev/null && { python=$each; break; }
done
[ -n "$python" ] || missing+=("python3 with yaml (Debian's python3-yaml)")
if [ ${#missing[@]} -gt 0 ]; then
  printf 'missing: %s\n' "${missing[@]}" >&2
  exit 1
fi

data=$(mktemp -d "${TMPDIR:-/tmp}/evenkeel-reference.XXXXXX")
started=()
# What the servers keep is thrown away, so that none of them need end in good order.
end() {
  code=$?
  trap - EXIT
  [ -z "${comparing:-}" ] || kill -TERM "$comparing" 2>/dev/null || true
  for pid in "${started[@]}"; do
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$data"
  exit $code
}
trap end EXIT
trap 'exit 130' INT TERM

# Kubernetes names its own libraries by folders of its repository, which the module lacks: they are
# modules too, so its go.mod serves once these names lead to them.
build() {
  mkdir -p "$cache"
  export GOPATH=$cache/gp GOFLAGS="-mod=mod -modcacherw" GOWORK=off
  work=$data/build
  mkdir "$work"
  go mod download -json "k8s.io/kubernetes@v$version" >"$work/module.json"
  upstream=$("$python" -c 'import json, sys; print(json.load(sys.stdin)["GoMod"])' <"$work/module.json")
  cat "$upstream" >"$work/go.mod"
  cd "$work"
  go mod edit -module=reference "-require=k8s.io/kubernetes@v$version"
  for library in $(go mod edit -json | "$python" -c '
import json, sys
for each in json.load(sys.stdin)["Replace"]:
    if each["New"]["Path"].startswith("./"):
        print(each["Old"]["Path"])'); do
    go mod edit "-replace=$library=$library@$libraries"
  done
  names=k8s.io/component-base/version
  nice -n 10 go build -o "$reference.part" -ldflags "-s -w -X $names.gitVersion=v$version \
    -X $names.gitMajor=${version%%.*} -X $names.gitMinor=$(cut -d. -f2 <<<"$version")" \
    k8s.io/kubernetes/cmd/kube-apiserver
  mv "$reference.part" "$reference"
}
if [ ! -x "$reference" ]; then
  echo "building kube-apiserver $version into $cache (some 20 minutes, once)"
  (build)
fi

port=$((20000 + RANDOM % 20000))
services=10.200.0.0/16
run() {
  name=$1
  shift
  "$@" >"$data/$name.log" 2>&1 &
  started+=($!)
}
# Nothing here outlives the run, so nothing need reach the disk.
run etcd "$etcd" "--data-dir=$data/etcd" --unsafe-no-fsync \
  "--listen-client-urls=http://127.0.0.1:$((port + 2))" \
  "--advertise-client-urls=http://127.0.0.1:$((port + 2))" \
  "--listen-peer-urls=http://127.0.0.1:$((port + 3))"
run evenkeel "$evenkeel" up --no-node "--data-dir=$data/evenkeel" "--listen=127.0.0.1:$port" \
  --cluster-cidr=10.170.0.0/16 "--service-cidr=$services"
kubeconfig=$data/evenkeel/kubeconfig
for _ in $(seq 300); do [ -s "$kubeconfig" ] && break; sleep 0.1; done
[ -s "$kubeconfig" ] || { tail -20 "$data/evenkeel.log" >&2; exit 1; }

# One certificate for both: the reference trusts Evenkeel's authority. What it signs tokens with does
# not matter, so it is given the one key that comes with a certificate in a form that it reads.
pki=$data/evenkeel/pki
run reference "$reference" "--etcd-servers=http://127.0.0.1:$((port + 2))" \
  --bind-address=127.0.0.1 "--secure-port=$((port + 1))" "--cert-dir=$data/certificates" \
  "--client-ca-file=$pki/ca.crt" "--service-cluster-ip-range=$services" \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
  "--service-account-key-file=$pki/apiserver.crt" \
  "--service-account-signing-key-file=$pki/apiserver.key" \
  --service-account-issuer=https://kubernetes.default.svc --enable-aggregator-routing=true \
  "--requestheader-client-ca-file=$pki/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client \
  --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
  --requestheader-extra-headers-prefix=X-Remote-Extra-


# A server that cannot start is told of at once.
alive() {
  for pid in "${started[@]}"; do kill -0 "$pid" 2>/dev/null || return 1; done
}
ended() {
  echo "a server ended by itself; the ends of the logs:" >&2
  tail -n 5 "$data"/*.log >&2
  exit 1
}
for _ in $(seq 600); do
  alive || ended
  (exec 3<>"/dev/tcp/127.0.0.1/$((port + 1))") 2>/dev/null && break
  sleep 0.2
done

mkdir -p "$target/reference"
code=0
PYTHONDONTWRITEBYTECODE=1 timeout "$limit" "$python" foreign/reference/compare.py \
  --servers "https://127.0.0.1:$port" "https://127.0.0.1:$((port + 1))" "$kubeconfig" \
  --report "$target/reference/report.txt" "$@" &
# A command that is waited for in the background lets a signal end the run at once.
comparing=$!
wait "$comparing" || code=$?
comparing=
alive || ended
[ $code -ne 124 ] || echo "not done within $limit s" >&2
echo "the first case of each difference, uncut: $target/reference/report.txt"
exit $code
