//! What tracking owners costs: `cargo test --release -p evenkeel-api cost_of -- --ignored
//! --nocapture`.

use serde_json::{Value, json};

use super::{ManagerRequest, OneVersion, track_update};
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
        versions: &OneVersion,
    };
    let mut copies: Vec<Value> = vec![object.clone(); ROUNDS as usize];
    #[allow(
        clippy::disallowed_methods,
        reason = "a benchmark measures the real clock"
    )]
    let start = std::time::Instant::now();
    for new in &mut copies {
        track_update(schema, &ty, live, new, &request).expect("tracked");
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

/// A pod as a ReplicaSet makes it and the scheduler has bound it, and its first status.
fn bound_pod() -> (Value, Value) {
    let time = "2026-01-01T00:00:00Z";
    let owned = |manager: &str, fields: Value| {
        json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    };
    let container = json!({".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
        "f:resources": {".": {}, "f:requests": {".": {}, "f:cpu": {}, "f:memory": {}}},
        "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}});
    let mut spec = json!({});
    for name in [
        "dnsPolicy",
        "enableServiceLinks",
        "restartPolicy",
        "schedulerName",
        "securityContext",
        "terminationGracePeriodSeconds",
    ] {
        spec[format!("f:{name}")] = json!({});
    }
    spec["f:containers"] = json!({"k:{\"name\":\"main\"}": container});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": "web-6d4cf56db6-abcde", "generateName": "web-6d4cf56db6-", "namespace": "load",
            "uid": "5f0c8a52-8ad5-4ba1-8e34-0f6cd4b6a0d1", "creationTimestamp": time, "generation": 1,
            "labels": {"app": "web", "pod-template-hash": "6d4cf56db6"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d4cf56db6",
                "uid": "0c8a525f-8ad5-4ba1-8e34-0f6cd4b6a0d1", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [owned("evenkeel", json!({"f:metadata": {"f:generateName": {},
                "f:labels": {".": {}, "f:app": {}, "f:pod-template-hash": {}},
                "f:ownerReferences": {".": {}, "k:{\"uid\":\"0c8a525f-8ad5-4ba1-8e34-0f6cd4b6a0d1\"}": {}}},
                "f:spec": spec}))]},
        "spec": {"volumes": [{"name": "kube-api-access-x2x4z", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef":
                    {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}],
            "containers": [{"name": "main", "image": "pause", "imagePullPolicy": "IfNotPresent",
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "volumeMounts": [{"name": "kube-api-access-x2x4z", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "serviceAccount": "default", "nodeName": "node-0001",
            "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true,
            "priority": 0, "preemptionPolicy": "PreemptLowerPriority", "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 300}]},
        "status": {"phase": "Pending", "qosClass": "Burstable", "conditions": [
            {"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": time}]}});
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": time});
    let status = json!({"status": {"phase": "Running", "startTime": time, "podIP": "10.244.0.9",
        "podIPs": [{"ip": "10.244.0.9"}], "hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}],
        "conditions": [condition("PodReadyToStartContainers"), condition("Initialized"),
            condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
        "containerStatuses": [{"name": "main", "image": "pause", "imageID": "pause",
            "containerID": "simulated://0", "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": time}}}]}});
    (pod, status)
}

/// What each pass over a pod costs when its node reports it.
#[test]
#[ignore = "a measurement"]
#[allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures the real clock"
)]
fn cost_of_a_status_patch() {
    const ROUNDS: u32 = 20_000;
    let rows = Rows::builtin();
    let row = rows.by_kind("", "v1", "Pod").expect("there");
    let (schema, ty) = (rows.schema(), rows.ty(row));
    let (pod, status) = bound_pod();
    let stored = crate::json::encode(&pod).bytes;
    let sent = serde_json::to_vec(&status).expect("JSON");
    let request = ManagerRequest {
        manager: "node",
        subresource: "status",
        api_version: "v1",
        now: "2026-01-01T00:00:01Z".parse().expect("a time"),
        custom: None,
        versions: &OneVersion,
    };
    const NAMES: [&str; 14] = [
        "read the patch",
        "read the object",
        "fill the old",
        "merge",
        "is it unchanged",
        "admit",
        "fill",
        "defaults",
        "fill again",
        "metadata",
        "status",
        "owners",
        "times",
        "write",
    ];
    let mut took = [0.0; NAMES.len() + 1];
    for _ in 0..ROUNDS {
        let mut last = std::time::Instant::now();
        let mut at = 0;
        let mut lap = || {
            let now = std::time::Instant::now();
            took[at] += (now - last).as_secs_f64() * 1e6 / f64::from(ROUNDS);
            at += 1;
            last = std::time::Instant::now();
        };
        let patch = crate::json::parse(&sent).expect("JSON").value;
        lap();
        let mut old: Value = serde_json::from_slice(&stored).expect("JSON");
        old["metadata"]["resourceVersion"] = "7".into();
        lap();
        rows.fill(row, &mut old);
        lap();
        let mut new = crate::patch::merge_patch(&old, &patch).expect("a patch");
        lap();
        assert_ne!(old, new);
        lap();
        assert!(rows.admit(row, &mut new).mismatch.is_none());
        lap();
        rows.fill(row, &mut new);
        lap();
        row.strategy.defaults(&mut new);
        lap();
        rows.fill(row, &mut new);
        lap();
        let mut errors = crate::validation::validate_metadata_update(row, &new, &old);
        lap();
        row.strategy
            .prepare_status_at(&mut new, &old, "2026-01-01T00:00:01Z");
        errors.extend(row.strategy.validate_status_at(&new, &old, request.now));
        assert!(errors.is_empty(), "{errors:?}");
        lap();
        track_update(schema, &ty, Some(&old), &mut new, &request).expect("tracked");
        lap();
        super::keep_times(&old, &mut new);
        lap();
        let written = crate::json::encode(&new);
        lap();
        drop((old, new, patch, written));
        lap();
    }
    for (name, took) in NAMES.iter().chain(&["drop all"]).zip(took) {
        println!("{name:16} {took:6.2} µs");
    }
    println!("{:16} {:6.2} µs", "all", took.iter().sum::<f64>());
}
