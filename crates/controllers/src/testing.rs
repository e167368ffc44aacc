//! What the tests of several loops share.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use evenkeel_client::{CancellationToken, LoopContext, LoopRegistry, Recorder, Views};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

/// Running loops and how to end them.
pub(crate) struct World {
    pub(crate) context: LoopContext,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

impl World {
    pub(crate) fn new(fake: &FakeApi) -> Self {
        let clock = FakeClock::shared();
        let client = fake.client();
        let context = LoopContext {
            views: Views::new(client.clone(), Arc::clone(&clock)),
            recorder: Recorder::new(client.clone(), Arc::clone(&clock), "test", ""),
            client,
            clock,
            shutdown: CancellationToken::new(),
            metrics: LoopRegistry::default(),
        };
        Self {
            context,
            tasks: Vec::new(),
        }
    }

    pub(crate) fn spawn(&mut self, make: impl FnOnce(LoopContext) -> Running) {
        self.tasks.push(tokio::spawn(make(self.context.clone())));
    }

    pub(crate) async fn end(self) {
        self.context.shutdown.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        self.context.views.shutdown().await;
    }
}

pub(crate) fn start(fake: &FakeApi, make: impl FnOnce(LoopContext) -> Running) -> World {
    let mut world = World::new(fake);
    world.spawn(make);
    world
}

fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
    labels.iter().map(owned).collect()
}

pub(crate) fn pod(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": namespace, "labels": map(labels)},
        "spec": {"containers": [{"name": "main", "image": "x"}]},
        "status": {"phase": "Pending"},
    }))
    .unwrap()
}

pub(crate) fn owner(kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "example.org/v1".into(),
        kind: kind.into(),
        name: name.into(),
        uid: uid.into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub(crate) fn set(namespace: &str, name: &str, replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "x"}]},
            },
        },
    }))
    .unwrap()
}

pub(crate) fn deployment(namespace: &str, name: &str, replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": namespace, "annotations": {"note": "kept"}},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "revisionHistoryLimit": 2, "progressDeadlineSeconds": 600,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            },
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "x:1"}]},
            },
        },
    }))
    .unwrap()
}

/// Makes every pod that is not ready Running and Ready, as a node would.
pub(crate) fn make_ready(fake: &FakeApi) {
    for mut pod in fake.all::<Pod>() {
        if crate::pods::is_ready(&pod) || !crate::pods::is_active(&pod) {
            continue;
        }
        pod.status = serde_json::from_value(json!({
            "phase": "Running", "podIP": "10.0.0.1",
            "conditions": [{
                "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        }))
        .unwrap();
        fake.put(&pod);
    }
}
