//! Preemption: who may, who has to go, and what is done about it. From the statements of the
//! reference's documentation on pod priority and preemption.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::testing::{FakeApi, FakeClock};
use evenkeel_client::{Change, ObjectKey};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::door::start;
use super::objects::{merge, node, node_with, pod_with};
use crate::core::{Action, Core, Nomination};
use crate::plugins::default_placement;
use crate::pod::node_name;

/// A pod of a priority; `at` is the node it is on, or empty.
fn of(name: &str, milli_cpu: i64, priority: i32, at: &str, more: &Value) -> Pod {
    let mut value =
        json!({"spec": {"priority": priority, "preemptionPolicy": "PreemptLowerPriority"}});
    if !at.is_empty() {
        merge(&mut value, &json!({"spec": {"nodeName": at}}));
    }
    merge(&mut value, more);
    pod_with(name, milli_cpu, &value)
}

fn core(nodes: &[Node], pods: &[Pod]) -> Core {
    let mut core = Core::new(default_placement(), 7);
    for node in nodes {
        let change = Change {
            key: ObjectKey::of(node),
            old: None,
            new: Some(Arc::new(node.clone())),
        };
        core.node(&change, Instant::now());
    }
    for pod in pods {
        come(&mut core, pod);
    }
    core
}

fn come(core: &mut Core, pod: &Pod) {
    let change = Change {
        key: ObjectKey::of(pod),
        old: None,
        new: Some(Arc::new(pod.clone())),
    };
    core.pod(&change, Instant::now());
}

fn go(core: &mut Core, pod: &Pod) {
    let change = Change {
        key: ObjectKey::of(pod),
        old: Some(Arc::new(pod.clone())),
        new: None,
    };
    core.pod(&change, Instant::now());
}

/// What the next cycle says: the node that is set aside, the victims, the text.
fn told(core: &mut Core) -> (String, Vec<String>, String) {
    match core.cycle(Instant::now()) {
        Some(Action::Tell {
            nomination,
            eviction,
            message,
            ..
        }) => {
            let node = match nomination {
                Nomination::Set(node) => node.to_string(),
                _ => String::new(),
            };
            let victims = eviction.into_iter().flat_map(|eviction| eviction.victims);
            let names = victims.map(|victim| victim.key.name.clone()).collect();
            (node, names, message)
        }
        other => panic!("a pod that finds no node, not {other:?}"),
    }
}

fn bound(core: &mut Core) -> Option<(String, String)> {
    match core.cycle(Instant::now())? {
        Action::Bind { pod, node, .. } => Some((pod.key.name.clone(), node.to_string())),
        Action::Tell { message, .. } => panic!("{message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_texts_say_why_it_does_not_help() {
    let none = json!({});
    type Row<'a> = (&'a str, Vec<Node>, Vec<Pod>, Pod, &'a str);
    let rows: Vec<Row<'_>> = vec![
        (
            "nobody is less important; a taint is not moved by evictions",
            vec![
                node("full", 1000, 1024),
                node_with(
                    "tainted",
                    1000,
                    1024,
                    &json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
                ),
            ],
            vec![of("peer", 1000, 10, "full", &none)],
            of("web", 500, 10, "", &none),
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). \
             no new claims to deallocate, preemption: 0/2 nodes are available: \
             1 No preemption victims found for incoming pod, \
             1 Preemption is not helpful for scheduling.",
        ),
        (
            "not even an empty node has that much",
            vec![node("small", 1000, 1024)],
            vec![of("less", 1000, 0, "small", &none)],
            of("web", 2000, 10, "", &none),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
             preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        ),
        (
            "what is left does not leave enough room",
            vec![node("half", 1000, 1024)],
            vec![
                of("less", 100, 0, "half", &none),
                of("more", 900, 20, "half", &none),
            ],
            of("web", 500, 10, "", &none),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
             preemption: 0/1 nodes are available: 1 Insufficient cpu.",
        ),
        (
            "it does not want to",
            vec![node("full", 1000, 1024)],
            vec![of("less", 1000, 0, "full", &none)],
            of(
                "web",
                500,
                10,
                "",
                &json!({"spec": {"preemptionPolicy": "Never"}}),
            ),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
             preemption: not eligible due to preemptionPolicy=Never.",
        ),
    ];
    for (what, nodes, pods, web, text) in rows {
        let mut core = core(&nodes, &pods);
        come(&mut core, &web);
        let (node, victims, message) = told(&mut core);
        assert_eq!((node.as_str(), victims.len()), ("", 0), "{what}");
        assert_eq!(message, text, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn as_few_as_possible_have_to_go_the_least_important_first() {
    let none = json!({});
    let mut core = core(
        &[node("n", 1000, 1024)],
        &[
            of("lowest", 300, 1, "n", &none),
            of("low", 300, 2, "n", &none),
            of(
                "older",
                200,
                3,
                "n",
                &json!({"status": {"startTime": "2026-01-01T00:00:00Z"}}),
            ),
            of(
                "newer",
                200,
                3,
                "n",
                &json!({"status": {"startTime": "2026-01-02T00:00:00Z"}}),
            ),
        ],
    );
    come(&mut core, &of("web", 300, 10, "", &none));
    let (node, victims, message) = told(&mut core);
    assert_eq!(node, "n");
    assert_eq!(victims, ["lowest"]);
    assert_eq!(message, "0/1 nodes are available: 1 Insufficient cpu.");
    come(&mut core, &of("large", 300, 10, "", &none));
    // The room of the first is taken already, so the next least important one goes as well.
    let (_, victims, _) = told(&mut core);
    assert_eq!(victims, ["low", "lowest"]);
}

#[tokio::test(start_paused = true)]
async fn among_nodes_the_cheapest_victims_are_chosen() {
    let none = json!({});
    let since = |time: &str| json!({"status": {"startTime": time}});
    let rows: Vec<(&str, Vec<Pod>, &str)> = vec![
        (
            "the lowest of the highest priorities",
            vec![of("a1", 1000, 5, "a", &none), of("b1", 1000, 4, "b", &none)],
            "b",
        ),
        (
            "then the smallest sum",
            vec![
                of("a1", 500, 5, "a", &none),
                of("a2", 500, 4, "a", &none),
                of("b1", 500, 5, "b", &none),
                of("b2", 500, 3, "b", &none),
            ],
            "b",
        ),
        (
            "then the fewest",
            vec![
                of("a1", 500, 5, "a", &none),
                of("a2", 500, 5, "a", &none),
                of("b1", 1000, 5, "b", &none),
            ],
            "b",
        ),
        (
            "then those that started last",
            vec![
                of("a1", 1000, 5, "a", &since("2026-01-01T00:00:00Z")),
                of("b1", 1000, 5, "b", &since("2026-01-02T00:00:00Z")),
            ],
            "b",
        ),
    ];
    for (what, pods, wanted) in rows {
        let mut core = core(&[node("a", 1000, 1024), node("b", 1000, 1024)], &pods);
        come(&mut core, &of("web", 1000, 10, "", &none));
        assert_eq!(told(&mut core).0, wanted, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn budgets_are_kept_where_it_can_be() {
    let none = json!({});
    let guarded = json!({"metadata": {"labels": {"app": "guarded"}}});
    let budget = |allowed: i32| -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "guard"},
            "spec": {"selector": {"matchLabels": {"app": "guarded"}}},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
                "expectedPods": 1},
        }))
        .expect("a budget")
    };
    let tell = |core: &mut Core, allowed: i32| {
        let budget = budget(allowed);
        core.budget(&Change {
            key: ObjectKey::of(&budget),
            old: None,
            new: Some(Arc::new(budget)),
        });
    };
    let nodes = [node("a", 1000, 1024), node("b", 1000, 1024)];
    let pods = [
        of("a1", 1000, 1, "a", &guarded),
        of("b1", 1000, 5, "b", &none),
    ];
    for (allowed, wanted) in [(0, "b"), (1, "a")] {
        let mut core = core(&nodes, &pods);
        tell(&mut core, allowed);
        come(&mut core, &of("web", 1000, 10, "", &none));
        assert_eq!(told(&mut core).0, wanted, "{allowed} allowed");
    }
    // On one node the guarded pod is let back first, though it is less important.
    let mut one = core(
        &[node("a", 1000, 1024)],
        &[
            of("guarded", 500, 1, "a", &guarded),
            of("free", 500, 5, "a", &none),
        ],
    );
    tell(&mut one, 0);
    come(&mut one, &of("web", 500, 10, "", &none));
    assert_eq!(told(&mut one).1, ["free"]);
    // Where there is no other way it is broken.
    let mut only = core(&nodes[..1], &pods[..1]);
    tell(&mut only, 0);
    come(&mut only, &of("web", 1000, 10, "", &none));
    assert_eq!(told(&mut only).1, ["a1"]);
}

#[tokio::test(start_paused = true)]
async fn spread_and_anti_affinity_are_counted_without_the_victims() {
    let away = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"affinity": {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app": "web"}}}]}}}});
    let mut core = core(
        &[node("a", 1000, 1024), node("b", 1000, 1024)],
        &[of("a1", 1, 1, "a", &away), of("b1", 1, 2, "b", &away)],
    );
    come(&mut core, &of("web", 1, 10, "", &away));
    let (node, victims, message) = told(&mut core);
    assert_eq!((node.as_str(), victims), ("a", vec!["a1".to_owned()]));
    assert_eq!(
        message,
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."
    );
}

#[tokio::test(start_paused = true)]
async fn the_room_is_kept_for_who_it_was_made_for() {
    let none = json!({});
    let victim = of("victim", 1000, 1, "n", &none);
    let mut core = core(&[node("n", 1000, 1024)], std::slice::from_ref(&victim));
    let web = of("web", 1000, 10, "", &none);
    come(&mut core, &web);
    assert_eq!(told(&mut core).1, ["victim"]);
    core.evicted(&Arc::from("uid-web"), false, Instant::now());
    // It has been asked to go and takes its time: nobody else is evicted meanwhile.
    let mut leaving = victim.clone();
    merge_pod(
        &mut leaving,
        &json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"conditions": [{"type": "DisruptionTarget", "status": "True",
                "reason": "PreemptionByScheduler"}]},
        }),
    );
    come(&mut core, &leaving);
    tokio::time::advance(Duration::from_secs(301)).await;
    core.tick(Instant::now());
    let (_, victims, message) = told(&mut core);
    assert!(victims.is_empty());
    assert!(
        message
            .ends_with("preemption: not eligible due to a terminating pod on the nominated node."),
        "{message}"
    );
    // Somebody less important comes in between and does not get the room.
    come(&mut core, &of("quick", 500, 5, "", &none));
    go(&mut core, &leaving);
    tokio::time::advance(Duration::from_secs(11)).await;
    core.tick(Instant::now());
    let mut bindings = Vec::new();
    while let Some(action) = core.cycle(Instant::now()) {
        if let Action::Bind { pod, .. } = action {
            bindings.push(pod.key.name.clone());
        }
    }
    assert_eq!(bindings, ["web"]);
}

#[tokio::test(start_paused = true)]
async fn a_nomination_in_the_status_outlives_a_restart() {
    let none = json!({});
    let mut core = core(&[node("n", 1000, 1024), node("m", 1000, 1024)], &[]);
    let nominated = json!({"status": {"nominatedNodeName": "m"}});
    // Of equal nodes it takes the one that was set aside, and no less important pod does.
    come(&mut core, &of("low", 1000, 1, "", &none));
    come(
        &mut core,
        &of(
            "gated",
            1000,
            10,
            "",
            &json!({
        "spec": {"schedulingGates": [{"name": "example.com/a"}]},
        "status": {"nominatedNodeName": "n"}}),
        ),
    );
    assert_eq!(bound(&mut core), Some(("low".to_owned(), "m".to_owned())));
    let mut core = self::core(&[node("n", 1000, 1024), node("m", 1000, 1024)], &[]);
    come(&mut core, &of("web", 1000, 10, "", &nominated));
    assert_eq!(bound(&mut core), Some(("web".to_owned(), "m".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn nominations_of_the_less_important_are_taken_back() {
    let none = json!({});
    let mut core = core(
        &[node("n", 1000, 1024)],
        &[of("victim", 1000, 1, "n", &none)],
    );
    come(&mut core, &of("middle", 1000, 5, "", &none));
    assert_eq!(told(&mut core).0, "n");
    come(&mut core, &of("high", 1000, 10, "", &none));
    let Some(Action::Tell {
        eviction: Some(eviction),
        ..
    }) = core.cycle(Instant::now())
    else {
        panic!("a preemption");
    };
    let names: Vec<&str> = eviction
        .displaced
        .iter()
        .map(|pod| pod.key.name.as_str())
        .collect();
    assert_eq!(names, ["middle"]);
}

fn merge_pod(pod: &mut Pod, more: &Value) {
    let mut value = serde_json::to_value(&*pod).expect("JSON");
    merge(&mut value, more);
    *pod = serde_json::from_value(value).expect("a pod");
}

#[tokio::test(start_paused = true)]
async fn victims_are_marked_deleted_and_told() {
    let api = FakeApi::new(FakeClock::shared());
    let none = json!({});
    api.put(&node("n", 1000, 1024));
    api.put(&of("victim", 1000, 1, "n", &none));
    let (_, shutdown) = start(&api);
    api.put(&of("web", 1000, 10, "", &none));
    let victim = api
        .wait_for("the victim's deletion", |api| {
            let pod = api.get::<Pod>("default", "victim")?;
            pod.metadata.deletion_timestamp.is_some().then_some(pod)
        })
        .await;
    let condition = victim
        .status
        .and_then(|status| status.conditions)
        .and_then(|all| {
            all.into_iter()
                .find(|known| known.type_ == "DisruptionTarget")
        })
        .expect("the mark");
    assert_eq!(condition.status, "True");
    assert_eq!(condition.reason.as_deref(), Some("PreemptionByScheduler"));
    assert_eq!(
        condition.message.as_deref(),
        Some("default-scheduler: preempting to accommodate a higher priority pod")
    );
    api.wait_for("the nomination", |api| {
        let status = api.get::<Pod>("default", "web")?.status?;
        (status.nominated_node_name.as_deref() == Some("n")).then_some(())
    })
    .await;
    let event = api
        .wait_for("the event", |api| {
            api.all::<Event>()
                .into_iter()
                .find(|event| event.reason.as_deref() == Some("Preempted"))
        })
        .await;
    assert_eq!(event.type_.as_deref(), Some("Normal"));
    assert_eq!(event.involved_object.name.as_deref(), Some("victim"));
    assert_eq!(
        event.message.as_deref(),
        Some("Preempted by pod uid-web on node n")
    );
    // The agent stops it at last.
    api.remove::<Pod>("default", "victim");
    api.wait_for("the binding", |api| {
        node_name(&api.get::<Pod>("default", "web")?).map(str::to_owned)
    })
    .await;
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_failed_eviction_is_tried_again() {
    let api = FakeApi::new(FakeClock::shared());
    let none = json!({});
    api.put(&node("n", 1000, 1024));
    api.put(&of("victim", 1000, 1, "n", &none));
    api.fail_next("delete", "pods", 500, "InternalError", "not today");
    let (_, shutdown) = start(&api);
    api.put(&of("web", 1000, 10, "", &none));
    api.wait_for("the victim's deletion", |api| {
        let pod = api.get::<Pod>("default", "victim")?;
        pod.metadata.deletion_timestamp.is_some().then_some(())
    })
    .await;
    shutdown.cancel();
}

/// A pod that is on a node: CPU, priority, whether it keeps others of its kind away, guarded.
type There = (i64, i32, bool, bool);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Nobody as important goes; with the victims gone the pod fits; not one of them too many.
    #[test]
    fn victims_are_less_important_enough_and_not_too_many(
        nodes in proptest::collection::vec(
            proptest::collection::vec((50..500i64, 0..6i32, any::<bool>(), any::<bool>()), 0..5),
            1..4,
        ),
        wanted in 100..900i64,
        priority in 0..7i32,
        lonely in any::<bool>(),
        allowed in 0..3i32,
    ) {
        let with = |lonely: bool, guarded: bool| {
            let affinity = if lonely {
                json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": {"lonely": "true"}}}]}})
            } else {
                json!({})
            };
            json!({"metadata": {"labels": {
                    "lonely": lonely.to_string(), "guarded": guarded.to_string()}},
                "spec": {"affinity": affinity}})
        };
        let there: Vec<Pod> = nodes.iter().enumerate().flat_map(|(at, pods)| {
            let node = format!("n{at}");
            pods.iter().enumerate().map(move |(index, there)| {
                let (cpu, priority, lonely, guarded): There = *there;
                let name = format!("p{at}-{index}");
                of(&name, cpu, priority, &node, &with(lonely, guarded))
            }).collect::<Vec<_>>()
        }).collect();
        let machines: Vec<Node> =
            (0..nodes.len()).map(|at| node(&format!("n{at}"), 1000, 1024)).collect();
        let budget: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "guard"},
            "spec": {"selector": {"matchLabels": {"guarded": "true"}}},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
                "expectedPods": 1},
        })).expect("a budget");
        let web = of("web", wanted, priority, "", &with(lonely, false));
        // Where the pod ends up when some of the others are not there.
        let without = |gone: &[String]| {
            let left: Vec<Pod> = there.iter()
                .filter(|pod| !gone.contains(pod.metadata.name.as_ref().expect("a name")))
                .cloned().collect();
            let mut core = core(&machines, &left);
            core.budget(&Change {
                key: ObjectKey::of(&budget), old: None, new: Some(Arc::new(budget.clone())),
            });
            come(&mut core, &web);
            core.cycle(Instant::now())
        };
        let Some(Action::Tell { eviction: Some(eviction), decision, .. }) = without(&[]) else {
            return Ok(());
        };
        let names: Vec<String> =
            eviction.victims.iter().map(|victim| victim.key.name.clone()).collect();
        prop_assert!(eviction.victims.iter().all(|victim| victim.priority < priority));
        let guarded = eviction.victims.iter()
            .filter(|victim| victim.class.label("guarded") == Some("true")).count();
        let broken = decision.preemption.map_or(0, |preemption| preemption.violations);
        let allowed = usize::try_from(allowed).expect("not negative");
        prop_assert!(guarded.saturating_sub(allowed) <= broken);
        let placed = without(&names);
        let fits = matches!(&placed, Some(Action::Bind { .. }));
        prop_assert!(fits, "{placed:?}");
        for spared in &names {
            let fewer: Vec<String> =
                names.iter().filter(|name| *name != spared).cloned().collect();
            let other = without(&fewer);
            let on_it = matches!(
                &other, Some(Action::Bind { node, .. }) if *node == eviction.node);
            prop_assert!(!on_it, "{spared} need not have gone");
        }
    }
}
