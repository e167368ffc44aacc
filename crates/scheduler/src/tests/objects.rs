//! Pods and nodes for tests, written as users write them.

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

/// A node with CPU in millicores, memory in MiB and room for 110 pods.
pub(crate) fn node(name: &str, milli_cpu: i64, mib: i64) -> Node {
    node_with(name, milli_cpu, mib, &json!({}))
}

/// The same, with parts merged in.
pub(crate) fn node_with(name: &str, milli_cpu: i64, mib: i64, more: &Value) -> Node {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {
            "cpu": format!("{milli_cpu}m"), "memory": format!("{mib}Mi"), "pods": "110",
        }},
    });
    merge(&mut value, more);
    serde_json::from_value(value).expect("a node")
}

/// A pod of one container that requests CPU in millicores.
pub(crate) fn pod(name: &str, milli_cpu: i64) -> Pod {
    pod_with(name, milli_cpu, &json!({}))
}

/// The same, with parts merged in.
pub(crate) fn pod_with(name: &str, milli_cpu: i64, more: &Value) -> Pod {
    let mut value = json!({
        "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}")},
        "spec": {
            "schedulerName": "default-scheduler",
            "containers": [{"name": "main", "image": "shop",
                "resources": {"requests": {"cpu": format!("{milli_cpu}m")}}}],
        },
    });
    merge(&mut value, more);
    serde_json::from_value(value).expect("a pod")
}

pub(crate) fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}
