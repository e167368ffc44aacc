//! The queue and the core on paused time.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{Change, ObjectKey};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use tokio::time::{Instant, advance};

use super::objects::{node, node_with, pod, pod_with};
use crate::core::{Action, Core};
use crate::plugins::default_placement;
use crate::pod::PodInfo;

struct Bench(Core);

impl Bench {
    fn new() -> Self {
        Self(Core::new(default_placement(), 1))
    }

    fn node(&mut self, node: Node) {
        let change = Change {
            key: ObjectKey::of(&node),
            old: None,
            new: Some(Arc::new(node)),
        };
        self.0.node(&change, Instant::now());
    }

    fn pod(&mut self, pod: Pod) {
        let change = Change {
            key: ObjectKey::of(&pod),
            old: None,
            new: Some(Arc::new(pod)),
        };
        self.0.pod(&change, Instant::now());
    }

    fn gone(&mut self, pod: Pod) {
        let change = Change {
            key: ObjectKey::of(&pod),
            old: Some(Arc::new(pod)),
            new: None,
        };
        self.0.pod(&change, Instant::now());
    }

    /// The next pod that is tried, and where it goes.
    fn step(&mut self) -> Option<(String, Option<String>)> {
        self.0.tick(Instant::now());
        Some(match self.0.cycle(Instant::now())? {
            Action::Bind { pod, node, .. } => (pod.key.name.clone(), Some(node.to_string())),
            Action::Tell { pod, .. } => (pod.key.name.clone(), None),
            other => panic!("{other:?}"),
        })
    }

    fn missed(&mut self, name: &str) {
        assert_eq!(self.step(), Some((name.to_owned(), None)));
    }

    fn bound(&mut self, name: &str, node: &str) {
        assert_eq!(self.step(), Some((name.to_owned(), Some(node.to_owned()))));
    }

    fn quiet(&mut self) {
        assert_eq!(self.step(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn higher_priority_first_then_first_in_first_out() {
    let mut bench = Bench::new();
    bench.node(node("n", 4000, 4096));
    for (name, priority) in [("low", 0), ("first", 5), ("second", 5), ("high", 9)] {
        bench.pod(pod_with(name, 1, &json!({"spec": {"priority": priority}})));
    }
    for name in ["high", "first", "second", "low"] {
        bench.bound(name, "n");
    }
    bench.quiet();
}

#[tokio::test(start_paused = true)]
async fn an_unschedulable_pod_waits_for_what_could_help() {
    let mut bench = Bench::new();
    bench.node(node("n", 1000, 1024));
    let big = pod_with("big", 900, &json!({"spec": {"nodeName": "n"}}));
    bench.pod(big.clone());
    bench.pod(pod("web", 500));
    bench.missed("web");
    bench.quiet();
    // A heartbeat, a label, a node that is too small, another pod: nothing that helps.
    bench.node(node("n", 1000, 1024));
    bench.node(node_with(
        "n",
        1000,
        1024,
        &json!({"metadata": {"labels": {"a": "b"}}}),
    ));
    bench.node(node("small", 400, 1024));
    bench.pod(pod_with("other", 1, &json!({"spec": {"nodeName": "n"}})));
    bench.quiet();
    advance(Duration::from_secs(11)).await;
    bench.gone(big);
    bench.bound("web", "n");
}

#[tokio::test(start_paused = true)]
async fn an_uncordoned_node_helps_only_those_it_kept_away() {
    let mut bench = Bench::new();
    bench.node(node_with(
        "n",
        1000,
        1024,
        &json!({"spec": {"unschedulable": true}}),
    ));
    bench.pod(pod("web", 500));
    bench.pod(pod_with(
        "elsewhere",
        1,
        &json!({"spec": {"nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}]}}),
    ));
    bench.missed("web");
    bench.missed("elsewhere");
    bench.node(node("n", 1000, 1024));
    bench.bound("web", "n");
    bench.quiet();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_five_minutes() {
    let mut bench = Bench::new();
    bench.node(node("n", 100, 1024));
    bench.pod(pod("web", 500));
    bench.missed("web");
    advance(Duration::from_secs(299)).await;
    bench.quiet();
    assert_eq!(
        bench.0.next_tick(),
        Some(Instant::now() + Duration::from_secs(1))
    );
    advance(Duration::from_secs(1)).await;
    bench.missed("web");
}

#[tokio::test(start_paused = true)]
async fn a_failed_binding_backs_off_from_one_to_ten_seconds() {
    let mut bench = Bench::new();
    bench.node(node("n", 1000, 1024));
    let web = pod("web", 1000);
    bench.pod(web.clone());
    let latest = Arc::new(web);
    for seconds in [1, 2, 4, 8, 10, 10] {
        let action = bench.0.cycle(Instant::now());
        let Some(Action::Bind {
            pod, node, state, ..
        }) = action
        else {
            panic!("not bound: {action:?}");
        };
        // It is counted while the binding is under way.
        let name = bench
            .0
            .snapshot()
            .assigned("uid-web")
            .map(|(node, _)| node.name.clone());
        assert_eq!(name.as_deref(), Some("n"));
        bench
            .0
            .not_bound(&pod, &node, state, Some(&latest), Instant::now());
        assert!(bench.0.snapshot().assigned("uid-web").is_none());
        advance(Duration::from_millis(seconds * 1000 - 1)).await;
        bench.quiet();
        advance(Duration::from_millis(1)).await;
        bench.0.tick(Instant::now());
    }
}

#[tokio::test(start_paused = true)]
async fn backing_off_does_not_hold_up_an_idle_scheduler() {
    let mut bench = Bench::new();
    bench.node(node("n", 100, 1024));
    bench.pod(pod("web", 500));
    bench.missed("web");
    // It failed a moment ago, but nobody else waits and now there is room.
    bench.node(node("large", 4000, 1024));
    bench.bound("web", "large");
}

#[tokio::test(start_paused = true)]
async fn gates_hold_a_pod_until_they_are_gone() {
    let mut bench = Bench::new();
    bench.node(node("n", 1000, 1024));
    bench.pod(pod_with(
        "web",
        1,
        &json!({"spec": {"schedulingGates": [{"name": "example.com/a"}]}}),
    ));
    bench.quiet();
    assert_eq!(bench.0.depth().gated, 1);
    bench.pod(pod("web", 1));
    bench.bound("web", "n");
}

#[tokio::test(start_paused = true)]
async fn a_changed_pod_is_tried_again() {
    let mut bench = Bench::new();
    bench.node(node_with(
        "n",
        1000,
        1024,
        &json!({"spec": {"taints": [
        {"key": "k", "effect": "NoSchedule"}]}}),
    ));
    bench.pod(pod("web", 1));
    bench.missed("web");
    // What only the status says does not count.
    bench.pod(pod_with("web", 1, &json!({"status": {"phase": "Pending"}})));
    bench.quiet();
    bench.pod(pod_with(
        "web",
        1,
        &json!({"spec": {"tolerations": [{"operator": "Exists"}]}}),
    ));
    bench.bound("web", "n");
}

#[tokio::test(start_paused = true)]
async fn ended_pods_hold_nothing() {
    let mut bench = Bench::new();
    bench.node(node("n", 1000, 1024));
    let done = |phase: &str| {
        pod_with(
            "done",
            1000,
            &json!({"spec": {"nodeName": "n"}, "status": {"phase": phase}}),
        )
    };
    bench.pod(done("Running"));
    bench.pod(pod("web", 1000));
    bench.missed("web");
    bench.pod(done("Succeeded"));
    bench.bound("web", "n");
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_same_name_is_another_pod() {
    let mut bench = Bench::new();
    bench.node(node("n", 1000, 1024));
    let old = pod_with("web", 1000, &json!({"spec": {"nodeName": "n"}}));
    bench.pod(old.clone());
    let mut new = pod("web", 1000);
    new.metadata.uid = Some("another".to_owned());
    let change = Change {
        key: ObjectKey::of(&new),
        old: Some(Arc::new(old)),
        new: Some(Arc::new(new)),
    };
    bench.0.pod(&change, Instant::now());
    bench.bound("web", "n");
}

#[test]
fn what_comes_and_goes_leaves_nothing() {
    let mut snapshot = crate::snapshot::Snapshot::default();
    snapshot.set_node(&Arc::new(node("n", 1000, 1024)));
    let info = Arc::new(PodInfo::new(Arc::new(pod("web", 100))));
    snapshot.add_pod(Arc::clone(&info), "n");
    snapshot.remove_node("n");
    assert!(snapshot.is_empty());
    // The node is gone and its pod is not: when it comes again the pod counts.
    snapshot.set_node(&Arc::new(node("n", 1000, 1024)));
    let at = snapshot.find("n").expect("it is there");
    assert_eq!(snapshot.node(at).requested.milli_cpu, 100);
    snapshot.remove_pod(&info.uid);
    snapshot.remove_node("n");
    assert_eq!(snapshot.classes().count(), 0);
    snapshot.set_node(&Arc::new(node("other", 1000, 1024)));
    assert_eq!(snapshot.slots(), 1);
}
