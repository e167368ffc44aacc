//! Gangs: placed together or not at all. From the statements of KEP-4671 and of the reference's
//! documentation on pod groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{Change, ObjectKey};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::objects::{merge, node, pod_with};
use crate::core::{Action, Core, GroupOutcome, Nomination};
use crate::plugins::default_placement;
use crate::pod::PodInfo;

fn group_with(name: &str, more: &Value) -> PodGroup {
    let mut value = json!({
        "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}")},
        "spec": {"schedulingPolicy": {}, "disruptionMode": {"single": {}}, "priority": 0},
    });
    merge(&mut value, more);
    serde_json::from_value(value).expect("a group")
}

fn gang(name: &str, min: i32) -> PodGroup {
    group_with(
        name,
        &json!({"spec": {"schedulingPolicy": {"gang": {"minCount": min}}}}),
    )
}

fn member_with(group: &str, name: &str, milli_cpu: i64, more: &Value) -> Pod {
    let mut value = json!({"spec": {"schedulingGroup": {"podGroupName": group}, "priority": 0}});
    merge(&mut value, more);
    pod_with(name, milli_cpu, &value)
}

fn member(group: &str, name: &str, milli_cpu: i64) -> Pod {
    member_with(group, name, milli_cpu, &json!({}))
}

fn change<K: kube::Resource + Clone>(old: Option<&K>, new: Option<&K>) -> Change<K> {
    Change {
        key: ObjectKey::of(new.or(old).expect("one of them")),
        old: old.cloned().map(Arc::new),
        new: new.cloned().map(Arc::new),
    }
}

fn core(nodes: &[Node]) -> Core {
    let mut core = Core::new(default_placement(), 7);
    core.serve_groups(true);
    for node in nodes {
        core.node(&change(None, Some(node)), Instant::now());
    }
    core
}

fn come(core: &mut Core, pod: &Pod) {
    core.pod(&change(None, Some(pod)), Instant::now());
}

fn declare(core: &mut Core, group: &PodGroup) {
    core.pod_group(&change(None, Some(group)), Instant::now());
}

/// What a round of cycles led to.
#[derive(Debug, Default)]
struct Round {
    bound: BTreeMap<String, String>,
    told: BTreeMap<String, String>,
    nominated: BTreeMap<String, String>,
    victims: BTreeSet<String>,
    groups: BTreeMap<String, GroupOutcome>,
}

fn round(core: &mut Core) -> Round {
    let mut round = Round::default();
    while let Some(action) = core.cycle(Instant::now()) {
        match action {
            Action::Bind { pod, node, .. } => {
                round.bound.insert(pod.key.name.clone(), node.to_string());
            }
            Action::Tell {
                pod,
                message,
                nomination,
                eviction,
                ..
            } => {
                let name = pod.key.name.clone();
                if let Nomination::Set(node) = nomination {
                    round.nominated.insert(name.clone(), node.to_string());
                }
                let victims = eviction.into_iter().flat_map(|eviction| eviction.victims);
                round
                    .victims
                    .extend(victims.map(|victim| victim.key.name.clone()));
                round.told.insert(name, message);
            }
            Action::Failed { pod, message } => {
                round.told.insert(pod.key.name.clone(), message);
            }
            Action::Group { group, outcome } => {
                let name = group.metadata.name.clone().expect("a name");
                round.groups.insert(name, outcome);
            }
            Action::Ask(_) => panic!("nobody is there to be asked"),
        }
    }
    round
}

#[tokio::test(start_paused = true)]
async fn a_gang_waits_for_its_group_and_for_enough_pods() {
    let mut core = core(&[node("n", 4000, 4096)]);
    come(&mut core, &member("g", "a", 100));
    assert_eq!(core.depth().gated, 1, "there is no group yet");
    declare(&mut core, &gang("g", 3));
    come(&mut core, &member("g", "b", 100));
    assert_eq!(core.depth().gated, 2, "two of three");
    assert!(core.cycle(Instant::now()).is_none());
    come(&mut core, &member("g", "c", 100));
    assert_eq!(core.depth().gated, 0);
    let round = round(&mut core);
    assert_eq!(round.bound.len(), 3, "{round:?}");
    let outcome = &round.groups["g"];
    assert!(outcome.scheduled);
    assert_eq!(
        (outcome.reason, outcome.message.as_str()),
        ("Scheduled", "")
    );
    // One more of a group that is placed goes by itself.
    come(&mut core, &member("g", "d", 100));
    assert_eq!(super::gangs::round(&mut core).bound.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gang_that_does_not_fit_leaves_nothing_behind() {
    let mut core = core(&[node("n", 1000, 4096), node("m", 1000, 4096)]);
    declare(&mut core, &gang("g", 3));
    for name in ["a", "b", "c"] {
        come(&mut core, &member("g", name, 800));
    }
    let first = round(&mut core);
    assert!(first.bound.is_empty(), "{first:?}");
    let group = &first.groups["g"];
    assert!(!group.scheduled);
    assert_eq!(group.reason, "Unschedulable");
    assert_eq!(
        group.message,
        "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining, \
         No preemption victims found for incoming preemptor"
    );
    // The one that fits nowhere says why; the others say what the group waits for.
    assert_eq!(
        first.told["c"],
        "0/2 nodes are available: 2 Insufficient cpu."
    );
    assert_eq!(first.told["a"], group.message);
    // What it tried to hold is free for somebody else.
    come(&mut core, &pod_with("alone", 1000, &json!({})));
    assert!(round(&mut core).bound.contains_key("alone"));
    // A node that makes room for one pod wakes all of the gang.
    core.node(&change(None, Some(&node("o", 2000, 4096))), Instant::now());
    tokio::time::advance(Duration::from_secs(20)).await;
    core.tick(Instant::now());
    let second = round(&mut core);
    assert_eq!(second.bound.len(), 3, "{second:?}");
    assert!(second.groups["g"].scheduled);
}

#[tokio::test(start_paused = true)]
async fn two_gangs_never_hold_half_of_each_others_room() {
    let mut core = core(&[node("n", 1000, 4096), node("m", 1000, 4096)]);
    declare(&mut core, &gang("one", 2));
    declare(&mut core, &gang("two", 2));
    // They come in turns; each needs both nodes.
    for (group, name) in [("one", "1a"), ("two", "2a"), ("one", "1b"), ("two", "2b")] {
        come(&mut core, &member(group, name, 800));
    }
    let done = round(&mut core);
    let names: Vec<&str> = done.bound.keys().map(String::as_str).collect();
    assert_eq!(names, ["1a", "1b"], "{done:?}");
    assert!(done.groups["one"].scheduled);
    assert!(!done.groups["two"].scheduled);
}

#[tokio::test(start_paused = true)]
async fn a_basic_group_is_no_gang() {
    let mut core = core(&[node("n", 1000, 4096)]);
    declare(
        &mut core,
        &group_with("g", &json!({"spec": {"schedulingPolicy": {"basic": {}}}})),
    );
    for name in ["a", "b"] {
        come(&mut core, &member("g", name, 800));
    }
    let round = round(&mut core);
    assert_eq!(round.bound.len(), 1, "{round:?}");
    assert!(round.groups["g"].scheduled);
    assert_eq!(round.told.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_group_must_agree() {
    let other = json!({"spec": {"priority": 5}});
    let never = json!({"spec": {"preemptionPolicy": "Never"}});
    let rows = [
        (
            other,
            "all pods in a single pod group should have the same priority as the pod group's \
             priority, got 5 and 0",
        ),
        (
            never,
            "all pods in a single pod group should have the same preemption policy, got Never and \
             PreemptLowerPriority",
        ),
    ];
    for (more, text) in rows {
        let mut core = core(&[node("n", 4000, 4096)]);
        declare(&mut core, &gang("g", 2));
        come(&mut core, &member("g", "a", 100));
        come(&mut core, &member_with("g", "b", 100, &more));
        let action = |core: &mut Core| core.cycle(Instant::now()).expect("something is told");
        for _ in 0..2 {
            match action(&mut core) {
                // Whoever is first is the measure of the others.
                Action::Failed { message, .. } => assert!(
                    message == text || message.contains("got PreemptLowerPriority and Never"),
                    "{message}"
                ),
                other => panic!("{other:?}"),
            }
        }
        match action(&mut core) {
            Action::Group { outcome, .. } => assert_eq!(outcome.reason, "SchedulerError"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fewer_are_enough_when_the_group_says_so() {
    let mut core = core(&[node("n", 4000, 4096)]);
    declare(&mut core, &gang("g", 3));
    come(&mut core, &member("g", "a", 100));
    come(&mut core, &member("g", "b", 100));
    assert!(core.cycle(Instant::now()).is_none());
    core.pod_group(
        &change(Some(&gang("g", 3)), Some(&gang("g", 2))),
        Instant::now(),
    );
    assert_eq!(round(&mut core).bound.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_gang_preempts_as_one_and_spares_whom_it_can() {
    let less = |name: &str, at: &str, cpu: i64, priority: i32| {
        let more = json!({"spec": {"nodeName": at, "priority": priority}});
        pod_with(name, cpu, &more)
    };
    let urgent = json!({"spec": {"priority": 10}});
    let mut core = core(&[node("n", 1000, 4096), node("m", 1000, 4096)]);
    for pod in [
        less("n-large", "n", 600, 1),
        less("n-small", "n", 100, 2),
        less("m-large", "m", 600, 1),
        less("m-small", "m", 100, 2),
    ] {
        come(&mut core, &pod);
    }
    let mut group = gang("g", 2);
    group.spec.priority = Some(10);
    declare(&mut core, &group);
    for name in ["a", "b"] {
        come(&mut core, &member_with("g", name, 800, &urgent));
    }
    let asked = round(&mut core);
    assert!(asked.bound.is_empty());
    let victims: Vec<&str> = asked.victims.iter().map(String::as_str).collect();
    assert_eq!(victims, ["m-large", "n-large"], "{asked:?}");
    let nodes: BTreeSet<&str> = asked.nominated.values().map(String::as_str).collect();
    assert_eq!(nodes, BTreeSet::from(["m", "n"]));
    assert!(
        asked.groups["g"]
            .message
            .ends_with("found a placement for podgroup, preempting 2 victims"),
        "{asked:?}"
    );
    // They go, and the gang comes.
    core.evicted(&"uid-a".into(), false, Instant::now());
    for pod in [less("n-large", "n", 600, 1), less("m-large", "m", 600, 1)] {
        core.pod(&change(Some(&pod), None), Instant::now());
    }
    tokio::time::advance(Duration::from_secs(20)).await;
    core.tick(Instant::now());
    let done = round(&mut core);
    assert_eq!(done.bound.len(), 2, "{done:?}");
    // A gang for which no victims are enough asks nobody to go.
    let mut huge = gang("h", 3);
    huge.spec.priority = Some(10);
    declare(&mut core, &huge);
    for name in ["x", "y", "z"] {
        come(&mut core, &member_with("h", name, 1000, &urgent));
    }
    let refused = round(&mut core);
    assert!(refused.victims.is_empty(), "{refused:?}");
    assert!(refused.nominated.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_group_that_goes_as_one_goes_from_all_nodes() {
    let mut core = core(&[node("n", 1000, 4096), node("m", 1000, 4096)]);
    declare(
        &mut core,
        &group_with(
            "g",
            &json!({"spec": {
            "schedulingPolicy": {"gang": {"minCount": 2}}, "disruptionMode": {"single": null, "all": {}}}}),
        ),
    );
    for (name, at) in [("a", "n"), ("b", "m")] {
        let more = json!({"spec": {"nodeName": at}});
        come(&mut core, &member_with("g", name, 800, &more));
    }
    come(
        &mut core,
        &pod_with("urgent", 800, &json!({"spec": {"priority": 10}})),
    );
    let asked = round(&mut core);
    let victims: Vec<&str> = asked.victims.iter().map(String::as_str).collect();
    assert_eq!(victims, ["a", "b"], "{asked:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Member(usize, usize, i64),
    Cycle,
    Fail,
    Confirm,
    Gone(usize, usize),
    Time,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..3usize, 0..6usize, 100..900i64).prop_map(|(g, at, cpu)| Step::Member(g, at, cpu)),
        6 => Just(Step::Cycle),
        1 => Just(Step::Fail),
        3 => Just(Step::Confirm),
        1 => (0..3usize, 0..6usize).prop_map(|(g, at)| Step::Gone(g, at)),
        1 => Just(Step::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whenever the first pod of a gang is bound, bindings of enough of them are decided; no node
    /// is promised more than it has; and what did not fit is counted nowhere.
    #[test]
    fn no_gang_is_begun_that_is_not_decided_as_a_whole(
        steps in proptest::collection::vec(step(), 1..80),
        mins in proptest::collection::vec(1..5i32, 3),
    ) {
        let mut now = Instant::now();
        let mut core = core(&[node("n", 2000, 8192), node("m", 1500, 8192)]);
        for (at, min) in mins.iter().enumerate() {
            declare(&mut core, &gang(&format!("g{at}"), *min));
        }
        let mut known: HashMap<(usize, usize), Pod> = HashMap::new();
        let mut under_way: Vec<(Arc<PodInfo>, Arc<str>, crate::framework::CycleState)> = Vec::new();
        for (serial, step) in steps.into_iter().enumerate() {
            match step {
                Step::Member(group, at, cpu) => {
                    // A name may come again, for another pod.
                    let uid = json!({"metadata": {"uid": format!("u{serial}")}});
                    let pod = member_with(&format!("g{group}"), &format!("p{group}-{at}"), cpu, &uid);
                    if let std::collections::hash_map::Entry::Vacant(free) = known.entry((group, at)) {
                        core.pod(&change(None, Some(&pod)), now);
                        free.insert(pod);
                    }
                }
                Step::Gone(group, at) => {
                    if let Some(pod) = known.remove(&(group, at)) {
                        core.pod(&change(Some(&pod), None), now);
                    }
                }
                Step::Time => {
                    now += Duration::from_secs(30);
                    core.tick(now);
                }
                Step::Fail => {
                    if let Some((pod, node, state)) = under_way.pop() {
                        let there = known.values().any(|it| it.metadata.uid == pod.pod.metadata.uid);
                        core.not_bound(&pod, &node, state, there.then_some(&pod.pod), now);
                    }
                }
                Step::Confirm => {
                    if under_way.is_empty() {
                        continue;
                    }
                    let (pod, node, _) = under_way.remove(0);
                    let bound = merged(&pod.pod, &json!({"spec": {"nodeName": &*node}}));
                    for other in known.values_mut() {
                        if other.metadata.uid == pod.pod.metadata.uid {
                            core.pod(&change(Some(&*other), Some(&bound)), now);
                            *other = bound.clone();
                        }
                    }
                }
                Step::Cycle => {
                    let before: Vec<usize> = (0..3)
                        .map(|at| core.snapshot().groups.placed(&ObjectKey::new("default", format!("g{at}"))))
                        .collect();
                    let mut placed = false;
                    while let Some(action) = core.cycle(now) {
                        if let Action::Bind { pod, node, state, .. } = action {
                            placed = true;
                            under_way.push((pod, node, state));
                        }
                    }
                    for (at, min) in mins.iter().enumerate() {
                        let key = ObjectKey::new("default", format!("g{at}"));
                        let count = core.snapshot().groups.placed(&key);
                        let enough = usize::try_from(*min).expect("positive");
                        prop_assert!(
                            count == before[at] || count >= enough,
                            "{count} of {enough}, {placed}"
                        );
                    }
                }
            }
            for at in core.snapshot().order() {
                let node = core.snapshot().node(*at);
                let cpu: i64 = node.pods.iter().map(|pod| pod.requests.scored_milli_cpu).sum();
                let all = if *node.name == *"n" { 2000 } else { 1500 };
                prop_assert!(cpu <= all, "{cpu} of {all}");
            }
        }
    }
}

fn merged(pod: &Pod, more: &Value) -> Pod {
    let mut value = serde_json::to_value(pod).expect("JSON");
    merge(&mut value, more);
    serde_json::from_value(value).expect("a pod")
}
