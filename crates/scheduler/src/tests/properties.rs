//! What holds whatever comes: no node is promised more than it has, no taint is passed over.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_client::{Change, ObjectKey};
use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::objects::{node_with, pod_with};
use crate::core::{Action, Core};
use crate::plugins::default_placement;
use crate::plugins::taints::untolerated;

fn some_node(index: usize, milli_cpu: i64, pods: u8, tainted: bool) -> Node {
    let taints = if tainted {
        json!([{"key": "k", "value": "v", "effect": "NoSchedule"}])
    } else {
        json!([])
    };
    let more = json!({
        "metadata": {"labels": {"zone": format!("z{}", index % 3)}},
        "spec": {"taints": taints},
        "status": {"allocatable": {"pods": pods.to_string()}},
    });
    node_with(&format!("node-{index}"), milli_cpu, 1024, &more)
}

fn some_pod(index: usize, milli_cpu: i64, tolerant: bool, lonely: bool) -> Pod {
    let tolerations = if tolerant {
        json!([{"operator": "Exists"}])
    } else {
        json!([])
    };
    let affinity = if lonely {
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {"matchLabels": {"lonely": "true"}}}]}})
    } else {
        json!({})
    };
    let more = json!({
        "metadata": {"labels": {"lonely": lonely.to_string()}},
        "spec": {"tolerations": tolerations, "affinity": affinity},
    });
    pod_with(&format!("pod-{index}"), milli_cpu, &more)
}

#[derive(Debug, Clone)]
enum Step {
    Node(usize, i64, u8, bool),
    Pod(usize, i64, bool, bool),
    Cycle,
    /// The binding of the oldest pod under way is refused.
    Fail,
    /// The watch tells of it.
    Confirm,
    Gone(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..6usize, 0..3000i64, 0..8u8, any::<bool>())
            .prop_map(|(at, cpu, pods, tainted)| Step::Node(at, cpu, pods, tainted)),
        6 => (0..40usize, 0..1500i64, any::<bool>(), any::<bool>())
            .prop_map(|(at, cpu, tolerant, lonely)| Step::Pod(at, cpu, tolerant, lonely)),
        8 => Just(Step::Cycle),
        1 => Just(Step::Fail),
        3 => Just(Step::Confirm),
        2 => (0..40usize).prop_map(Step::Gone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_decision_breaks_a_promise(steps in proptest::collection::vec(step(), 1..120)) {
        let mut core = Core::new(default_placement(), 3);
        let now = Instant::now();
        let mut known: HashMap<usize, Pod> = HashMap::new();
        let mut under_way = Vec::new();
        for step in steps {
            match step {
                Step::Node(at, cpu, pods, tainted) => {
                    let node = some_node(at, cpu, pods, tainted);
                    let change = Change {
                        key: ObjectKey::of(&node), old: None, new: Some(Arc::new(node)),
                    };
                    core.node(&change, now);
                }
                Step::Pod(at, cpu, tolerant, lonely) => {
                    if known.contains_key(&at) {
                        continue;
                    }
                    let pod = some_pod(at, cpu, tolerant, lonely);
                    known.insert(at, pod.clone());
                    let change = Change {
                        key: ObjectKey::of(&pod), old: None, new: Some(Arc::new(pod)),
                    };
                    core.pod(&change, now);
                }
                Step::Gone(at) => {
                    if let Some(pod) = known.remove(&at) {
                        let change = Change {
                            key: ObjectKey::of(&pod), old: Some(Arc::new(pod)), new: None,
                        };
                        core.pod(&change, now);
                    }
                }
                Step::Fail => {
                    if let Some((pod, node, state)) = under_way.pop() {
                        let pod: Arc<crate::pod::PodInfo> = pod;
                        let node: Arc<str> = node;
                        let there = known.values().any(|known| known.metadata.uid == pod.pod.metadata.uid);
                        let latest = there.then_some(&pod.pod);
                        core.not_bound(&pod, &node, state, latest, now);
                    }
                }
                Step::Confirm => {
                    if let Some((pod, node, _)) = under_way.pop() {
                        let mut bound = (*pod.pod).clone();
                        if !known.values().any(|known| known.metadata.uid == bound.metadata.uid) {
                            continue;
                        }
                        bound.spec.as_mut().expect("a spec").node_name = Some(node.to_string());
                        let change = Change {
                            key: ObjectKey::of(&bound), old: None, new: Some(Arc::new(bound)),
                        };
                        core.pod(&change, now);
                    }
                }
                Step::Cycle => {
                    core.tick(now);
                    let Some(Action::Bind { pod, node, state, .. }) = core.cycle(now) else {
                        continue;
                    };
                    let at = core.snapshot().find(&node).expect("the node exists");
                    let info = core.snapshot().node(at);
                    prop_assert!(untolerated(&pod, info).is_none());
                    prop_assert!(info.pods.len() <= info.allowed_pods);
                    let wanted = pod.requests.exact.milli_cpu;
                    prop_assert!(
                        wanted == 0 || info.requested.milli_cpu <= info.allocatable.milli_cpu
                    );
                    let lonely = |pod: &crate::pod::PodInfo| pod.class.label("lonely") == Some("true");
                    if lonely(&pod) {
                        let zone = info.label("zone");
                        let company = core.snapshot().order().iter()
                            .map(|at| core.snapshot().node(*at))
                            .filter(|other| other.label("zone") == zone)
                            .flat_map(|other| &other.pods)
                            .filter(|other| lonely(other))
                            .count();
                        prop_assert_eq!(company, 1);
                    }
                    under_way.push((pod, node, state));
                }
            }
            // The sums are those of the pods, whatever came and went.
            for at in core.snapshot().order() {
                let info = core.snapshot().node(*at);
                let sum: i64 = info.pods.iter().map(|pod| pod.requests.exact.milli_cpu).sum();
                prop_assert_eq!(info.requested.milli_cpu, sum);
            }
        }
    }
}
