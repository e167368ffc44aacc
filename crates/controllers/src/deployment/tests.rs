//! Deployments: rules by table and property, and whole rollouts against the fake.

use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use serde_json::json;

use super::limits::{self, available, size};
use super::{plan, revision};
use crate::testing;

fn start() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

fn limits_of(surge: &str, below: &str, replicas: i32) -> (i32, i32) {
    let value = |text: &str| match text.parse() {
        Ok(number) => IntOrString::Int(number),
        Err(_) => IntOrString::String(text.to_owned()),
    };
    let mut deployment = testing::deployment("a", "web", replicas);
    let strategy = deployment.spec.strategy.as_mut().unwrap();
    let rolling = strategy.rolling_update.as_mut().unwrap();
    rolling.max_surge = Some(value(surge));
    rolling.max_unavailable = Some(value(below));
    (
        limits::max_surge(&deployment),
        limits::max_unavailable(&deployment),
    )
}

#[test]
fn percentages_round_surge_up_and_unavailable_down() {
    assert_eq!(limits_of("25%", "25%", 10), (3, 2));
    assert_eq!(limits_of("25%", "25%", 1), (1, 0));
    assert_eq!(
        limits_of("0", "10%", 3),
        (0, 1),
        "something must be able to move"
    );
    assert_eq!(limits_of("2", "5", 3), (2, 3), "no more than there are");
    assert_eq!(limits_of("100%", "0", 4), (4, 0));
    assert_eq!(limits_of("25%", "25%", 0), (0, 0));
}

/// Sets as a ReplicaSet loop and nodes would treat them.
struct Cluster {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: Timestamp,
    counter: u32,
}

impl Cluster {
    fn new(deployment: Deployment) -> Self {
        Self {
            deployment,
            sets: Vec::new(),
            now: start(),
            counter: 0,
        }
    }

    /// One reconciliation; true when it changed something but the status.
    fn reconcile(&mut self) -> bool {
        self.now += SignedDuration::from_secs(1);
        let sets: Vec<_> = self.sets.iter().cloned().map(Arc::new).collect();
        let plan = plan::plan(&self.deployment, &sets, &[], self.now);
        let changed = plan.create.is_some() || !plan.update.is_empty() || !plan.delete.is_empty();
        if let Some(mut set) = plan.create {
            self.counter += 1;
            set.metadata.uid = Some(self.counter.to_string());
            set.metadata.creation_timestamp = Some(Time(self.now));
            self.sets.push(set);
        }
        for set in plan.update {
            let uid = set.metadata.uid.clone();
            let found = self
                .sets
                .iter_mut()
                .find(|it| it.metadata.uid == uid)
                .unwrap();
            *found = set;
        }
        for gone in plan.delete {
            self.sets
                .retain(|set| set.metadata.uid != gone.metadata.uid);
        }
        if let Some(revision) = plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(revision::REVISION.to_owned(), revision);
        }
        if let Some(status) = plan.status {
            self.deployment.status = Some(status);
        }
        for set in &mut self.sets {
            let (wanted, still) = (size(set), available(set));
            let status = set.status.get_or_insert_default();
            status.replicas = wanted;
            status.available_replicas = Some(still.min(wanted));
            status.ready_replicas = status.available_replicas;
        }
        changed
    }

    /// Up to `count` pods become available, in the set of this position.
    fn become_available(&mut self, which: usize, count: i32) {
        let many = self.sets.len();
        if let Some(set) = self.sets.get_mut(which % many.max(1)) {
            let wanted = size(set);
            let status = set.status.get_or_insert_default();
            let now = (status.available_replicas.unwrap_or(0) + count).min(wanted);
            status.available_replicas = Some(now);
            status.ready_replicas = Some(now);
        }
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(size).sum()
    }

    fn available(&self) -> i32 {
        self.sets.iter().map(available).sum()
    }

    fn settle(&mut self) {
        for _ in 0..500 {
            for which in 0..self.sets.len() {
                self.become_available(which, 1000);
            }
            if !self.reconcile() && self.condition("Progressing").1 == "NewReplicaSetAvailable" {
                return;
            }
        }
        panic!("does not settle: {:?}", self.deployment.status);
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let status = self.deployment.status.clone().unwrap_or_default();
        let all = status.conditions.unwrap_or_default();
        let found = all
            .into_iter()
            .find(|item| item.type_.as_deref() == Some(kind));
        let found: DeploymentCondition = found.unwrap_or_default();
        (
            found.status.unwrap_or_default(),
            found.reason.unwrap_or_default(),
        )
    }

    fn image(&mut self, image: &str) {
        let spec = self.deployment.spec.template.spec.as_mut().unwrap();
        spec.containers[0].image = Some(image.to_owned());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_rollout_stays_within_surge_and_unavailability(
        replicas in 1i32..40,
        surge in prop_oneof![Just("0".to_owned()), Just("25%".to_owned()), Just("7".to_owned())],
        below in prop_oneof![Just("0".to_owned()), Just("25%".to_owned()), Just("3".to_owned())],
        steps in prop::collection::vec((0usize..4, 0i32..6, 0u8..12), 1..60),
    ) {
        let mut deployment = testing::deployment("a", "web", replicas);
        let value = |text: &str| match text.parse() {
            Ok(number) => IntOrString::Int(number),
            Err(_) => IntOrString::String(text.to_owned()),
        };
        let rolling = deployment.spec.strategy.as_mut().unwrap().rolling_update.as_mut().unwrap();
        rolling.max_surge = Some(value(&surge));
        rolling.max_unavailable = Some(value(&below));
        let most = replicas + limits::max_surge(&deployment);
        let least = replicas - limits::max_unavailable(&deployment);
        let mut cluster = Cluster::new(deployment);
        cluster.settle();
        cluster.image("x:2");
        for (which, count, event) in steps {
            // Now and then another rollout begins in the middle of this one.
            if event == 0 {
                cluster.image(&format!("x:{count}"));
            }
            cluster.reconcile();
            prop_assert!(cluster.total() <= most, "{} pods of at most {most}", cluster.total());
            prop_assert!(
                cluster.available() >= least,
                "{} available of at least {least}", cluster.available()
            );
            cluster.become_available(which, count);
        }
        cluster.settle();
        prop_assert_eq!(cluster.total(), replicas);
        prop_assert_eq!(cluster.available(), replicas);
        prop_assert!(cluster.sets.len() <= 3, "history limit 2 and the new set");
    }

    #[test]
    fn resizing_in_mid_rollout_shares_out_and_settles(
        from in 2i32..30, to in 0i32..30, ready in 0i32..10,
    ) {
        let mut cluster = Cluster::new(testing::deployment("a", "web", from));
        cluster.settle();
        cluster.image("x:2");
        cluster.reconcile();
        cluster.reconcile();
        cluster.become_available(1, ready);
        cluster.deployment.spec.replicas = Some(to);
        let most = match to {
            0 => 0,
            to => to + limits::max_surge(&cluster.deployment),
        };
        cluster.reconcile();
        prop_assert!(cluster.total() <= most.max(to), "{} of {most}", cluster.total());
        cluster.settle();
        prop_assert_eq!(cluster.total(), to);
    }
}

#[test]
fn going_back_reuses_the_old_set_as_a_new_revision() {
    let mut cluster = Cluster::new(testing::deployment("a", "web", 2));
    cluster.settle();
    cluster.image("x:2");
    cluster.settle();
    assert_eq!(cluster.sets.len(), 2);
    cluster.image("x:1");
    cluster.settle();
    assert_eq!(cluster.sets.len(), 2);
    let back = cluster.sets.iter().find(|set| size(set) == 2).unwrap();
    assert_eq!(revision::revision_of(back), 3);
    assert_eq!(revision::annotation(back, revision::HISTORY), Some("1"));
    assert_eq!(revision::annotation(back, "note"), Some("kept"));
    let annotations = cluster.deployment.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations[revision::REVISION], "3");
}

#[test]
fn a_pause_stops_rollouts_but_not_resizing() {
    let mut cluster = Cluster::new(testing::deployment("a", "web", 2));
    cluster.settle();
    cluster.deployment.spec.paused = Some(true);
    cluster.image("x:2");
    cluster.reconcile();
    assert_eq!(cluster.sets.len(), 1);
    assert_eq!(
        cluster.condition("Progressing"),
        ("Unknown".into(), "DeploymentPaused".into())
    );
    cluster.deployment.spec.replicas = Some(5);
    cluster.reconcile();
    assert_eq!(cluster.total(), 5);
    cluster.deployment.spec.paused = None;
    cluster.reconcile();
    assert_eq!(cluster.condition("Progressing").1, "NewReplicaSetCreated");
    cluster.settle();
    assert_eq!(cluster.sets.iter().filter(|set| size(set) == 5).count(), 1);
}

#[test]
fn a_rollout_that_does_not_move_misses_its_deadline() {
    let mut cluster = Cluster::new(testing::deployment("a", "web", 2));
    cluster.reconcile();
    cluster.reconcile();
    assert_eq!(
        cluster.condition("Available").1,
        "MinimumReplicasUnavailable"
    );
    cluster.now += SignedDuration::from_secs(599);
    cluster.reconcile();
    cluster.now += SignedDuration::from_secs(5);
    cluster.reconcile();
    let late = ("False".to_owned(), "ProgressDeadlineExceeded".to_owned());
    assert_eq!(cluster.condition("Progressing"), late);
    cluster.become_available(0, 2);
    cluster.reconcile();
    assert_eq!(cluster.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_out_goes_back_and_shrinks() {
    let fake = FakeApi::new(FakeClock::shared());
    let mut world = testing::World::new(&fake);
    world.spawn(|context| Box::pin(super::run(context)));
    world.spawn(|context| Box::pin(crate::replicaset::run(context)));
    fake.put(&testing::deployment("a", "web", 3));
    let done = |image: &'static str, replicas: i32| {
        move |fake: &FakeApi| {
            testing::make_ready(fake);
            let deployment = fake.get::<Deployment>("a", "web")?;
            let status = deployment.status.clone()?;
            let pods = fake.all::<Pod>();
            let good = pods.iter().filter(|pod| {
                pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image)
            });
            (good.count() == pods.len()
                && status.updated_replicas == Some(replicas)
                && status.available_replicas == Some(replicas)
                && status.replicas == Some(replicas)
                && status.observed_generation == deployment.metadata.generation)
                .then_some(())
        }
    };
    fake.wait_for("three", done("x:1", 3)).await;
    let change = |fake: &FakeApi, work: &dyn Fn(&mut Deployment)| {
        let mut deployment = fake.get::<Deployment>("a", "web").unwrap();
        work(&mut deployment);
        deployment.metadata.generation = deployment.metadata.generation.map(|it| it + 1);
        fake.put(&deployment);
    };
    let image = |text: &'static str| {
        move |deployment: &mut Deployment| {
            let spec = deployment.spec.template.spec.as_mut().unwrap();
            spec.containers[0].image = Some(text.to_owned());
        }
    };
    change(&fake, &image("x:2"));
    fake.wait_for("rolled out", done("x:2", 3)).await;
    change(&fake, &image("x:1"));
    fake.wait_for("rolled back", done("x:1", 3)).await;
    assert_eq!(fake.all::<ReplicaSet>().len(), 2);
    change(&fake, &|deployment| deployment.spec.replicas = Some(1));
    fake.wait_for("one", done("x:1", 1)).await;
    change(&fake, &|deployment| {
        deployment.spec.strategy =
            Some(serde_json::from_value(json!({"type": "Recreate"})).unwrap());
        image("x:3")(deployment);
    });
    fake.wait_for("recreated", done("x:3", 1)).await;
    fake.wait_for("the condition", |fake| {
        let status = fake.get::<Deployment>("a", "web")?.status?;
        let conditions = status.conditions.unwrap_or_default();
        let done = conditions.iter().any(|item| {
            item.reason.as_deref() == Some("NewReplicaSetAvailable")
                && item
                    .message
                    .as_ref()
                    .is_some_and(|text| text.ends_with("successfully progressed."))
        });
        done.then_some(())
    })
    .await;
    let events = fake.all::<Event>();
    let messages: Vec<_> = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("ScalingReplicaSet"))
        .filter_map(|event| event.message.clone())
        .collect();
    assert!(
        messages
            .iter()
            .any(|text| text.starts_with("Scaled up replica set web-")
                && text.ends_with("from 0 to 3")),
        "{messages:?}"
    );
    world.end().await;
}
