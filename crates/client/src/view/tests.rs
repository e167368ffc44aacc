//! Views follow the door and own writes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::{Views, index};
use crate::testing::{FakeApi, FakeClock};

fn pod(name: &str, label: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "a", "labels": {"app": label},
            "managedFields": [{"manager": "kubectl"}],
        },
    }))
    .unwrap()
}

fn setup() -> (FakeApi, Views) {
    let clock = FakeClock::shared();
    let fake = FakeApi::new(Arc::clone(&clock));
    let views = Views::new(fake.client(), clock);
    (fake, views)
}

#[tokio::test(start_paused = true)]
async fn a_view_lists_then_follows_and_strips_managed_fields() {
    let (fake, views) = setup();
    fake.put(&pod("one", "x"));
    let view = views.of::<Pod>();
    view.synced().await;
    assert_eq!(view.len(), 1);
    let one = view.get("a", "one").unwrap();
    assert!(one.metadata.managed_fields.is_none());

    let mut changes = view.subscribe();
    assert_eq!(changes.next().await.key.name, "one");
    fake.put(&pod("two", "y"));
    let change = changes.next().await;
    assert_eq!(
        (change.key.name.as_str(), change.old.is_none()),
        ("two", true)
    );
    fake.remove::<Pod>("a", "one");
    let change = changes.next().await;
    assert!(change.new.is_none());
    assert_eq!(view.in_namespace("a").len(), 1);
    assert_eq!(fake.count("list", "pods"), 1);
    assert_eq!(fake.count("watch", "pods"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_view_resumes_after_hang_up_and_lists_again_after_compaction() {
    let (fake, views) = setup();
    let view = views.of::<Pod>();
    view.synced().await;
    fake.put(&pod("one", "x"));
    let revision = |fake: &FakeApi| {
        let one: Pod = fake.get("a", "one").unwrap();
        one.metadata
            .resource_version
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    view.reached(revision(&fake)).await;
    fake.hang_up();
    fake.put(&pod("two", "x"));
    let two = async {
        while view.get("a", "two").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), two)
        .await
        .unwrap();
    assert_eq!(
        fake.count("list", "pods"),
        1,
        "a resumed watch does not list again"
    );

    fake.hang_up();
    fake.remove::<Pod>("a", "one");
    fake.compact();
    let gone = async {
        while view.get("a", "one").is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .unwrap();
    assert_eq!(fake.count("list", "pods"), 2);
}

#[tokio::test(start_paused = true)]
async fn own_writes_are_seen_at_once_and_removed_objects_do_not_come_back() {
    let (fake, views) = setup();
    let view = views.of::<Pod>();
    view.add_index("app", |pod| {
        let labels = pod.metadata.labels.iter().flatten();
        labels
            .filter(|pair| pair.0 == "app")
            .map(|pair| pair.1.clone())
            .collect()
    });
    view.add_index(index::CONTROLLER, index::controller);
    view.synced().await;

    let written = fake.put(&pod("one", "x"));
    view.note_written(written.clone());
    assert!(view.get("a", "one").is_some(), "before the watch brings it");
    assert_eq!(view.by_index("app", "x").len(), 1);

    // Deleted by us, noted, while the watch still has the creation to deliver.
    fake.remove::<Pod>("a", "one");
    view.note_deleted(&written);
    assert!(view.by_index("app", "x").is_empty());
    let last = fake.put(&pod("two", "y"));
    let revision = last.metadata.resource_version.unwrap().parse().unwrap();
    let mut changes = view.subscribe();
    view.reached(revision).await;
    assert_eq!(changes.next().await.key.name, "two");
    assert!(view.get("a", "one").is_none());

    // An answer that arrives after the watch has seen the deletion changes nothing.
    view.note_written(written);
    assert!(view.get("a", "one").is_none());
}
