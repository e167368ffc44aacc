//! What the cluster says to changes, plugin by plugin, through the door.

#![allow(clippy::unwrap_used, reason = "tests")]

mod certificates;
mod classes;
mod hook;
mod limits;
mod nodes;
mod pod_certificates;
mod policies;
mod quota;
mod ranges;
mod rights;
mod security;
mod services;
mod webhooks;

use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Caller, Cluster};
use serde_json::{Value, json};

const MERGE_PATCH: &str = "application/merge-patch+json";

/// A door with a namespace and its account, and somebody who may do everything.
async fn open(namespace: &str, labels: &Value) -> (Cluster, Caller) {
    let cluster = Cluster::door().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    make_namespace(&admin, namespace, labels).await;
    (cluster, admin)
}

async fn make_namespace(admin: &Caller, name: &str, labels: &Value) {
    let body = json!({"metadata": {"name": name, "labels": labels}});
    admin.post("/api/v1/namespaces", &body).await.expect(201);
    let account = json!({"metadata": {"name": "default"}});
    let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
    admin.post(&path, &account).await.expect(201);
}

/// A pod of one container.
fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}
