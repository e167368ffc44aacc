//! What the scheduler says of its last decision about a pod: which node failed what, which scored
//! how.
//!
//! It is read from the running process, under `/debug/scheduler/trace/NAMESPACE/NAME`. Who may
//! not read that, or asks a cluster that does not have it, gets the chain without it.

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::Value;

use crate::chain::Chain;

/// Adds the decision to a pod's chain.
pub(crate) async fn tell(client: &Client, pod: &Pod, chain: &mut Chain) {
    let meta = &pod.metadata;
    let path = format!(
        "/debug/scheduler/trace/{}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    );
    let Ok(request) = http::Request::get(&path).body(Vec::new()) else {
        return;
    };
    match client.request::<Value>(request).await {
        // An older pod of the same name is not meant.
        Ok(trace) if trace["pod"]["uid"].as_str() == meta.uid.as_deref() => write(&trace, chain),
        Err(kube::Error::Api(status)) if status.code == 403 && !chain.is_healthy() => {
            chain.step(format!(
                "to see each node's reason, have get on {path} given to you (nonResourceURLs)"
            ));
        }
        // Nothing is known there, which is no reason to say nothing at all.
        _ => {}
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn write(trace: &Value, chain: &mut Chain) {
    let count = |name: &str| trace[name].as_u64().unwrap_or(0);
    let counts = format!(
        "of {} nodes it looked at {}, {} can take the pod",
        count("nodes"),
        count("evaluated"),
        count("feasible")
    );
    let at = text(trace, "at");
    match trace["node"].as_str() {
        Some(node) => chain.link("Scheduler", format!("chose {node} at {at}; {counts}")),
        None => chain.link(
            "Scheduler",
            format!(
                "found no node at {at}, in try {}; {counts}",
                count("attempts")
            ),
        ),
    }
    for score in list(trace, "scores") {
        let plugins: Vec<String> = score["plugins"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(plugin, points)| format!("{plugin} {points}"))
            .collect();
        chain.detail(format!(
            "{} scored {}: {}",
            text(score, "node"),
            score["total"],
            plugins.join(", ")
        ));
    }
    let rejections = list(trace, "rejections");
    for rejection in rejections {
        let reasons: Vec<&str> = list(rejection, "reasons")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut line = format!(
            "{} failed {}: {}",
            text(rejection, "node"),
            text(rejection, "plugin"),
            reasons.join(", ")
        );
        if let Some(detail) = rejection["detail"].as_str() {
            line.push_str(&format!(" ({detail})"));
        }
        chain.detail(line);
    }
    let told = u64::try_from(rejections.len()).unwrap_or(u64::MAX);
    let rejected = count("evaluated").saturating_sub(count("feasible"));
    if rejected > told && told > 0 {
        chain.detail(format!("and {} nodes more", rejected - told));
    }
    let preemption = &trace["preemption"];
    if !preemption.is_null() {
        let victims: Vec<&str> = list(preemption, "victims")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        chain.detail(format!(
            "makes room on {} by evicting {}",
            text(preemption, "node"),
            victims.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decision_is_told_node_by_node() {
        let trace = json!({
            "at": "2026-01-01T00:00:00Z", "attempts": 2, "node": null,
            "nodes": 40, "evaluated": 40, "feasible": 0, "scores": [],
            "rejections": [{"node": "a", "plugin": "NodeResourcesFit",
                "reasons": ["Insufficient cpu"], "detail": "cpu: 500m wanted, 100m of 1000m free"}],
            "preemption": {"node": "a", "victims": ["default/b"], "budgetViolations": 0},
        });
        let mut chain = Chain::default();
        chain.link("Pod default/web", "has no node");
        write(&trace, &mut chain);
        assert_eq!(
            chain.to_string(),
            "Pod default/web: has no node\n\
             └─ Scheduler: found no node at 2026-01-01T00:00:00Z, in try 2; of 40 nodes it looked \
             at 40, 0 can take the pod\n   \
             - a failed NodeResourcesFit: Insufficient cpu (cpu: 500m wanted, 100m of 1000m free)\n   \
             - and 39 nodes more\n   \
             - makes room on a by evicting default/b\n"
        );
    }
}
