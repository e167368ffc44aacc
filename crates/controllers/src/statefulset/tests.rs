//! StatefulSets: rules by table and property, and whole lives against the fake.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::identity::{self, name, ordinal, revision};
use super::plan::{Action, Revisions, World, plan};
use super::{retention, rollout, status};
use crate::history::{self, Owner, Step};
use crate::{claim, testing};

fn set(spec: Value) -> StatefulSet {
    let mut whole = json!({
        "metadata": {"name": "db", "namespace": "a", "uid": "set-1", "generation": 1},
        "spec": {
            "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "main", "image": "x:1"}]},
            },
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

const CLAIMS: &str =
    r#"[{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]"#;

/// A cluster as pure as the plan: pods come and go when told.
struct Cluster {
    set: StatefulSet,
    history: Vec<Arc<ControllerRevision>>,
    pods: BTreeMap<String, Pod>,
    claims: BTreeMap<String, PersistentVolumeClaim>,
    now: Timestamp,
    counter: u32,
}

impl Cluster {
    fn new(set: StatefulSet) -> Self {
        Self {
            set,
            history: Vec::new(),
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            now: Timestamp::from_second(1_767_225_600).unwrap(),
            counter: 0,
        }
    }

    fn revisions(&mut self) -> Revisions {
        let owner = Owner {
            meta: &self.set.metadata,
            reference: claim::reference_to(&self.set),
            template: &self.set.spec.template,
            collisions: None,
        };
        let update = match history::step(&owner, &self.history) {
            Step::Keep(kept) => kept,
            Step::Create(made) => Arc::new(*made),
            Step::Renumber(new) => Arc::new(*new),
        };
        self.history
            .retain(|item| history::name(item) != history::name(&update));
        self.history.push(Arc::clone(&update));
        history::sort(&mut self.history);
        let current = self
            .set
            .status
            .as_ref()
            .and_then(|it| it.current_revision.clone());
        let mut all = self.history.iter();
        let current = all.find(|item| Some(history::name(item)) == current.as_deref());
        let current = Arc::clone(current.unwrap_or(&update));
        Revisions { current, update }
    }

    fn mine(&self) -> Vec<Arc<Pod>> {
        self.pods.values().cloned().map(Arc::new).collect()
    }

    /// One round. Returns what was done.
    fn reconcile(&mut self) -> Vec<Action> {
        self.now += SignedDuration::from_secs(1);
        let revisions = self.revisions();
        let pods = self.mine();
        let claims = self.claims.clone();
        let actions = plan(&World {
            set: &self.set,
            revisions: &revisions,
            pods: &pods,
            claim: &|name| claims.get(name).cloned().map(Arc::new),
            now: self.now,
        });
        for action in actions.clone() {
            self.act(action);
        }
        let mine = self.mine();
        let status = status::status(&self.set, &revisions, 0, &mine, self.now);
        self.set.status = Some(status);
        actions
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Create { mut pod, claims } => {
                self.counter += 1;
                pod.metadata.uid = Some(format!("pod-{}", self.counter));
                pod.metadata.creation_timestamp = Some(Time(self.now));
                pod.status = Some(serde_json::from_value(json!({"phase": "Pending"})).unwrap());
                let old = self.pods.insert(name(&pod.metadata).to_owned(), *pod);
                assert!(old.is_none(), "two pods of one name");
                self.take(claims);
            }
            Action::CreateClaims { claims, .. } => self.take(claims),
            Action::Update { pod, claims } => {
                self.pods.insert(name(&pod.metadata).to_owned(), *pod);
                self.take(claims);
            }
            Action::Own { claim, .. } => {
                self.claims.insert(name(&claim.metadata).to_owned(), *claim);
            }
            Action::Delete(pod) => {
                let pod = self.pods.get_mut(name(&pod.metadata)).unwrap();
                pod.metadata.deletion_timestamp = Some(Time(self.now));
            }
            Action::Blocked { .. } => {}
        }
    }

    fn take(&mut self, claims: Vec<PersistentVolumeClaim>) {
        for claim in claims {
            let old = self.claims.insert(name(&claim.metadata).to_owned(), claim);
            assert!(old.is_none(), "a claim is never replaced");
        }
    }

    fn make_ready(&mut self, which: &str) {
        let now = self.now;
        if let Some(pod) = self.pods.get_mut(which)
            && pod.metadata.deletion_timestamp.is_none()
        {
            let ready = json!({"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": Time(now)},
            ]});
            pod.status = Some(serde_json::from_value(ready).unwrap());
        }
    }

    fn fail(&mut self, which: &str) {
        if let Some(pod) = self.pods.get_mut(which) {
            pod.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
        }
    }

    fn unready(&mut self, which: &str) {
        if let Some(pod) = self.pods.get_mut(which) {
            pod.status = Some(serde_json::from_value(json!({"phase": "Running"})).unwrap());
        }
    }

    /// Pods on their way out end.
    fn end_all(&mut self) {
        self.pods
            .retain(|_, pod| pod.metadata.deletion_timestamp.is_none());
    }

    fn names(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    fn image(&mut self, image: &str) {
        let spec = self.set.spec.template.spec.as_mut().unwrap();
        spec.containers[0].image = Some(image.to_owned());
    }

    fn settle(&mut self) {
        for _ in 0..400 {
            for pod in self.names() {
                self.make_ready(&pod);
            }
            self.end_all();
            if self.reconcile().is_empty() && self.available() == identity::wanted(&self.set) {
                return;
            }
        }
        panic!("does not settle: {:?} {:?}", self.names(), self.set.status);
    }

    fn available(&self) -> i32 {
        let status = self.set.status.as_ref();
        status.and_then(|it| it.available_replicas).unwrap_or(0)
    }

    fn images(&self) -> Vec<String> {
        let image = |pod: &Pod| {
            pod.spec.as_ref().unwrap().containers[0]
                .image
                .clone()
                .unwrap()
        };
        self.pods.values().map(image).collect()
    }
}

#[test]
fn names_are_read_as_the_reference_reads_them() {
    assert_eq!(identity::parse("db-0"), Some(("db", 0)));
    assert_eq!(identity::parse("a-b-17"), Some(("a-b", 17)));
    assert_eq!(identity::parse("db-x"), None);
    assert_eq!(identity::parse("db-"), None);
    assert_eq!(identity::parse("db-99999999999"), None);
    assert_eq!(identity::parse("db"), None);
}

#[test]
fn an_ordered_set_comes_up_one_by_one_and_goes_down_from_the_top() {
    let mut cluster = Cluster::new(set(json!({})));
    for count in 1..=3 {
        assert_eq!(cluster.reconcile().len(), 1);
        assert_eq!(cluster.pods.len(), count);
        assert!(cluster.reconcile().is_empty(), "waits for the last one");
        cluster.make_ready(&format!("db-{}", count - 1));
    }
    let pod = &cluster.pods["db-1"];
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("db-1"));
    assert_eq!(spec.subdomain.as_deref(), Some("db"));
    assert_eq!(history::label(&pod.metadata, identity::POD_NAME), "db-1");
    assert_eq!(history::label(&pod.metadata, identity::POD_INDEX), "1");
    cluster.set.spec.replicas = Some(1);
    for left in [2, 1] {
        assert_eq!(cluster.reconcile().len(), 1);
        assert!(cluster.reconcile().is_empty(), "waits for its end");
        cluster.end_all();
        assert_eq!(cluster.pods.len(), left);
    }
    assert_eq!(cluster.names(), ["db-0"]);
}

#[test]
fn a_sick_pod_stops_the_way_down_unless_it_is_the_one_that_goes() {
    let mut cluster = Cluster::new(set(json!({"replicas": 4})));
    cluster.settle();
    cluster.set.spec.replicas = Some(2);
    cluster.unready("db-2");
    assert_eq!(cluster.reconcile().len(), 1, "db-3 is healthy and goes");
    cluster.end_all();
    assert_eq!(cluster.reconcile().len(), 1, "db-2 is the first sick one");
    cluster.end_all();
    assert_eq!(cluster.names(), ["db-0", "db-1"]);

    let mut cluster = Cluster::new(set(json!({"replicas": 4})));
    cluster.settle();
    cluster.set.spec.replicas = Some(2);
    cluster.unready("db-3");
    cluster.unready("db-2");
    assert!(cluster.reconcile().is_empty(), "db-2 must be healthy first");
}

#[test]
fn a_parallel_set_does_all_at_once() {
    let mut cluster = Cluster::new(set(
        json!({"replicas": 5, "podManagementPolicy": "Parallel"}),
    ));
    assert_eq!(cluster.reconcile().len(), 5);
    cluster.set.spec.replicas = Some(1);
    assert_eq!(cluster.reconcile().len(), 4);
    cluster.end_all();
    assert_eq!(cluster.names(), ["db-0"]);
}

#[test]
fn ordinals_start_where_asked_and_others_are_condemned() {
    let mut cluster = Cluster::new(set(json!({"replicas": 2})));
    cluster.settle();
    let ordinals = json!({"start": 1});
    cluster.set.spec.ordinals = Some(serde_json::from_value(ordinals).unwrap());
    cluster.settle();
    assert_eq!(cluster.names(), ["db-1", "db-2"]);
}

#[test]
fn what_ended_is_replaced_whatever_way_it_ended() {
    let mut cluster = Cluster::new(set(json!({})));
    cluster.settle();
    let before = cluster.pods["db-1"].metadata.uid.clone();
    cluster.fail("db-1");
    assert!(matches!(
        cluster.reconcile().as_slice(),
        [Action::Delete(_)]
    ));
    cluster.settle();
    assert_ne!(cluster.pods["db-1"].metadata.uid, before);
}

#[test]
fn a_partition_keeps_the_lower_ordinals_and_restores_them_as_they_were() {
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    let mut cluster = Cluster::new(set(json!({"replicas": 4, "updateStrategy": rolling})));
    cluster.settle();
    cluster.image("x:2");
    cluster.settle();
    assert_eq!(cluster.images(), ["x:1", "x:1", "x:2", "x:2"]);
    // One of the old that is lost comes back old.
    cluster.pods.remove("db-0");
    cluster.settle();
    assert_eq!(cluster.images(), ["x:1", "x:1", "x:2", "x:2"]);
    let status = cluster.set.status.clone().unwrap();
    assert_ne!(status.current_revision, status.update_revision);
    assert_eq!(status.updated_replicas, Some(2));
    let rolling = cluster.set.spec.update_strategy.as_mut().unwrap();
    rolling.rolling_update.as_mut().unwrap().partition = Some(0);
    cluster.settle();
    assert_eq!(cluster.images(), ["x:2"; 4]);
    let status = cluster.set.status.clone().unwrap();
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!(status.current_replicas, Some(4));
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let strategy = json!({"type": "OnDelete"});
    let mut cluster = Cluster::new(set(json!({"updateStrategy": strategy})));
    cluster.settle();
    cluster.image("x:2");
    cluster.settle();
    assert_eq!(cluster.images(), ["x:1"; 3]);
    cluster.pods.remove("db-1");
    cluster.settle();
    assert_eq!(cluster.images(), ["x:1", "x:2", "x:1"]);
}

#[test]
fn a_parallel_rollout_takes_the_sick_first_and_spares_the_healthy() {
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}});
    let spec = json!({
        "replicas": 5, "podManagementPolicy": "Parallel", "updateStrategy": rolling,
    });
    let mut cluster = Cluster::new(set(spec));
    cluster.settle();
    cluster.unready("db-0");
    cluster.image("x:2");
    let gone: Vec<_> = cluster
        .reconcile()
        .into_iter()
        .map(|action| match action {
            Action::Delete(pod) => name(&pod.metadata).to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(gone, ["db-0", "db-4"]);
}

#[test]
fn claims_are_made_once_and_outlive_their_pods() {
    let claims: Value = serde_json::from_str(CLAIMS).unwrap();
    let mut cluster = Cluster::new(set(json!({"volumeClaimTemplates": claims})));
    cluster.settle();
    let names: Vec<_> = cluster.claims.keys().cloned().collect();
    assert_eq!(names, ["data-db-0", "data-db-1", "data-db-2"]);
    let labels = cluster.claims["data-db-0"].metadata.labels.clone().unwrap();
    assert_eq!(labels["app"], "db");
    let volumes = cluster.pods["db-2"].spec.clone().unwrap().volumes.unwrap();
    let source = volumes[0].persistent_volume_claim.clone().unwrap();
    assert_eq!(source.claim_name, "data-db-2");
    cluster.set.spec.replicas = Some(1);
    cluster.settle();
    cluster.set.spec.replicas = Some(3);
    cluster.settle();
    assert_eq!(cluster.claims.len(), 3);
    assert!(cluster.claims.values().all(|claim| {
        let owners = claim.metadata.owner_references.as_ref();
        owners.is_none_or(Vec::is_empty)
    }));
}

#[test]
fn a_claim_on_its_way_out_blocks_its_pod_and_says_so() {
    let claims: Value = serde_json::from_str(CLAIMS).unwrap();
    let mut cluster = Cluster::new(set(json!({"volumeClaimTemplates": claims})));
    cluster.settle();
    cluster.pods.remove("db-1");
    let claim = cluster.claims.get_mut("data-db-1").unwrap();
    claim.metadata.deletion_timestamp = Some(Time(cluster.now));
    match cluster.reconcile().as_slice() {
        [Action::Blocked { why, .. }] => assert_eq!(why, "pvc data-db-1 is being deleted"),
        other => panic!("{other:?}"),
    }
    cluster.claims.remove("data-db-1");
    cluster.settle();
    assert_eq!(cluster.claims.len(), 3);
}

#[test]
fn the_retention_policy_is_written_as_owners() {
    let claims: Value = serde_json::from_str(CLAIMS).unwrap();
    let owners = |cluster: &Cluster, claim: &str| -> Vec<String> {
        let owners = cluster.claims[claim].metadata.owner_references.clone();
        owners
            .unwrap_or_default()
            .into_iter()
            .map(|owner| owner.kind)
            .collect()
    };
    let retain = ("Retain", "Retain");
    for (deleted, scaled) in [
        retain,
        ("Delete", "Retain"),
        ("Retain", "Delete"),
        ("Delete", "Delete"),
    ] {
        let policy = json!({"whenDeleted": deleted, "whenScaled": scaled});
        let mut cluster = Cluster::new(set(json!({
            "volumeClaimTemplates": claims, "persistentVolumeClaimRetentionPolicy": policy,
        })));
        cluster.settle();
        let kept: &[&str] = if deleted == "Delete" {
            &["StatefulSet"]
        } else {
            &[]
        };
        assert_eq!(owners(&cluster, "data-db-2"), kept, "{deleted} {scaled}");
        cluster.set.spec.replicas = Some(2);
        cluster.reconcile();
        let condemned = if scaled == "Delete" { &["Pod"] } else { kept };
        assert_eq!(
            owners(&cluster, "data-db-2"),
            condemned,
            "{deleted} {scaled}"
        );
        assert_eq!(owners(&cluster, "data-db-1"), kept);
    }
}

#[test]
fn a_claim_another_controls_is_left_to_it() {
    let policy = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    let set = set(json!({"persistentVolumeClaimRetentionPolicy": policy}));
    let pod = testing::pod("a", "db-0", &[]);
    let mut claim = PersistentVolumeClaim::default();
    claim.metadata.owner_references = Some(vec![testing::owner("Backup", "nightly", "9")]);
    assert!(retention::is_contested(&set, &claim, &pod));
    assert_eq!(retention::wanted_owners(&set, &claim, &pod), None);
}

#[test]
fn limits_are_at_least_one() {
    let limit = |value: Value, replicas: i32| {
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": value}});
        rollout::max_unavailable(&set(
            json!({"replicas": replicas, "updateStrategy": rolling}),
        ))
    };
    assert_eq!(limit(json!("10%"), 5), 1);
    assert_eq!(limit(json!("50%"), 5), 2);
    assert_eq!(limit(json!(3), 5), 3);
    assert_eq!(
        rollout::max_unavailable(&set(json!({"updateStrategy": {}}))),
        1
    );
}

#[derive(Debug, Clone)]
enum Fate {
    Ready(i32),
    Unready(i32),
    Fail(i32),
    End,
    Lose(i32),
    Image(u8),
    Scale(i32),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => (0..8i32).prop_map(Fate::Ready),
        1 => (0..8i32).prop_map(Fate::Unready),
        1 => (0..8i32).prop_map(Fate::Fail),
        3 => Just(Fate::End),
        1 => (0..8i32).prop_map(Fate::Lose),
        1 => (1..4u8).prop_map(Fate::Image),
        1 => (0..7i32).prop_map(Fate::Scale),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_order_and_limits_hold_and_the_set_arrives(
        replicas in 0..6i32, parallel: bool, most in 1..4i32, partition in 0..4i32,
        fates in prop::collection::vec(fate(), 1..60),
    ) {
        let claims: Value = serde_json::from_str(CLAIMS).unwrap();
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let rolling = json!({"maxUnavailable": most, "partition": partition});
        let mut cluster = Cluster::new(set(json!({
            "replicas": replicas, "podManagementPolicy": policy, "volumeClaimTemplates": claims,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        })));
        for fate in fates {
            match fate {
                Fate::Ready(n) => cluster.make_ready(&format!("db-{n}")),
                Fate::Unready(n) => cluster.unready(&format!("db-{n}")),
                Fate::Fail(n) => cluster.fail(&format!("db-{n}")),
                Fate::End => cluster.end_all(),
                Fate::Lose(n) => { cluster.pods.remove(&format!("db-{n}")); }
                Fate::Image(n) => cluster.image(&format!("x:{n}")),
                Fate::Scale(n) => cluster.set.spec.replicas = Some(n),
            }
            let before = cluster.pods.clone();
            let wanted = identity::range(&cluster.set);
            let actions = cluster.reconcile();
            let update = cluster.set.status.clone().unwrap().update_revision.unwrap();
            let healthy = |pod: &Pod| {
                crate::pods::is_ready(pod) && pod.metadata.deletion_timestamp.is_none()
            };
            let sick = wanted.clone().filter(|n| {
                !before.get(&format!("db-{n}")).is_some_and(healthy)
            }).count();
            let mut disrupted = 0;
            for action in &actions {
                match action {
                    Action::Delete(pod) => {
                        prop_assert!(before.contains_key(name(&pod.metadata)), "not ours");
                        let inside = ordinal(pod).is_some_and(|n| wanted.contains(&n));
                        if inside && healthy(pod) {
                            disrupted += 1;
                            prop_assert_ne!(revision(pod), update.as_str(), "for no reason");
                            prop_assert!(ordinal(pod).unwrap() >= partition, "below partition");
                        }
                    }
                    Action::Create { pod, .. } => {
                        let n = ordinal(pod).unwrap();
                        prop_assert!(wanted.contains(&n));
                        let lower = (0..n).all(|n| {
                            before.get(&format!("db-{n}")).is_some_and(healthy)
                        });
                        prop_assert!(parallel || lower, "db-{n} before its predecessors");
                    }
                    _ => {}
                }
            }
            let most = usize::try_from(most).unwrap();
            prop_assert!(
                disrupted == 0 || disrupted + sick <= most,
                "{disrupted} of {most} disrupted, {sick} sick already"
            );
            let created = actions.iter().filter(|it| matches!(it, Action::Create { .. })).count();
            prop_assert!(parallel || created <= 1, "{created} at once");
        }
        cluster.settle();
        let names: Vec<_> = identity::range(&cluster.set).map(|n| format!("db-{n}")).collect();
        prop_assert_eq!(cluster.names(), names);
    }
}

/// Ends what waits for its end on a node, and makes the rest ready.
fn act_as_node(fake: &FakeApi) {
    testing::make_ready(fake);
}

#[tokio::test(start_paused = true)]
async fn a_set_lives_rolls_goes_back_and_shrinks() {
    let fake = FakeApi::new(FakeClock::shared());
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    let claims: Value = serde_json::from_str(CLAIMS).unwrap();
    let mut made = set(json!({"volumeClaimTemplates": claims}));
    made.metadata.uid = None;
    fake.put(&made);
    let done = |image: &'static str, replicas: usize| {
        move |fake: &FakeApi| {
            act_as_node(fake);
            let status = fake.get::<StatefulSet>("a", "db")?.status?;
            let pods = fake.all::<Pod>();
            let good = pods.iter().all(|pod| {
                pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image)
            });
            let all = i32::try_from(replicas).unwrap();
            (good
                && pods.len() == replicas
                && status.available_replicas == Some(all)
                && status.updated_replicas == Some(all)
                && status.current_revision == status.update_revision)
                .then_some(())
        }
    };
    fake.wait_for("three", done("x:1", 3)).await;
    let change = |work: &dyn Fn(&mut StatefulSet)| {
        let mut set = fake.get::<StatefulSet>("a", "db").unwrap();
        work(&mut set);
        set.metadata.generation = set.metadata.generation.map(|it| it + 1);
        fake.put(&set);
    };
    let image = |text: &'static str| {
        move |set: &mut StatefulSet| {
            let spec = set.spec.template.spec.as_mut().unwrap();
            spec.containers[0].image = Some(text.to_owned());
        }
    };
    change(&image("x:2"));
    fake.wait_for("rolled out", done("x:2", 3)).await;
    change(&image("x:1"));
    fake.wait_for("rolled back", done("x:1", 3)).await;
    let revisions = fake.all::<ControllerRevision>();
    let mut numbers: Vec<_> = revisions.iter().map(history::number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
    change(&|set| set.spec.replicas = Some(1));
    fake.wait_for("one", done("x:1", 1)).await;
    assert_eq!(fake.all::<PersistentVolumeClaim>().len(), 3);
    fake.wait_for("events", |fake| {
        let events = fake.all::<Event>();
        let told = |text: &str| events.iter().any(|it| it.message.as_deref() == Some(text));
        (told("Create Pod db-0 in StatefulSet db successful")
            && told("Create Claim data-db-0 Pod db-0 in StatefulSet db success")
            && told("Delete Pod db-2 in StatefulSet db successful"))
        .then_some(())
    })
    .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_create_is_told_and_tried_again() {
    let fake = FakeApi::new(FakeClock::shared());
    let why = "pods \"db-0\" is forbidden: exceeded quota: small";
    fake.fail_next("create", "pods", 403, "Forbidden", why);
    let mut made = set(json!({"replicas": 1}));
    made.metadata.uid = None;
    fake.put(&made);
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    fake.wait_for("the event", |fake| {
        let events = fake.all::<Event>();
        let wanted = format!("Create Pod db-0 in StatefulSet db failed error: {why}");
        let mut found = events
            .iter()
            .filter(|it| it.reason.as_deref() == Some("FailedCreate"));
        found
            .any(|it| it.message.as_deref() == Some(wanted.as_str()))
            .then_some(())
    })
    .await;
    fake.wait_for("the pod", |fake| fake.get::<Pod>("a", "db-0"))
        .await;
    world.end().await;
}
