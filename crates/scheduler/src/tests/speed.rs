//! Figures, on demand: `cargo test -p evenkeel-scheduler -- --ignored --nocapture figures`.

use std::sync::Arc;

use evenkeel_client::{Change, ObjectKey};
use serde_json::json;
use tokio::time::Instant;

use super::objects::{node_with, pod_with};
use crate::core::{Action, Core};
use crate::plugins::default_placement;

fn pods_per_second(nodes: usize, pods: usize, spec: &serde_json::Value) -> f64 {
    let mut core = Core::new(default_placement(), 1);
    let began = Instant::now();
    for at in 0..nodes {
        let more = json!({"metadata": {"labels": {
            "topology.kubernetes.io/zone": format!("zone-{}", at % 3)}}});
        let node = node_with(&format!("node-{at}"), 8000, 16384, &more);
        let change = Change {
            key: ObjectKey::of(&node),
            old: None,
            new: Some(Arc::new(node)),
        };
        core.node(&change, began);
    }
    for at in 0..pods {
        let more = json!({"metadata": {"labels": {"app": "web"}}, "spec": spec});
        let pod = pod_with(&format!("pod-{at}"), 100, &more);
        let change = Change {
            key: ObjectKey::of(&pod),
            old: None,
            new: Some(Arc::new(pod)),
        };
        core.pod(&change, began);
    }
    let began = std::time::Instant::now();
    let mut bound: u32 = 0;
    while let Some(action) = core.cycle(Instant::now()) {
        bound += u32::from(matches!(action, Action::Bind { .. }));
    }
    f64::from(bound) / began.elapsed().as_secs_f64()
}

#[test]
#[ignore = "prints figures, asserts nothing"]
fn figures() {
    let selector = json!({"matchLabels": {"app": "web"}});
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "labelSelector": selector,
        "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}]});
    let away = json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}]}}});
    let rows = [
        ("one node", 1, 50, json!({})),
        ("1,000 nodes", 1000, 3000, json!({})),
        ("5,000 nodes", 5000, 3000, json!({})),
        ("1,000 nodes, hard spread over hosts", 1000, 1000, spread),
        (
            "1,000 nodes, hard anti-affinity over hosts",
            1000,
            1000,
            away,
        ),
    ];
    for (what, nodes, pods, spec) in rows {
        let rate = pods_per_second(nodes, pods, &spec);
        println!("{what}: {rate:.0} decisions/s");
    }
}
