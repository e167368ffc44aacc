//! `/healthz`, `/livez`, `/readyz`, with `?verbose` and single checks; what came of them is told at
//! `/metrics/slis`.

use std::sync::Arc;

use http::StatusCode;

use crate::door::Door;
use crate::http::{Answer, page_not_found, text};
use crate::pipeline::Call;
use crate::series::{Counters, Gauges};

/// What the reference does after it has begun to listen, by the names that probes ask for. This door
/// is handed out when its first objects are made and its loops are begun: whoever reaches it finds
/// all of it done.
const BEGUN: [&str; 24] = [
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "storage-object-count-tracker-hook",
    "storage-readiness",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "start-service-ip-repair-controllers",
    "start-cluster-authentication-info-controller",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kube-aggregator-informers",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "apiservice-discovery-controller",
    "kube-apiserver-autoregistration",
    "apiservice-openapi-controller",
    "apiservice-openapiv3-controller",
];

/// What came of the checks, as the reference counts it: those that somebody asked for together.
#[derive(Debug)]
pub(crate) struct Checked {
    last: Gauges,
    all: Counters,
}

impl Default for Checked {
    fn default() -> Self {
        Self {
            last: Gauges::new(
                "kubernetes_healthcheck",
                "[STABLE] This metric records the result of a single healthcheck.",
                &["name", "type"],
            ),
            all: Counters::new(
                "kubernetes_healthchecks_total",
                "[STABLE] This metric records the results of all healthcheck.",
                &["name", "status", "type"],
            ),
        }
    }
}

impl Checked {
    fn count(&self, kind: &str, (name, outcome): &Check) {
        let status = if outcome.is_ok() { "success" } else { "error" };
        self.last.set(&[name, kind], u64::from(outcome.is_ok()));
        self.all.one(&[name, status, kind]);
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.last.write(&mut out);
        self.all.write(&mut out);
        out
    }
}

type Check = (String, Result<(), String>);

/// The names of the checks that are always there, for the list of paths.
pub(super) fn names(kind: &str) -> Vec<String> {
    let before: &[&str] = if kind == "livez" {
        &["ping", "log", "etcd", "store"]
    } else {
        &[
            "ping",
            "log",
            "etcd",
            "store",
            "etcd-readiness",
            "informer-sync",
            "store-writable",
        ]
    };
    let before = before.iter().map(|name| (*name).to_owned());
    before
        .chain(BEGUN.iter().map(|name| format!("poststarthook/{name}")))
        .chain(["autoregister-completion".to_owned()])
        .collect()
}

async fn checks(door: &Arc<Door>, kind: &str) -> Vec<Check> {
    let registry = door.registry();
    let stored = registry.store.revision().await;
    let stored = stored.map(drop).map_err(|error| error.to_string());
    // Reads go on: a start anew would not help, so it is no matter of being alive.
    let writable = if kind == "livez" {
        Ok(())
    } else {
        let writable = registry.store.writable().await;
        writable.map_err(|error| error.to_string())
    };
    let mut checks: Vec<Check> = names(kind)
        .into_iter()
        .map(|name| {
            let outcome = match name.as_str() {
                "etcd" | "store" | "etcd-readiness" => stored.clone(),
                "store-writable" => writable.clone(),
                _ => Ok(()),
            };
            (name, outcome)
        })
        .collect();
    let services = registry.seal.health().await;
    checks.extend(services);
    checks
}

pub(super) async fn serve(door: &Arc<Door>, call: &Call, segments: &[&str]) -> Answer {
    let (kind, one) = match segments {
        [kind] => (*kind, String::new()),
        [kind, check @ ..] => (*kind, check.join("/")),
        [] => ("healthz", String::new()),
    };
    let mut checks = checks(door, kind).await;
    if !one.is_empty() {
        checks.retain(|(name, _)| *name == one);
        return match checks.first() {
            None => page_not_found(),
            Some((_, Ok(()))) => text(StatusCode::OK, "ok"),
            Some((_, Err(why))) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {why}\n"),
            ),
        };
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let made = checks
        .iter()
        .filter(|(name, _)| !excluded.contains(&name.as_str()));
    made.for_each(|check| door.checked().count(kind, check));
    report(kind, &checks, &excluded, call.query.has("verbose"))
}

/// What all checks together come to.
fn report(kind: &str, checks: &[Check], excluded: &[&str], verbose: bool) -> Answer {
    let is_out = |name: &str| excluded.contains(&name);
    let failed = checks
        .iter()
        .any(|(name, outcome)| outcome.is_err() && !is_out(name));
    if !failed && !verbose {
        return text(StatusCode::OK, "ok");
    }
    let mut lines: Vec<String> = checks
        .iter()
        .map(|(name, outcome)| match outcome {
            _ if is_out(name) => format!("[+]{name} excluded: ok"),
            Ok(()) => format!("[+]{name} ok"),
            Err(why) => format!("[-]{name} failed: {why}"),
        })
        .collect();
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|(known, _)| known == *name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(",");
        lines.push(format!(
            "warn: some health checks cannot be excluded: no matches for {unknown}"
        ));
    }
    let verdict = if failed { "failed" } else { "passed" };
    lines.push(format!("{kind} check {verdict}"));
    let code = if failed {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    };
    text(code, lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_counted_and_the_last_one_is_told() {
        let checked = Checked::default();
        assert_eq!(checked.text(), "", "nobody has asked");
        for outcome in [Ok(()), Err("the disk is full".to_owned()), Ok(())] {
            checked.count("readyz", &("store-writable".to_owned(), outcome));
        }
        checked.count("livez", &("ping".to_owned(), Err("no".to_owned())));
        let text = checked.text();
        for line in [
            "# TYPE kubernetes_healthcheck gauge",
            "kubernetes_healthcheck{name=\"store-writable\",type=\"readyz\"} 1",
            "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 0",
            "# TYPE kubernetes_healthchecks_total counter",
            "kubernetes_healthchecks_total{name=\"store-writable\",status=\"success\",type=\"readyz\"} 2",
            "kubernetes_healthchecks_total{name=\"store-writable\",status=\"error\",type=\"readyz\"} 1",
            "kubernetes_healthchecks_total{name=\"ping\",status=\"error\",type=\"livez\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    }
}
