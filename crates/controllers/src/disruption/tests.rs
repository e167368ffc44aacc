//! Budgets: rules by table and property, and lives against the fake.

use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::{Expected, expected, look, stale_at};
use crate::testing;

fn now() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

fn budget(spec: Value) -> PodDisruptionBudget {
    let mut whole = json!({
        "metadata": {"name": "web", "namespace": "a", "generation": 3},
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
    });
    for (key, value) in spec.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn pod(name: &str, ready: bool) -> Arc<Pod> {
    let mut pod = testing::pod("a", name, &[("app", "web")]);
    let status = json!({"phase": "Running", "conditions": [
        {"type": "Ready", "status": if ready { "True" } else { "False" }},
    ]});
    pod.status = Some(serde_json::from_value(status).unwrap());
    Arc::new(pod)
}

#[test]
fn what_is_expected_is_the_references() {
    for (spec, pods, scale, count, healthy) in [
        (json!({"minAvailable": 2}), 5, 0, 5, 2),
        (json!({"minAvailable": "50%"}), 5, 7, 7, 4),
        (json!({"maxUnavailable": 1}), 5, 7, 7, 6),
        (json!({"maxUnavailable": "30%"}), 5, 7, 7, 4),
        (json!({"maxUnavailable": 9}), 5, 7, 7, 0),
        (json!({}), 5, 7, 0, 0),
    ] {
        let found = expected(&budget(spec.clone()), pods, scale);
        assert_eq!(found, Expected { count, healthy }, "{spec}");
    }
}

#[test]
fn an_allowed_eviction_counts_until_it_is_seen_or_given_up() {
    let mut budget = budget(json!({"minAvailable": 1}));
    let noted = json!({"disruptedPods": {
        "one": Time(now() - SignedDuration::from_secs(30)),
        "two": Time(now() - SignedDuration::from_secs(300)),
        "gone": Time(now()),
    }});
    budget.status = Some(serde_json::from_value(noted).unwrap());
    let pods = [pod("one", true), pod("two", true), pod("three", true)];
    let found = look(
        &budget,
        &pods,
        Expected {
            count: 3,
            healthy: 1,
        },
        now(),
    );
    assert_eq!(found.status.current_healthy, Some(2), "one is about to go");
    assert_eq!(found.status.disruptions_allowed, Some(1));
    let left: Vec<_> = found.status.disrupted_pods.unwrap().into_keys().collect();
    assert_eq!(left, ["one"]);
    assert_eq!(found.not_deleted.len(), 1);
    let wait = found.look_again.unwrap().duration_since(now());
    assert_eq!(wait, SignedDuration::from_secs(91));
    let condition = &found.status.conditions.unwrap()[0];
    let said = (condition.status.as_str(), condition.reason.as_str());
    assert_eq!(said, ("True", "SufficientPods"));
    assert_eq!(condition.observed_generation, Some(3));
}

#[test]
fn a_condition_grows_stale_unless_the_agent_set_it() {
    let marked = |reason: &str| {
        let mut pod = testing::pod("a", "one", &[]);
        let status = json!({"phase": "Running", "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": reason,
            "lastTransitionTime": Time(now()),
        }]});
        pod.status = Some(serde_json::from_value(status).unwrap());
        pod
    };
    let at = stale_at(&marked("EvictionByEvictionAPI"));
    assert_eq!(at, Some(now() + SignedDuration::from_mins(2)));
    assert_eq!(stale_at(&marked("TerminationByKubelet")), None);
}

proptest! {
    #[test]
    fn spending_what_is_allowed_never_breaks_the_budget(
        ready in prop::collection::vec(any::<bool>(), 0..20),
        value in prop_oneof![
            (0..10i32).prop_map(|number| json!({"minAvailable": number})),
            (0..101i32).prop_map(|number| json!({"minAvailable": format!("{number}%")})),
            (0..10i32).prop_map(|number| json!({"maxUnavailable": number})),
            (0..101i32).prop_map(|number| json!({"maxUnavailable": format!("{number}%")})),
        ],
    ) {
        let budget = budget(value);
        let pods: Vec<_> = ready
            .iter()
            .enumerate()
            .map(|(at, ready)| pod(&format!("p{at}"), *ready))
            .collect();
        let scale = i32::try_from(pods.len()).unwrap();
        let expected = expected(&budget, pods.len(), scale);
        let found = look(&budget, &pods, expected, now());
        let allowed = found.status.disruptions_allowed.unwrap();
        let healthy = i32::try_from(ready.iter().filter(|it| **it).count()).unwrap();
        prop_assert!(allowed >= 0);
        prop_assert!(allowed == 0 || healthy - allowed >= expected.healthy);
        prop_assert!(allowed <= healthy);
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_follows_the_scale_of_what_owns_its_pods() {
    let fake = FakeApi::new(FakeClock::shared());
    let mut world = testing::World::new(&fake);
    world.spawn(|context| Box::pin(super::run(context)));
    world.spawn(|context| Box::pin(crate::deployment::run(context)));
    world.spawn(|context| Box::pin(crate::replicaset::run(context)));
    fake.put(&testing::deployment("a", "web", 4));
    fake.put(&budget(json!({"maxUnavailable": "25%"})));
    let counts = |fake: &FakeApi| {
        testing::make_ready(fake);
        let status = fake.get::<PodDisruptionBudget>("a", "web")?.status?;
        Some((
            status.expected_pods?,
            status.desired_healthy?,
            status.disruptions_allowed?,
        ))
    };
    fake.wait_for("four", |fake| (counts(fake)? == (4, 3, 1)).then_some(()))
        .await;
    // A pod nobody owns can't be counted, and is told.
    fake.put(&testing::pod("a", "stray", &[("app", "web"), ("x", "y")]));
    fake.wait_for("a word about it", |fake| {
        let events = fake.all::<Event>();
        let told = |it: &Event| it.reason.as_deref() == Some("UnmanagedPods");
        events.iter().any(told).then_some(())
    })
    .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn when_it_cannot_be_known_nothing_is_allowed() {
    let fake = FakeApi::new(FakeClock::shared());
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    let mut owned = pod("one", true).as_ref().clone();
    owned.metadata.owner_references = Some(vec![testing::owner("Nothing", "known", "7")]);
    fake.put(&owned);
    fake.put(&budget(json!({"maxUnavailable": 1})));
    let condition = fake
        .wait_for("the condition", |fake| {
            let status = fake.get::<PodDisruptionBudget>("a", "web")?.status?;
            status
                .conditions?
                .into_iter()
                .find(|it| it.reason == "SyncFailed")
        })
        .await;
    assert_eq!(condition.status, "False");
    assert!(
        condition.message.contains("Nothing"),
        "{}",
        condition.message
    );
    world.end().await;
}
