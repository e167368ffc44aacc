//! Does the node have what the pod requests, and which node is better for it?

use std::collections::BTreeSet;

use evenkeel_api::devices::claims::may_be_devices;

use super::dynamic_resources::Delegated;
use super::scoring::Scoring;
use crate::framework::{ClusterEvent, CycleState, Filter, Plugin, Rejection, Score};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo};

/// `NodeResourcesFit`.
#[derive(Debug, Default)]
pub struct Fit {
    /// Which nodes are better.
    pub scoring: Scoring,
    /// Extended resources that are somebody else's to count.
    pub ignored: BTreeSet<String>,
    /// The same, by the part of the name before the slash.
    pub ignored_groups: BTreeSet<String>,
}

impl Fit {
    fn ignores(&self, name: &str) -> bool {
        let group = name.split_once('/').map(|(group, _)| group);
        self.ignored.contains(name)
            || group.is_some_and(|group| self.ignored_groups.contains(group))
    }
}

/// What the node lacks for the pod, in the reference's order. `delegated` resources are found by
/// others where the node does not have them itself.
fn insufficient(
    fit: &Fit,
    pod: &PodInfo,
    node: &NodeInfo,
    delegated: impl Fn(&str) -> bool,
) -> Option<Rejection> {
    let mut reasons = Vec::new();
    let mut resolvable = true;
    if node.pods.len() + 1 > node.allowed_pods {
        reasons.push("Too many pods".into());
    }
    let wanted = &pod.requests.exact;
    let mut check = |name: &str, wanted: i64, allocatable: i64, used: i64| {
        if wanted > 0 && wanted > allocatable.saturating_sub(used) {
            reasons.push(format!("Insufficient {name}").into());
            // What the empty node does not have, no eviction can free.
            resolvable &= wanted <= allocatable;
        }
    };
    let (all, used) = (&node.allocatable, &node.requested);
    check("cpu", wanted.milli_cpu, all.milli_cpu, used.milli_cpu);
    check("memory", wanted.memory, all.memory, used.memory);
    check(
        "ephemeral-storage",
        wanted.ephemeral_storage,
        all.ephemeral_storage,
        used.ephemeral_storage,
    );
    for (name, amount) in &wanted.scalar {
        let there = all.scalar(name);
        if !fit.ignores(name) && (there > 0 || !delegated(name)) {
            check(name, *amount, there, used.scalar(name));
        }
    }
    (!reasons.is_empty()).then_some(Rejection {
        reasons,
        resolvable,
    })
}

/// May the event make room for the pod?
fn makes_room(fit: &Fit, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
    match event {
        ClusterEvent::PodGone(_) | ClusterEvent::PodShrunk(_) => true,
        // Whatever else the node changed, it helps only if the pod fits now.
        ClusterEvent::Node { node, delta } => {
            // Devices may stand behind what the node does not have; who knows is asked again.
            (delta.added || delta.allocatable)
                && insufficient(fit, pod, node, may_be_devices).is_none()
        }
        // A class may say that its devices are what the pod asks for.
        ClusterEvent::Devices => {
            let mut scalar = pod.requests.exact.scalar.iter();
            scalar.any(|(name, _)| may_be_devices(name))
        }
        _ => false,
    }
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        makes_room(self, pod, event)
    }
}

impl Filter for Fit {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        insufficient(self, pod, node, |name| Delegated::has(state, name))
    }

    fn detail(&self, pod: &PodInfo, node: &NodeInfo) -> Option<String> {
        let wanted = &pod.requests.exact;
        let (all, used) = (&node.allocatable, &node.requested);
        let mut parts = Vec::new();
        let mut compare = |name: &str, wanted: i64, all: i64, used: i64, unit: &str| {
            let free = all.saturating_sub(used);
            if wanted > 0 && wanted > free {
                parts.push(format!(
                    "{name}: {wanted}{unit} wanted, {free}{unit} of {all}{unit} free"
                ));
            }
        };
        compare("cpu", wanted.milli_cpu, all.milli_cpu, used.milli_cpu, "m");
        compare("memory", wanted.memory, all.memory, used.memory, " bytes");
        compare(
            "ephemeral-storage",
            wanted.ephemeral_storage,
            all.ephemeral_storage,
            used.ephemeral_storage,
            " bytes",
        );
        for (name, amount) in &wanted.scalar {
            compare(name, *amount, all.scalar(name), used.scalar(name), "");
        }
        if node.pods.len() + 1 > node.allowed_pods {
            parts.push(format!("holds {} pods", node.pods.len()));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl Score for Fit {
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo, _at: NodeIndex) -> i64 {
        self.scoring.score(pod, node)
    }
}
