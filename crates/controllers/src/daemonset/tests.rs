//! DaemonSets: rules by table and property, and whole lives against the fake.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::fit::{self, Fit, Rule};
use super::plan::{Plan, World, plan};
use super::{rollout, status};
use crate::history::{self, HASH_LABEL, label};
use crate::testing;

fn set(spec: Value) -> DaemonSet {
    let mut whole = json!({
        "metadata": {"name": "agent", "namespace": "a", "generation": 1},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}}, "revisionHistoryLimit": 10,
            "updateStrategy": {
                "type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
            },
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "main", "image": "x:1"}]},
            },
        },
    });
    merge(&mut whole["spec"], &spec);
    serde_json::from_value(whole).unwrap()
}

fn merge(target: &mut Value, more: &Value) {
    match more.as_object() {
        Some(fields) if target.is_object() => {
            for (key, value) in fields {
                merge(&mut target[key], value);
            }
        }
        _ => *target = more.clone(),
    }
}

fn node(name: &str, taints: Value) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"disk": "ssd", "cores": "8"}},
        "spec": {"taints": taints},
    }))
    .unwrap()
}

fn template_spec(spec: Value) -> Value {
    json!({"template": {"spec": spec}})
}

#[test]
fn which_nodes_fit() {
    let (yes, no) = (
        Fit {
            run: true,
            stay: true,
        },
        Fit {
            run: false,
            stay: false,
        },
    );
    let stay = Fit {
        run: false,
        stay: true,
    };
    let affinity = |expressions: Value| {
        let required = json!({"nodeSelectorTerms": [expressions]});
        let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": required});
        template_spec(json!({"affinity": {"nodeAffinity": affinity}}))
    };
    let expression = |key: &str, operator: &str, values: Value| {
        affinity(
            json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}),
        )
    };
    let taint = |effect: &str| json!([{"key": "gpu", "effect": effect}]);
    let tolerate = template_spec(json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]}));
    let cordoned = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
    let network =
        json!([{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}]);
    for (spec, taints, wanted) in [
        (json!({}), json!([]), yes),
        (json!({}), taint("NoSchedule"), stay),
        (json!({}), taint("NoExecute"), no),
        (json!({}), taint("PreferNoSchedule"), yes),
        (tolerate, taint("NoExecute"), yes),
        (json!({}), cordoned, yes),
        (json!({}), network.clone(), stay),
        (template_spec(json!({"hostNetwork": true})), network, yes),
        (
            template_spec(json!({"nodeSelector": {"disk": "ssd"}})),
            json!([]),
            yes,
        ),
        (
            template_spec(json!({"nodeSelector": {"disk": "tape"}})),
            json!([]),
            no,
        ),
        (template_spec(json!({"nodeName": "other"})), json!([]), no),
        (
            expression("disk", "In", json!(["ssd", "nvme"])),
            json!([]),
            yes,
        ),
        (expression("disk", "NotIn", json!(["ssd"])), json!([]), no),
        (expression("cores", "Gt", json!(["4"])), json!([]), yes),
        (expression("cores", "Lt", json!(["4"])), json!([]), no),
        (
            expression("zone", "DoesNotExist", json!([])),
            json!([]),
            yes,
        ),
        (affinity(json!({})), json!([]), no),
    ] {
        let set = set(spec.clone());
        assert_eq!(
            Rule::of(&set).fit(&node("one", taints.clone())),
            wanted,
            "{spec} {taints}"
        );
    }
}

#[test]
fn tolerations_are_added_once_and_without_end() {
    let mut spec = set(template_spec(json!({"tolerations": [
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
         "tolerationSeconds": 300},
        {"key": "gpu", "operator": "Exists"},
    ]})))
    .spec
    .template
    .spec
    .unwrap();
    fit::add_tolerations(&mut spec);
    fit::add_tolerations(&mut spec);
    let tolerations = spec.tolerations.unwrap();
    assert_eq!(tolerations.len(), 7);
    assert_eq!(tolerations[0].toleration_seconds, None);
}

#[test]
fn a_pod_is_pinned_and_found_by_its_pin() {
    let preferred = json!([{"weight": 1, "preference": {}}]);
    let affinity = json!({"preferredDuringSchedulingIgnoredDuringExecution": preferred});
    let spec = template_spec(json!({"affinity": {"nodeAffinity": affinity}}));
    let mut pod = testing::pod("a", "agent-x", &[]);
    pod.spec = set(spec).spec.template.spec;
    assert_eq!(fit::target(&pod), None);
    fit::pin(pod.spec.as_mut().unwrap(), "one");
    assert_eq!(fit::target(&pod), Some("one"));
    let affinity = pod
        .spec
        .clone()
        .unwrap()
        .affinity
        .unwrap()
        .node_affinity
        .unwrap();
    assert!(
        affinity
            .preferred_during_scheduling_ignored_during_execution
            .is_some()
    );
    pod.spec.as_mut().unwrap().node_name = Some("two".into());
    assert_eq!(fit::target(&pod), Some("two"));
}

/// A cluster as pure as the plan.
struct Cluster {
    set: DaemonSet,
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<String, Pod>,
    backoff: Backoff,
    now: Timestamp,
    counter: u32,
}

impl Cluster {
    fn new(set: DaemonSet, nodes: u32) -> Self {
        let named = |at: u32| (format!("n{at}"), node(&format!("n{at}"), json!([])));
        Self {
            set,
            nodes: (0..nodes).map(named).collect(),
            pods: BTreeMap::new(),
            backoff: Backoff::default(),
            now: Timestamp::from_second(1_767_225_600).unwrap(),
            counter: 0,
        }
    }

    fn hash(&self) -> String {
        history::hash_of(&history::patch_of(&self.set.spec.template), None)
    }

    fn reconcile(&mut self) -> Plan {
        self.now += SignedDuration::from_secs(1);
        let hash = self.hash();
        let nodes: Vec<_> = self.nodes.values().cloned().map(Arc::new).collect();
        let pods: Vec<_> = self.pods.values().cloned().map(Arc::new).collect();
        let plan = plan(&World {
            set: &self.set,
            hash: &hash,
            nodes: &nodes,
            pods: &pods,
            backoff: &self.backoff,
            now: self.now,
        });
        for node in &plan.failed {
            self.backoff.note(node, self.now);
        }
        for node in &plan.create {
            self.counter += 1;
            let name = format!("agent-{:03}", self.counter);
            let mut pod = testing::pod("a", &name, &[("app", "agent"), (HASH_LABEL, &hash)]);
            pod.metadata.uid = Some(name.clone());
            pod.metadata.creation_timestamp = Some(Time(self.now));
            pod.spec = self.set.spec.template.spec.clone();
            fit::pin(pod.spec.as_mut().unwrap(), node);
            self.pods.insert(name, pod);
        }
        for pod in &plan.delete {
            let pod = self
                .pods
                .get_mut(pod.metadata.name.as_ref().unwrap())
                .unwrap();
            pod.metadata.deletion_timestamp = Some(Time(self.now));
        }
        let pods: Vec<_> = self.pods.values().cloned().map(Arc::new).collect();
        self.set.status = Some(status::status(&self.set, &hash, &nodes, &pods, self.now));
        plan
    }

    fn on(&self, node: &str) -> Vec<&Pod> {
        let alive = self.pods.values();
        let alive = alive.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        alive.filter(|pod| fit::target(pod) == Some(node)).collect()
    }

    fn become_ready(&mut self, node: &str, ready: bool) {
        let now = self.now;
        for pod in self.pods.values_mut() {
            if fit::target(pod) == Some(node) && pod.metadata.deletion_timestamp.is_none() {
                let state = if ready { "True" } else { "False" };
                let status = json!({"phase": "Running", "conditions": [
                    {"type": "Ready", "status": state, "lastTransitionTime": Time(now)},
                ]});
                let was = crate::pods::is_ready(pod);
                if was != ready {
                    pod.status = Some(serde_json::from_value(status).unwrap());
                }
            }
        }
    }

    fn fail(&mut self, node: &str) {
        for pod in self.pods.values_mut() {
            if fit::target(pod) == Some(node) {
                pod.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
            }
        }
    }

    fn end_all(&mut self) {
        self.pods
            .retain(|_, pod| pod.metadata.deletion_timestamp.is_none());
    }

    fn image(&mut self, image: &str) {
        let spec = self.set.spec.template.spec.as_mut().unwrap();
        spec.containers[0].image = Some(image.to_owned());
    }

    fn taint(&mut self, node: &str, effect: Option<&str>) {
        let taints = effect.map(|effect| json!([{"key": "gpu", "effect": effect}]));
        self.nodes.insert(
            node.to_owned(),
            self::node(node, taints.unwrap_or(json!([]))),
        );
    }

    fn settle(&mut self) {
        for _ in 0..400 {
            for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
                self.become_ready(&node, true);
            }
            self.end_all();
            self.now += SignedDuration::from_mins(20);
            let plan = self.reconcile();
            if plan.create.is_empty() && plan.delete.is_empty() {
                return;
            }
        }
        panic!("does not settle: {:?}", self.set.status);
    }

    fn available(&self) -> usize {
        let alive = self.pods.values();
        let alive = alive.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        alive.filter(|pod| crate::pods::is_ready(pod)).count()
    }

    fn all_updated(&self) -> bool {
        let hash = self.hash();
        self.pods
            .values()
            .all(|pod| label(&pod.metadata, HASH_LABEL) == hash)
    }
}

#[test]
fn every_fitting_node_gets_one_and_loses_it_when_it_no_longer_fits() {
    let mut cluster = Cluster::new(set(json!({})), 3);
    cluster.taint("n1", Some("NoSchedule"));
    cluster.settle();
    assert_eq!(cluster.pods.len(), 2);
    let status = cluster.set.status.clone().unwrap();
    assert_eq!(status.desired_number_scheduled, 2);
    assert_eq!(status.number_available, Some(2));
    // One that runs may stay where no new one may come.
    cluster.taint("n0", Some("NoSchedule"));
    cluster.settle();
    assert_eq!(cluster.pods.len(), 2);
    assert_eq!(cluster.set.status.clone().unwrap().number_misscheduled, 1);
    cluster.taint("n0", Some("NoExecute"));
    cluster.settle();
    assert_eq!(cluster.pods.len(), 1);
    // Pinned to a node that went before it was bound: it goes too.
    cluster.nodes.insert("n9".into(), node("n9", json!([])));
    cluster.reconcile();
    cluster.nodes.remove("n9");
    cluster.settle();
    assert_eq!(cluster.pods.len(), 1);
}

#[test]
fn a_failed_one_is_replaced_and_again_only_after_a_while() {
    let mut cluster = Cluster::new(set(json!({})), 1);
    cluster.settle();
    cluster.fail("n0");
    let plan = cluster.reconcile();
    assert_eq!(plan.events[0].1, "FailedDaemonPod");
    assert!(
        plan.events[0]
            .2
            .ends_with("on node n0, will try to kill it")
    );
    cluster.end_all();
    cluster.reconcile();
    cluster.fail("n0");
    cluster.backoff.note("n0", cluster.now);
    let plan = cluster.reconcile();
    assert!(plan.delete.is_empty() && plan.create.is_empty());
    assert!(plan.look_again.is_some());
    cluster.settle();
}

#[test]
fn surge_brings_the_new_before_the_old_goes() {
    let rolling =
        json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}});
    let mut cluster = Cluster::new(set(rolling), 2);
    cluster.settle();
    cluster.image("x:2");
    let plan = cluster.reconcile();
    assert_eq!((plan.create.len(), plan.delete.len()), (1, 0));
    assert_eq!(cluster.on(&plan.create[0]).len(), 2);
    assert_eq!(cluster.available(), 2);
    let plan = cluster.reconcile();
    assert_eq!(
        (plan.create.len(), plan.delete.len()),
        (0, 0),
        "waits for the new one"
    );
    cluster.settle();
    assert!(cluster.all_updated());
    assert_eq!(cluster.pods.len(), 2);
}

#[test]
fn limits_are_rounded_up_and_never_both_zero() {
    let limits = |below: Value, surge: Value, nodes: i32| {
        let rolling = json!({"maxUnavailable": below, "maxSurge": surge});
        rollout::limits(
            &set(json!({"updateStrategy": {"rollingUpdate": rolling}})),
            nodes,
        )
    };
    assert_eq!(limits(json!("10%"), json!(0), 15), (0, 2));
    assert_eq!(limits(json!(0), json!("10%"), 15), (2, 0));
    assert_eq!(limits(json!(0), json!(0), 15), (0, 1));
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let strategy = json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}});
    let mut cluster = Cluster::new(set(strategy), 2);
    cluster.settle();
    cluster.image("x:2");
    cluster.settle();
    assert!(!cluster.all_updated());
    cluster.pods.pop_first();
    cluster.settle();
    let hash = cluster.hash();
    let new = cluster
        .pods
        .values()
        .filter(|pod| label(&pod.metadata, HASH_LABEL) == hash);
    assert_eq!(new.count(), 1);
}

#[derive(Debug, Clone)]
enum Fate {
    Ready(u32, bool),
    Fail(u32),
    End,
    Image(u8),
    Taint(u32, u8),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => (0..8u32, prop::bool::weighted(0.8)).prop_map(|(n, ready)| Fate::Ready(n, ready)),
        1 => (0..8u32).prop_map(Fate::Fail),
        4 => Just(Fate::End),
        1 => (1..4u8).prop_map(Fate::Image),
        1 => (0..8u32, 0..3u8).prop_map(|(n, kind)| Fate::Taint(n, kind)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_surge_and_unavailability_hold_and_the_set_arrives(
        nodes in 1..8u32, below in 0..4i32, surge in 0..3i32,
        fates in prop::collection::vec(fate(), 1..60),
    ) {
        let rolling = json!({"maxUnavailable": below, "maxSurge": surge});
        let spec = json!({"updateStrategy": {"rollingUpdate": rolling}});
        let mut cluster = Cluster::new(set(spec), nodes);
        cluster.settle();
        for fate in fates {
            match fate {
                Fate::Ready(n, ready) => cluster.become_ready(&format!("n{n}"), ready),
                Fate::Fail(n) => cluster.fail(&format!("n{n}")),
                Fate::End => cluster.end_all(),
                Fate::Image(n) => cluster.image(&format!("x:{n}")),
                Fate::Taint(n, kind) if n < nodes => {
                    let effect = [None, Some("NoSchedule"), Some("NoExecute")];
                    cluster.taint(&format!("n{n}"), effect[usize::from(kind)]);
                }
                Fate::Taint(..) => {}
            }
            let ready_before: Vec<String> = cluster.pods.values()
                .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                .filter(|pod| crate::pods::is_ready(pod))
                .filter_map(|pod| pod.metadata.name.clone())
                .collect();
            let doubled_before = cluster.nodes.keys()
                .filter(|node| cluster.on(node).len() > 1).count();
            let (set, all): (DaemonSet, Vec<Node>) =
                (cluster.set.clone(), cluster.nodes.values().cloned().collect());
            let rule = Rule::of(&set);
            let fit: Vec<&Node> = all.iter().filter(|node| rule.fit(node).run).collect();
            let wanted = fit.len();
            let serving = |cluster: &Cluster| fit.iter().filter(|node| {
                let name = node.metadata.name.as_deref().unwrap();
                cluster.on(name).iter().any(|pod| crate::pods::is_ready(pod))
            }).count();
            let before = serving(&cluster);
            let plan = cluster.reconcile();
            for pod in &plan.delete {
                prop_assert!(cluster.pods.contains_key(pod.metadata.name.as_ref().unwrap()));
            }
            let (max_surge, max_below) = rollout::limits(&set, i32::try_from(wanted).unwrap());
            // Never more than two on a node, and no more doubled nodes than the surge allows.
            let doubled = cluster.nodes.keys()
                .filter(|node| cluster.on(node).len() > 1).count();
            for node in cluster.nodes.keys() {
                prop_assert!(cluster.on(node).len() <= 2);
            }
            let sick_old = wanted - before;
            prop_assert!(
                doubled <= doubled_before.max(max_surge) + sick_old,
                "{doubled} doubled of {max_surge}"
            );
            // Taking pods that serve away keeps enough nodes served.
            let lost = plan.delete.iter().filter(|pod| {
                let name = pod.metadata.name.clone().unwrap();
                let there = fit::target(pod).is_some_and(|target| {
                    fit.iter().any(|node| node.metadata.name.as_deref() == Some(target))
                });
                ready_before.contains(&name) && there
            }).count();
            let after = serving(&cluster);
            prop_assert!(
                lost == 0 || after == before || wanted - after <= max_below,
                "{after} of {wanted} served, may lack {max_below}"
            );
        }
        cluster.settle();
        prop_assert!(cluster.all_updated() || cluster.set.status.clone().unwrap().number_misscheduled > 0);
        let status = cluster.set.status.clone().unwrap();
        prop_assert_eq!(status.number_available, Some(status.desired_number_scheduled));
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_lives_rolls_goes_back_and_follows_nodes() {
    let fake = FakeApi::new(FakeClock::shared());
    for name in ["n0", "n1", "n2"] {
        fake.put(&node(name, json!([])));
    }
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    fake.put(&set(json!({})));
    let done = |image: &'static str, count: i32| {
        move |fake: &FakeApi| {
            testing::make_ready(fake);
            let set = fake.get::<DaemonSet>("a", "agent")?;
            let status = set.status.clone()?;
            let good = fake.all::<Pod>().iter().all(|pod| {
                pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image)
            });
            (good
                && status.number_available == Some(count)
                && status.updated_number_scheduled == Some(count)
                && status.desired_number_scheduled == count
                && status.observed_generation == set.metadata.generation)
                .then_some(())
        }
    };
    fake.wait_for("three", done("x:1", 3)).await;
    let image = |text: &str| {
        let mut set = fake.get::<DaemonSet>("a", "agent").unwrap();
        let spec = set.spec.template.spec.as_mut().unwrap();
        spec.containers[0].image = Some(text.to_owned());
        set.metadata.generation = set.metadata.generation.map(|it| it + 1);
        fake.put(&set);
    };
    image("x:2");
    fake.wait_for("rolled out", done("x:2", 3)).await;
    image("x:1");
    fake.wait_for("rolled back", done("x:1", 3)).await;
    let mut numbers: Vec<_> = fake
        .all::<ControllerRevision>()
        .iter()
        .map(history::number)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
    fake.put(&node("n3", json!([])));
    fake.wait_for("four", done("x:1", 4)).await;
    let taints = json!([{"key": "gpu", "effect": "NoExecute"}]);
    fake.put(&node("n0", taints));
    fake.wait_for("three again", done("x:1", 3)).await;
    fake.wait_for("events", |fake| {
        let events = fake.all::<Event>();
        let told = |reason: &str| events.iter().any(|it| it.reason.as_deref() == Some(reason));
        (told("SuccessfulCreate") && told("SuccessfulDelete")).then_some(())
    })
    .await;
    world.end().await;
}
