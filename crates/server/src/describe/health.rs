//! `/healthz`, `/livez`, `/readyz`, with `?verbose` and single checks.

use std::sync::Arc;

use http::StatusCode;

use crate::door::Door;
use crate::http::{Answer, page_not_found, text};
use crate::pipeline::Call;

pub(super) async fn serve(door: &Arc<Door>, call: &Call, segments: &[&str]) -> Answer {
    let (kind, one) = match segments {
        [kind, check, ..] => (*kind, Some(*check)),
        [kind] => (*kind, None),
        [] => ("healthz", None),
    };
    let mut checks: Vec<(&str, Result<(), String>)> = vec![("ping", Ok(()))];
    let stored = door
        .registry()
        .store
        .revision()
        .await
        .map(drop)
        .map_err(|e| e.to_string());
    checks.push(("etcd", stored.clone()));
    checks.push(("store", stored));
    if kind != "livez" {
        checks.push(("informer-sync", Ok(())));
        // Reads go on: a start anew would not help, so it is no matter of being alive.
        let writable = door.registry().store.writable().await;
        checks.push(("store-writable", writable.map_err(|e| e.to_string())));
    }
    let services = door.registry().seal.health().await;
    for (name, outcome) in &services {
        checks.push((name, outcome.clone()));
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    checks.retain(|(name, _)| !excluded.contains(name) && one.is_none_or(|one| one == *name));
    if checks.is_empty() {
        return page_not_found();
    }
    let failed = checks.iter().any(|(_, outcome)| outcome.is_err());
    if !failed && !call.query.has("verbose") {
        return text(StatusCode::OK, "ok");
    }
    let mut lines: Vec<String> = checks
        .iter()
        .map(|(name, outcome)| match outcome {
            Ok(()) => format!("[+]{name} ok"),
            Err(why) => format!("[-]{name} failed: {why}"),
        })
        .collect();
    let verdict = if failed { "failed" } else { "passed" };
    lines.push(format!("{kind} check {verdict}"));
    let code = if failed {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    };
    text(code, lines.join("\n") + "\n")
}
