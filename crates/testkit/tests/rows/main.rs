//! One suite over every row: what the door does for one kind, it does for all.

#![allow(clippy::unwrap_used, reason = "tests")]

mod encodings;
mod examples;
mod filled;
mod owners;
mod parts;
mod places;
mod refusals;
mod rights;
mod verbs;
mod views;
mod watches;

use std::sync::Arc;

use evenkeel_api::row::{ResourceDef, Storage, Verb};
use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Caller, Cluster};
use serde_json::{Value, json};

/// The namespace that the suite works in.
const NAMESPACE: &str = "rows";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// A row with paths and objects to try it with.
#[derive(Clone)]
struct Kind {
    row: Arc<ResourceDef>,
    /// Path of its collection.
    path: String,
}

impl Kind {
    fn of(row: &Arc<ResourceDef>) -> Self {
        let gvk = &row.gvk;
        let group = if gvk.group.is_empty() {
            format!("/api/{}", gvk.version)
        } else {
            format!("/apis/{}/{}", gvk.group, gvk.version)
        };
        let place = if row.namespaced() {
            format!("/namespaces/{NAMESPACE}")
        } else {
            String::new()
        };
        Self {
            path: format!("{group}{place}/{}", row.plural),
            row: Arc::clone(row),
        }
    }

    fn object(&self, name: &str) -> Value {
        let mut value = examples::example(&self.row.gvk.kind)
            .unwrap_or_else(|| panic!("no example of {:?}", self.row.gvk));
        value["apiVersion"] = self.row.gvk.api_version().into();
        value["kind"] = self.row.gvk.kind.to_string().into();
        value["metadata"] = json!({"name": name, "labels": {"suite": "rows"}});
        value
    }

    fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn can(&self, verb: Verb) -> bool {
        self.row.verbs.contains(&verb)
    }

    /// The path for a delete that is not to wait for dependents to be orphaned.
    fn gone(&self, path: &str) -> String {
        if !self.row.orphans {
            return path.to_owned();
        }
        let and = if path.contains('?') { '&' } else { '?' };
        format!("{path}{and}propagationPolicy=Background")
    }

    /// Takes away what protects storage while it is in use: the loop that sees that nobody uses it
    /// does not run here.
    async fn release(&self, admin: &Caller, name: &str) {
        let kind = self.row.gvk.kind.as_ref();
        if matches!(
            kind,
            "PersistentVolume" | "PersistentVolumeClaim" | "PodGroup" | "VolumeAttributesClass"
        ) {
            let free = json!({"metadata": {"finalizers": null}});
            let freed = admin.patch(&self.named(name), MERGE_PATCH, &free).await;
            assert_eq!(freed.code, 200, "{:#}", freed.body);
        }
    }

    /// Deletes, also what has a finalizer by nature.
    async fn remove(&self, admin: &Caller, name: &str) {
        self.release(admin, name).await;
        let gone = admin.delete(&self.gone(&self.named(name)), None).await;
        assert_eq!(gone.code, 200, "{:#}", gone.body);
        if self.row.gvk.kind == "Namespace" {
            let mut value = admin.get(&self.named(name)).await.expect(200).body;
            assert_eq!(value["status"]["phase"], "Terminating");
            value["spec"]["finalizers"] = json!([]);
            let path = format!("{}/finalize", self.named(name));
            let done = admin.put(&path, &value).await;
            assert_eq!(done.code, 200, "{:#}", done.body);
        }
    }
}

/// A door with the namespace of the suite, and somebody who may do everything.
async fn open() -> (Cluster, Caller) {
    // Kinds behind feature gates too.
    let cluster = Cluster::door_options(|options| {
        options.gates = vec!["GenericWorkload".to_owned()];
    })
    .await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    admin
        .post("/api/v1/namespaces", &namespace)
        .await
        .expect(201);
    let account = json!({"metadata": {"name": "default"}});
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    admin.post(&path, &account).await.expect(201);
    (cluster, admin)
}

/// All kinds that are kept.
fn kinds(cluster: &Cluster) -> Vec<Kind> {
    let rows = cluster.the_door().rows();
    rows.iter()
        .filter(|row| row.storage == Storage::Stored)
        // Forms of the same objects have tests of their own.
        .filter(|row| row.view.is_none())
        // Their names are addresses, or follow from what they define; they have tests of their own.
        // Conditions of flow schemas are written behind the suite's back.
        .filter(|row| {
            let kind = &*row.gvk.kind;
            !matches!(
                kind,
                "IPAddress" | "CustomResourceDefinition" | "APIService" | "FlowSchema"
            )
        })
        .map(Kind::of)
        .collect()
}

/// Runs a check over every kind that is kept, and tells of all that fail, not of the first.
async fn over_every_row<F>(check: fn(Kind, Caller) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (cluster, admin) = open().await;
    let mut failed = Vec::new();
    let kinds = kinds(&cluster);
    assert!(kinds.len() >= 49, "only {} kinds", kinds.len());
    for kind in kinds {
        let name = kind.row.gvk.kind.to_string();
        if tokio::spawn(check(kind, admin.clone())).await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed for {failed:?}; see above");
}
