//! Garbage collection against the fake.

use evenkeel_client::Api;
use evenkeel_client::testing::{FakeApi, FakeClock};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DeleteParams;
use serde_json::json;

use crate::testing;

fn owner(name: &str, uid: &str) -> OwnerReference {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid,
        "blockOwnerDeletion": true,
    }))
    .unwrap()
}

fn map(namespace: &str, name: &str, owners: Vec<OwnerReference>) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.namespace = Some(namespace.to_owned());
    map.metadata.owner_references = Some(owners).filter(|owners| !owners.is_empty());
    map
}

fn uid(map: &ConfigMap) -> String {
    map.metadata.uid.clone().unwrap()
}

async fn gone(fake: &FakeApi, namespace: &str, name: &str) {
    let what = format!("{name} gone");
    fake.wait_for(&what, |fake| {
        fake.get::<ConfigMap>(namespace, name)
            .is_none()
            .then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dependents_follow_their_last_owner_in_the_background() {
    let fake = FakeApi::new(FakeClock::shared());
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    let one = fake.put(&map("a", "one", vec![]));
    let two = fake.put(&map("a", "two", vec![]));
    let both = vec![owner("one", &uid(&one)), owner("two", &uid(&two))];
    let child = fake.put(&map("a", "child", both));
    fake.put(&map("a", "grandchild", vec![owner("child", &uid(&child))]));
    // A name that is there, but another object: its owner is gone.
    fake.put(&map("a", "stale", vec![owner("one", "00000000-dead")]));
    gone(&fake, "a", "stale").await;
    let api: Api<ConfigMap> = Api::namespaced(fake.client(), "a");
    api.delete("one", &DeleteParams::background())
        .await
        .unwrap();
    fake.wait_for("one owner left", |fake| {
        let child = fake.get::<ConfigMap>("a", "child")?;
        (child.metadata.owner_references?.len() == 1).then_some(())
    })
    .await;
    api.delete("two", &DeleteParams::background())
        .await
        .unwrap();
    gone(&fake, "a", "child").await;
    gone(&fake, "a", "grandchild").await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn foreground_waits_for_dependents_and_orphaning_lets_them_go() {
    let fake = FakeApi::new(FakeClock::shared());
    let parent = fake.put(&map("a", "parent", vec![]));
    let mut child = map("a", "child", vec![owner("parent", &uid(&parent))]);
    child.metadata.finalizers = Some(vec!["example.org/hold".to_owned()]);
    fake.put(&child);
    let keeper = fake.put(&map("a", "keeper", vec![]));
    fake.put(&map("a", "kept", vec![owner("keeper", &uid(&keeper))]));
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    let api: Api<ConfigMap> = Api::namespaced(fake.client(), "a");
    api.delete("parent", &DeleteParams::foreground())
        .await
        .unwrap();
    fake.wait_for("the child to be marked", |fake| {
        let child = fake.get::<ConfigMap>("a", "child")?;
        child.metadata.deletion_timestamp.map(|_| ())
    })
    .await;
    assert!(
        fake.get::<ConfigMap>("a", "parent").is_some(),
        "waits for its child"
    );
    fake.remove::<ConfigMap>("a", "child");
    gone(&fake, "a", "parent").await;

    api.delete("keeper", &DeleteParams::orphan()).await.unwrap();
    gone(&fake, "a", "keeper").await;
    let kept = fake.get::<ConfigMap>("a", "kept").unwrap();
    assert!(
        kept.metadata
            .owner_references
            .unwrap_or_default()
            .is_empty()
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_in_another_namespace_is_told_and_counts_as_absent() {
    let fake = FakeApi::new(FakeClock::shared());
    let far = fake.put(&map("b", "far", vec![]));
    let mut child = Secret::default();
    child.metadata.name = Some("child".to_owned());
    child.metadata.namespace = Some("a".to_owned());
    child.metadata.owner_references = Some(vec![owner("far", &uid(&far))]);
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    fake.put(&child);
    fake.wait_for("the child gone", |fake| {
        fake.get::<Secret>("a", "child").is_none().then_some(())
    })
    .await;
    fake.wait_for("the event", |fake| {
        let events = fake.all::<Event>();
        let told = |event: &Event| event.reason.as_deref() == Some("OwnerRefInvalidNamespace");
        events.iter().any(told).then_some(())
    })
    .await;
    world.end().await;
}
