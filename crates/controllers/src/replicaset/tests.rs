//! ReplicaSets against rules and against the fake.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::json;

use super::{plan, rank};
use crate::testing;

fn pod(name: &str, node: &str, phase: &str, ready_seconds: Option<i64>, cost: &str) -> Arc<Pod> {
    let at = |seconds: i64| {
        (now() - SignedDuration::from_secs(seconds))
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    };
    let ready = match ready_seconds {
        Some(seconds) => json!([
            {"type": "Ready", "status": "True", "lastTransitionTime": at(seconds)}
        ]),
        None => json!([]),
    };
    let pod = json!({
        "metadata": {
            "name": name, "uid": name, "creationTimestamp": at(1_000_000),
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost},
        },
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase, "conditions": ready},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn now() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

#[test]
fn victims_are_ranked_as_the_reference_ranks_them() {
    let mut pods = vec![
        pod("old-ready", "a", "Running", Some(100_000), "0"),
        pod("young-ready", "a", "Running", Some(10), "0"),
        pod("crowded", "b", "Running", Some(100_000), "0"),
        pod("cheap", "a", "Running", Some(100_000), "-5"),
        pod("unready", "a", "Running", None, "0"),
        pod("unknown", "a", "Unknown", None, "0"),
        pod("pending", "a", "Pending", None, "0"),
        pod("unassigned", "", "Pending", None, "0"),
    ];
    let mut per_node = HashMap::new();
    per_node.insert("b".to_owned(), 9);
    rank::victims_first(&mut pods, &per_node, now());
    let names: Vec<_> = pods
        .iter()
        .map(|pod| pod.metadata.name.clone().unwrap())
        .collect();
    let wanted = [
        "unassigned",
        "pending",
        "unknown",
        "unready",
        "cheap",
        "crowded",
        "young-ready",
        "old-ready",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn a_template_without_the_selected_labels_creates_nothing() {
    let set: ReplicaSet = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "a", "uid": "1"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": []}},
        },
    }))
    .unwrap();
    assert!(plan::pod_of(&set, testing::owner("ReplicaSet", "web", "1")).is_err());
}

#[tokio::test(start_paused = true)]
async fn pods_are_created_adopted_released_and_counted() {
    let fake = FakeApi::new(FakeClock::shared());
    // One orphan that matches is adopted; a foreign pod that matches is left alone.
    fake.put(&testing::pod("a", "orphan", &[("app", "web")]));
    let mut foreign = testing::pod("a", "foreign", &[("app", "web")]);
    foreign.metadata.owner_references = Some(vec![testing::owner("Other", "other", "77")]);
    fake.put(&foreign);
    let set = fake.put(&testing::set("a", "web", 3));
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));

    let ours = |fake: &FakeApi| -> Vec<Pod> {
        let uid = set.metadata.uid.clone().unwrap();
        let mut pods = fake.all::<Pod>();
        pods.retain(|pod| {
            let owners = pod.metadata.owner_references.iter().flatten();
            owners.clone().any(|owner| owner.uid == uid)
        });
        pods
    };
    fake.wait_for("status of three", |fake| {
        let status = fake.get::<ReplicaSet>("a", "web")?.status?;
        (status.replicas == 3 && status.observed_generation == Some(1)).then_some(())
    })
    .await;
    assert_eq!(ours(&fake).len(), 3);
    assert!(
        ours(&fake)
            .iter()
            .any(|pod| pod.metadata.name.as_deref() == Some("orphan"))
    );
    assert_eq!(fake.count("create", "pods"), 2, "one was adopted");

    testing::make_ready(&fake);
    fake.wait_for("three available", |fake| {
        let status = fake.get::<ReplicaSet>("a", "web")?.status?;
        (status.available_replicas == Some(3)).then_some(())
    })
    .await;

    // A label taken away releases a pod and makes another.
    let mut orphan = fake.get::<Pod>("a", "orphan").unwrap();
    orphan.metadata.labels = None;
    fake.put(&orphan);
    fake.wait_for("a replacement", |fake| {
        (ours(fake).len() == 3).then_some(())
    })
    .await;
    fake.wait_for("release", |fake| {
        let owners = fake.get::<Pod>("a", "orphan")?.metadata.owner_references;
        owners.unwrap_or_default().is_empty().then_some(())
    })
    .await;

    let mut smaller = fake.get::<ReplicaSet>("a", "web").unwrap();
    smaller.spec.replicas = Some(1);
    smaller.metadata.generation = Some(2);
    fake.put(&smaller);
    fake.wait_for("one left", |fake| (ours(fake).len() == 1).then_some(()))
        .await;
    fake.wait_for("events", |fake| {
        let events = fake.all::<Event>();
        let reasons: Vec<_> = events
            .iter()
            .filter_map(|event| event.reason.clone())
            .collect();
        let has = |reason: &str| reasons.iter().any(|found| found == reason);
        (has("SuccessfulCreate") && has("SuccessfulDelete")).then_some(())
    })
    .await;
    assert!(fake.get::<Pod>("a", "foreign").is_some());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_create_stops_the_batch_and_is_told() {
    let fake = FakeApi::new(FakeClock::shared());
    fake.fail_next("create", "pods", 403, "Forbidden", "exceeded quota: small");
    fake.put(&testing::set("a", "web", 100));
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    let failure = fake
        .wait_for("failure", |fake| {
            let status = fake.get::<ReplicaSet>("a", "web")?.status?;
            status
                .conditions?
                .into_iter()
                .find(|item| item.type_.as_deref() == Some("ReplicaFailure"))
        })
        .await;
    assert_eq!(failure.reason.as_deref(), Some("FailedCreate"));
    assert_eq!(failure.message.as_deref(), Some("exceeded quota: small"));
    fake.wait_for("recovery", |fake| {
        let status = fake.get::<ReplicaSet>("a", "web")?.status?;
        (status.replicas == 100 && status.conditions.is_none_or(|all| all.is_empty())).then_some(())
    })
    .await;
    assert_eq!(fake.all::<Pod>().len(), 100);
    assert_eq!(
        fake.count("create", "pods"),
        101,
        "never more than asked for"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_pods_are_created_once_each() {
    let fake = FakeApi::new(FakeClock::shared());
    fake.put(&testing::set("a", "web", 1000));
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    fake.wait_for("a thousand", |fake| {
        let status = fake.get::<ReplicaSet>("a", "web")?.status?;
        (status.replicas == 1000).then_some(())
    })
    .await;
    assert_eq!(fake.count("create", "pods"), 1000);
    // The watch falls behind and breaks: nothing is created twice for it.
    fake.hang_up();
    fake.compact();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(fake.count("create", "pods"), 1000);
    world.end().await;
}
