#!/usr/bin/env bash
# Helm against a live cluster: installs, upgrades, rolls back and uninstalls a chart of some 200
# objects. Usage: helm.sh HELM KUBECONFIG
set -euo pipefail
helm=$1
export KUBECONFIG=$2
chart=$(dirname "$0")/chart
space=(--namespace helm)

# What is served to a browser of the release, by the service's proxy.
says() { kubectl get --raw "/api/v1/namespaces/helm/services/fleet:http/proxy/"; }
expect() { [ "$1" = "$2" ] || { echo "expected $2, found $1" >&2; exit 1; }; }
revision() { "$helm" list "${space[@]}" -o json | sed -n 's/.*"revision":"\([0-9]*\)".*"status":"\([a-z]*\)".*/\1 \2/p'; }

echo "install"
"$helm" install fleet "$chart" "${space[@]}" --create-namespace --wait --timeout 180s >/dev/null
expect "$(revision)" "1 deployed"
expect "$(says)" "one"
expect "$(kubectl get ships flagship -n helm -o 'jsonpath={.spec.message}')" "one"
kubectl get roles,sts,cronjobs,hpa,netpol -n helm -o name | wc -l | grep -qx 100
"$helm" test fleet "${space[@]}" --timeout 120s >/dev/null

echo "upgrade"
"$helm" upgrade fleet "$chart" "${space[@]}" --set message=two,teams=15 --wait --timeout 180s >/dev/null
expect "$(revision)" "2 deployed"
expect "$(says)" "two"
kubectl get roles,sts,cronjobs,hpa,netpol -n helm -o name | wc -l | grep -qx 75

echo "an upgrade that is refused changes nothing for long"
if "$helm" upgrade fleet "$chart" "${space[@]}" --set replicas=-1 --atomic --timeout 60s 2>/tmp/helm-refused.$$; then
  echo "it was not refused" >&2; exit 1
fi
grep -q 'must be greater than or equal to 0' /tmp/helm-refused.$$
rm -f /tmp/helm-refused.$$
expect "$(says)" "two"

echo "rollback"
"$helm" rollback fleet 1 "${space[@]}" --wait --timeout 180s >/dev/null
expect "$(says)" "one"
kubectl get roles,sts,cronjobs,hpa,netpol -n helm -o name | wc -l | grep -qx 100
"$helm" get manifest fleet "${space[@]}" | kubectl diff -n helm -f - >/dev/null

echo "uninstall"
"$helm" uninstall fleet "${space[@]}" --wait --timeout 180s >/dev/null
expect "$(kubectl get roles,sts,cronjobs,hpa,netpol,deploy,ingress -n helm -o name)" ""
expect "$("$helm" list "${space[@]}" -a -q)" ""
kubectl delete namespace helm --timeout=60s >/dev/null
kubectl delete crd ships.helm.example.com --timeout=60s >/dev/null
echo "all good"
