//! What tracking owners costs: `cargo test --release -p evenkeel-api cost_of -- --ignored
//! --nocapture`.

use serde_json::{Value, json};

use super::{ManagerRequest, track_update};
use crate::row::Rows;

fn measure(kind: (&str, &str), object: &Value, live: Option<&Value>) -> f64 {
    const ROUNDS: u32 = 20_000;
    let rows = Rows::builtin();
    let row = rows.by_kind(kind.0, "v1", kind.1).expect("there");
    let (schema, ty, version) = (rows.schema(), rows.ty(row), row.gvk.api_version());
    let request = ManagerRequest {
        manager: "bench",
        subresource: "",
        api_version: &version,
        now: "2026-01-01T00:00:00Z".parse().expect("a time"),
        custom: None,
    };
    let mut copies: Vec<Value> = vec![object.clone(); ROUNDS as usize];
    #[allow(
        clippy::disallowed_methods,
        reason = "a benchmark measures the real clock"
    )]
    let start = std::time::Instant::now();
    for new in &mut copies {
        track_update(schema, &ty, live, new, &request);
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
}

#[test]
#[ignore = "a measurement"]
fn cost_of_track_update() {
    let metadata = json!({"name": "cm-1", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "bench"}});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "x".repeat(480), "b": "x".repeat(480)}});
    println!(
        "create 1 KiB ConfigMap: {:.2} µs",
        measure(("", "ConfigMap"), &map, None)
    );
    let mut tracked = map.clone();
    tracked["metadata"]["managedFields"] = json!([{"manager": "bench", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}, "f:a": {}, "f:b": {}}, "f:metadata": {"f:labels": {".": {}, "f:app": {}}}}}]);
    let mut changed = map;
    changed["data"]["a"] = json!("y");
    println!(
        "update 1 KiB ConfigMap: {:.2} µs",
        measure(("", "ConfigMap"), &changed, Some(&tracked))
    );
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web:1", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "resources": {"limits": {"cpu": "1"}}}]}}}});
    println!(
        "create Deployment: {:.2} µs",
        measure(("apps", "Deployment"), &deployment, None)
    );
}
