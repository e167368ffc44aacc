//! Consolidation: which pods keep a node, what is planned, and that no plan breaks a budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use evenkeel_client::{
    CancellationToken, Change, LoopContext, LoopRegistry, ObjectKey, Recorder, Views,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Descheduler;
use super::plan::{Aims, Fate, Planned, fate};
use crate::core::Core;
use crate::plugins::default_placement;
use crate::tests::objects::{merge, node_with, pod_with};

fn added<K: kube::Resource<DynamicType = ()>>(object: K) -> Change<K> {
    Change {
        key: ObjectKey::of(&object),
        old: None,
        new: Some(Arc::new(object)),
    }
}

fn node(name: &str, milli_cpu: i64, marked: bool) -> Node {
    let taints = if marked {
        json!([{"key": "evenkeel.io/consolidated", "effect": "PreferNoSchedule"}])
    } else {
        json!([])
    };
    node_with(name, milli_cpu, 4096, &json!({"spec": {"taints": taints}}))
}

fn owned(name: &str, node: &str, milli_cpu: i64, more: &Value) -> Pod {
    let mut all = json!({
        "metadata": {"labels": {"app": "web"}, "ownerReferences": [{"apiVersion": "apps/v1",
            "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true}]},
        "spec": {"nodeName": node},
        "status": {"phase": "Running"},
    });
    merge(&mut all, more);
    pod_with(name, milli_cpu, &all)
}

fn budget(name: &str, allowed: i32) -> PodDisruptionBudget {
    serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": name},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "maxUnavailable": 1},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
            "expectedPods": 1},
    }))
    .expect("a budget")
}

fn planned(nodes: Vec<Node>, pods: Vec<Pod>, budgets: Vec<PodDisruptionBudget>) -> Planned {
    let mut core = Core::new(default_placement(), 1);
    let now = Instant::now();
    for node in nodes {
        core.node(&added(node), now);
    }
    for pod in pods {
        core.pod(&added(pod), now);
    }
    for budget in budgets {
        core.budget(&added(budget));
    }
    core.consolidate(Aims::default())
}

fn evicted(planned: &Planned) -> Vec<String> {
    let drain = planned.drain.as_ref();
    let moves = drain.into_iter().flat_map(|drain| &drain.evict);
    moves
        .map(|one| {
            format!(
                "{} {}>{}",
                one.pod.key.name,
                drain.expect("a drain").node,
                one.to
            )
        })
        .collect()
}

#[test]
fn what_becomes_of_a_pod() {
    let controlled = |kind: &str| {
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": "x",
            "uid": "u", "controller": true}]}})
    };
    let annotated = |value: &str| {
        json!({"metadata": {"annotations": {
            "cluster-autoscaler.kubernetes.io/safe-to-evict": value}}})
    };
    let scratch = json!({"spec": {"volumes": [{"name": "s", "emptyDir": {}}]}});
    let mut scratch_but_safe = annotated("true");
    merge(&mut scratch_but_safe, &scratch);
    let rows: Vec<(&str, Value, Fate)> = vec![
        ("of a ReplicaSet", json!({}), Fate::Moves),
        ("of a DaemonSet", controlled("DaemonSet"), Fate::Stays),
        (
            "a mirror",
            json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}),
            Fate::Stays,
        ),
        (
            "leaving",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            Fate::Stays,
        ),
        (
            "nobody's",
            json!({"metadata": {"ownerReferences": []}}),
            Fate::Blocks("a pod has no owner that would make another"),
        ),
        (
            "with local storage",
            scratch,
            Fate::Blocks("a pod has local storage"),
        ),
        (
            "with local storage that may go",
            scratch_but_safe,
            Fate::Moves,
        ),
        (
            "that says no",
            annotated("false"),
            Fate::Blocks("a pod says that it is not safe to evict"),
        ),
        (
            "critical",
            json!({"spec": {"priority": 2_000_001_000}}),
            Fate::Blocks("a pod is critical to the system"),
        ),
        (
            "with devices",
            json!({"spec": {"resourceClaims": [{"name": "d", "resourceClaimName": "c"}]}}),
            Fate::Blocks("a pod has devices"),
        ),
    ];
    for (what, more, wanted) in rows {
        assert_eq!(fate(&owned("p", "n", 100, &more)), wanted, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_least_used_node_is_emptied_onto_fuller_ones() {
    let none = json!({});
    let nodes = || {
        vec![
            node("a", 1000, false),
            node("b", 1000, false),
            node("c", 1000, false),
        ]
    };
    let pods = || {
        vec![
            owned("a1", "a", 600, &none),
            owned("b1", "b", 400, &none),
            owned("c1", "c", 100, &none),
            owned("c2", "c", 200, &none),
        ]
    };
    let plan = planned(nodes(), pods(), vec![]);
    // The larger goes first, and each to the fullest that takes it.
    assert_eq!(evicted(&plan), ["c2 c>a", "c1 c>a"]);
    // A pod that fits nowhere keeps its node, and the next one is looked at.
    let mut tight = pods();
    let zone = json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "c"}}});
    tight.push(owned("c3", "c", 50, &zone));
    let plan = planned(nodes(), tight, vec![]);
    assert_eq!(evicted(&plan), ["b1 b>a"]);
    let (kept, why) = &plan.kept[0];
    assert_eq!(
        (&**kept, why.as_str()),
        ("c", "pod default/c3 fits on no fuller node")
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_is_moved_to_an_empty_a_marked_or_an_emptier_node() {
    let none = json!({});
    let plan = planned(
        vec![node("a", 1000, false), node("b", 1000, false)],
        vec![owned("a1", "a", 100, &none)],
        vec![],
    );
    assert!(plan.drain.is_none());
    // What was begun is ended before another is begun, and an empty one is counted.
    let plan = planned(
        vec![
            node("a", 1000, false),
            node("b", 1000, true),
            node("c", 1000, true),
            node("d", 1000, false),
        ],
        vec![
            owned("a1", "a", 500, &none),
            owned("b1", "b", 300, &none),
            owned("d1", "d", 100, &none),
        ],
        vec![],
    );
    assert_eq!(evicted(&plan), ["b1 b>a"]);
    let saved: Vec<&str> = plan.saved.iter().map(|name| &**name).collect();
    assert_eq!(saved, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn budgets_say_how_many_go_at_a_time() {
    let none = json!({});
    let world = |budgets| {
        planned(
            vec![node("a", 4000, false), node("b", 1000, false)],
            vec![
                owned("a1", "a", 2500, &none),
                owned("b1", "b", 100, &none),
                owned("b2", "b", 100, &none),
            ],
            budgets,
        )
    };
    let plan = world(vec![budget("one", 1)]);
    assert_eq!(evicted(&plan).len(), 1);
    assert_eq!(plan.drain.map(|drain| drain.later), Some(1));
    let plan = world(vec![budget("none", 0)]);
    assert!(plan.drain.is_none());
    assert_eq!(
        plan.kept[0].1,
        "disruption budget default/none allows no eviction"
    );
    let plan = world(vec![budget("one", 5), budget("two", 5)]);
    assert!(
        plan.kept[0].1.ends_with("has more than one budget"),
        "{:?}",
        plan.kept
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_is_marked_emptied_and_reported() {
    let api = FakeApi::new(FakeClock::shared());
    let none = json!({});
    for name in ["a", "b"] {
        api.put(&node(name, 1000, false));
    }
    api.put(&owned("a1", "a", 600, &none));
    // No agent ends it here.
    let at_once = json!({"spec": {"terminationGracePeriodSeconds": 0}});
    api.put(&owned("b1", "b", 100, &at_once));
    let clock = FakeClock::shared();
    let client = api.client();
    let shutdown = CancellationToken::new();
    let context = LoopContext {
        views: Views::new(client.clone(), clock.clone()),
        recorder: Recorder::new(client.clone(), clock.clone(), "descheduler", ""),
        client,
        clock,
        shutdown: shutdown.clone(),
        metrics: LoopRegistry::default(),
    };
    let descheduler = Descheduler::new(context, Aims::default());
    let report = descheduler.report();
    tokio_util::task::TaskTracker::new().spawn(descheduler.run());
    api.wait_for("the pod to go", |api| {
        api.get::<Pod>("default", "b1").is_none().then_some(())
    })
    .await;
    assert_eq!(api.count("create", "pods/eviction"), 1);
    let marked = api.get::<Node>("", "b").expect("the node");
    assert!(super::is_marked(&marked));
    assert!(!super::is_marked(
        &api.get::<Node>("", "a").expect("the node")
    ));
    api.wait_for("the report in an event", |api| {
        let events = api.all::<k8s_openapi::api::core::v1::Event>();
        let told = events
            .iter()
            .find(|event| event.reason.as_deref() == Some("Consolidated"))?;
        let text = told.message.clone().unwrap_or_default();
        assert!(text.starts_with("Node b is empty"), "{text}");
        Some(())
    })
    .await;
    assert_eq!(report.page()["savedNodes"], json!(["b"]));
    shutdown.cancel();
}

type World = (Vec<(i64, bool)>, Vec<(usize, i64, u8, u8)>, [i32; 2]);

#[tokio::test(start_paused = true)]
async fn switched_off_it_takes_its_marks_off() {
    let api = FakeApi::new(FakeClock::shared());
    let other = json!({"spec": {"taints": [{"key": "mine", "effect": "NoSchedule"},
        {"key": "evenkeel.io/consolidated", "effect": "PreferNoSchedule"}]}});
    api.put(&node("marked", 4000, true));
    api.put(&node("plain", 4000, false));
    api.put(&node_with("tainted", 4000, 4096, &other));
    let clock = FakeClock::shared();
    let client = api.client();
    let shutdown = CancellationToken::new();
    let context = LoopContext {
        views: Views::new(client.clone(), clock.clone()),
        recorder: Recorder::new(client.clone(), clock.clone(), "descheduler", ""),
        client,
        clock,
        shutdown: shutdown.clone(),
        metrics: LoopRegistry::default(),
    };
    tokio_util::task::TaskTracker::new().spawn(super::clean_up(context));
    let keys = |node: &Node| -> Vec<String> {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        let taints = taints.unwrap_or_default().into_iter();
        taints.map(|taint| taint.key).collect()
    };
    let nodes = api
        .wait_for("no mark is left", |api| {
            let nodes = api.all::<Node>();
            let marked = |node: &Node| keys(node).iter().any(|key| key.contains("consolidated"));
            (!nodes.iter().any(marked)).then_some(nodes)
        })
        .await;
    let all: Vec<Vec<String>> = nodes.iter().map(&keys).collect();
    assert_eq!(all.concat(), ["mine"]);
    // One that comes back with a mark loses it too.
    api.put(&node("late", 4000, true));
    api.wait_for("the late one", |api| {
        let nodes = api.all::<Node>();
        let late = nodes
            .iter()
            .find(|node| node.metadata.name.as_deref() == Some("late"))?;
        keys(late).is_empty().then_some(())
    })
    .await;
    shutdown.cancel();
}

fn worlds() -> impl Strategy<Value = World> {
    let node = (500i64..2000, any::<bool>());
    let pod = (0usize..5, 10i64..400, 0u8..8, 0u8..3);
    (
        prop::collection::vec(node, 2..6),
        prop::collection::vec(pod, 1..20),
        [0i32..3, 0i32..3],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever the cluster: no plan takes more from a budget than it allows, evicts what must not
    /// be evicted, or fills a node beyond what it has; and the snapshot is as it was.
    #[test]
    fn no_plan_breaks_a_budget((nodes, pods, allowed) in worlds()) {
        let mut core = Core::new(default_placement(), 1);
        let now = Instant::now();
        for (at, (size, marked)) in nodes.iter().enumerate() {
            core.node(&added(node(&format!("n{at}"), *size, *marked && at > 1)), now);
        }
        for (at, (home, size, kind, group)) in pods.iter().enumerate() {
            let mut more = json!({"metadata": {"labels": {"app": format!("g{group}")}}});
            match kind {
                0 => more["metadata"]["ownerReferences"] = json!([]),
                1 => more["spec"] = json!({"volumes": [{"name": "s", "emptyDir": {}}]}),
                _ => {}
            }
            let home = format!("n{}", home % nodes.len());
            core.pod(&added(owned(&format!("p{at}"), &home, *size, &more)), now);
        }
        for (at, allowed) in allowed.iter().enumerate() {
            let mut budget = budget(&format!("b{at}"), *allowed);
            budget.spec.as_mut().expect("a spec").selector = serde_json::from_value(
                json!({"matchLabels": {"app": format!("g{at}")}})).expect("a selector");
            core.budget(&added(budget));
        }
        let picture = |core: &Core| {
            let snapshot = core.snapshot();
            let nodes = snapshot.order().iter().map(|at| {
                let node = snapshot.node(*at);
                let mut pods: Vec<String> =
                    node.pods.iter().map(|pod| pod.uid.to_string()).collect();
                pods.sort();
                (node.name.to_string(), node.requested.milli_cpu, pods)
            });
            nodes.collect::<Vec<_>>()
        };
        let before = picture(&core);
        let planned = core.consolidate(Aims::default());
        prop_assert_eq!(&before, &picture(&core));
        let Some(drain) = planned.drain else { return Ok(()) };
        let mut used: BTreeMap<String, i32> = BTreeMap::new();
        let mut arriving: BTreeMap<String, i64> = BTreeMap::new();
        for one in &drain.evict {
            prop_assert_eq!(fate(&one.pod.pod), Fate::Moves);
            let group = one.pod.class.label("app").unwrap_or_default().to_owned();
            *used.entry(group).or_default() += 1;
            *arriving.entry(one.to.to_string()).or_default() += one.pod.requests.exact.milli_cpu;
            prop_assert!(one.to != drain.node);
        }
        for (at, allowed) in allowed.iter().enumerate() {
            let used = used.get(&format!("g{at}")).copied().unwrap_or(0);
            prop_assert!(used <= *allowed);
        }
        for (name, more) in arriving {
            let snapshot = core.snapshot();
            let node = snapshot.node(snapshot.find(&name).expect("a node"));
            // A node that was too full before was no target.
            prop_assert!(node.requested.milli_cpu + more <= node.allocatable.milli_cpu);
        }
    }
}
