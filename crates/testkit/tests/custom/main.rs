//! Custom resources: definitions, and the kinds they make, through the door.

#![allow(clippy::unwrap_used, reason = "tests")]
#![recursion_limit = "256"]

mod conversion;
mod definitions;
mod ends;
#[path = "../admission/hook.rs"]
#[allow(dead_code, reason = "what only admission's tests use")]
mod hook;
mod kube_client;
mod large;
mod objects;
mod owners;
mod rules;
mod versions;

use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, BOUND, Caller, Cluster, until};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAMESPACE: &str = "custom";
const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// A door with a namespace, and somebody who may do everything.
async fn open() -> (Cluster, Caller) {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    admin
        .post("/api/v1/namespaces", &namespace)
        .await
        .expect(201);
    (cluster, admin)
}

fn admin(cluster: &Cluster) -> Caller {
    cluster.caller(Identity::user("admin", &[ADMIN]))
}

fn condition<'v>(definition: &'v Value, kind: &str) -> Option<&'v Value> {
    definition["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// Creates a definition and waits until it is established.
async fn establish(admin: &Caller, definition: &Value) -> Value {
    let made = admin.post(DEFINITIONS, definition).await.expect(201).body;
    let path = format!(
        "{DEFINITIONS}/{}",
        made["metadata"]["name"].as_str().unwrap()
    );
    until("establishment", || async {
        let found = admin.get(&path).await.expect(200).body;
        let is_true = condition(&found, "Established").is_some_and(|it| it["status"] == "True");
        is_true.then_some(found)
    })
    .await
}

/// The definition that the documentation shows, with all that a version can have.
fn cron_tabs() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab",
                "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.labelSelector"}},
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec",
                        "description": "The cron spec"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                    {"name": "Ready", "type": "string", "priority": 1,
                        "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "selectableFields": [{"jsonPath": ".spec.image"}],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "A job at certain times.",
                    "required": ["spec"],
                    "properties": {
                        "spec": {
                            "type": "object",
                            "required": ["cronSpec"],
                            "properties": {
                                "cronSpec": {"type": "string",
                                    "description": "When the job runs.",
                                    "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
                                "image": {"type": "string", "minLength": 1, "maxLength": 64},
                                "replicas": {"type": "integer", "format": "int32",
                                    "minimum": 1, "maximum": 10, "default": 1},
                                "policy": {"type": "string", "enum": ["Allow", "Forbid"],
                                    "default": "Allow"},
                                "suspend": {"type": "boolean", "nullable": true},
                                "port": {"x-kubernetes-int-or-string": true},
                                "at": {"type": "string", "format": "date-time"},
                                "ports": {"type": "array", "maxItems": 3,
                                    "x-kubernetes-list-type": "map",
                                    "x-kubernetes-list-map-keys": ["name"],
                                    "items": {"type": "object", "required": ["name"],
                                        "properties": {
                                            "name": {"type": "string"},
                                            "port": {"type": "integer", "default": 80}}}},
                                "hosts": {"type": "array", "x-kubernetes-list-type": "set",
                                    "items": {"type": "string"}},
                                "env": {"type": "object",
                                    "additionalProperties": {"type": "string"}},
                                "free": {"type": "object",
                                    "x-kubernetes-preserve-unknown-fields": true,
                                    "properties": {"known": {"type": "object",
                                        "properties": {"a": {"type": "string"}}}}},
                                "template": {"type": "object",
                                    "x-kubernetes-embedded-resource": true,
                                    "x-kubernetes-preserve-unknown-fields": true},
                            },
                        },
                        "status": {"type": "object", "properties": {
                            "replicas": {"type": "integer"},
                            "labelSelector": {"type": "string"},
                            "conditions": {"type": "array", "x-kubernetes-list-type": "map",
                                "x-kubernetes-list-map-keys": ["type"],
                                "items": {"type": "object", "required": ["type"],
                                    "properties": {"type": {"type": "string"},
                                        "status": {"type": "string"}}}}}},
                    },
                }},
            }],
        },
    })
}

fn cron_tab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab",
        "metadata": {"name": name}, "spec": spec})
}

/// Path of the documentation's kind in the namespace.
fn path() -> String {
    format!("/apis/stable.example.com/v1/namespaces/{NAMESPACE}/crontabs")
}
