//! Does the node have what the pod requests, and which node is emptiest?

use crate::framework::{
    ClusterEvent, CycleState, Filter, MAX_NODE_SCORE, Plugin, PreScore, Rejection, Score,
};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};

/// `NodeResourcesFit` with the `LeastAllocated` strategy over CPU and memory.
#[derive(Debug)]
pub struct Fit;

/// What the node lacks for the pod, in the reference's order.
fn insufficient(pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
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
        check(name, *amount, all.scalar(name), used.scalar(name));
    }
    (!reasons.is_empty()).then_some(Rejection {
        reasons,
        resolvable,
    })
}

/// May the event make room for the pod?
fn makes_room(pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
    match event {
        ClusterEvent::PodGone(_) | ClusterEvent::PodShrunk(_) => true,
        // Whatever else the node changed, it helps only if the pod fits now.
        ClusterEvent::Node { node, delta } => {
            (delta.added || delta.allocatable) && insufficient(pod, node).is_none()
        }
        _ => false,
    }
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        makes_room(pod, event)
    }
}

impl Filter for Fit {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        insufficient(pod, node)
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
        let rows = [
            (
                node.allocatable.milli_cpu,
                node.scored_milli_cpu + pod.requests.scored_milli_cpu,
            ),
            (
                node.allocatable.memory,
                node.scored_memory + pod.requests.scored_memory,
            ),
        ];
        let (mut sum, mut weight) = (0, 0);
        for (all, used) in rows {
            if all == 0 {
                continue;
            }
            weight += 1;
            if used <= all {
                // In 128 bits: a hundred times the bytes of a large node may not fit in 64.
                let free = i128::from(all - used) * i128::from(MAX_NODE_SCORE) / i128::from(all);
                sum += i64::try_from(free).unwrap_or(MAX_NODE_SCORE);
            }
        }
        if weight == 0 { 0 } else { sum / weight }
    }
}

/// `NodeResourcesBalancedAllocation`: prefers nodes whose CPU and memory would be used alike.
#[derive(Debug)]
pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>) -> bool {
        false
    }
}

impl PreScore for BalancedAllocation {
    fn pre_score(
        &self,
        _state: &mut CycleState,
        pod: &PodInfo,
        _snapshot: &Snapshot,
        _feasible: &[NodeIndex],
    ) -> bool {
        // A best-effort pod balances nothing.
        pod.requests.exact.milli_cpu != 0 || pod.requests.exact.memory != 0
    }
}

impl Score for BalancedAllocation {
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo, _at: NodeIndex) -> i64 {
        let wanted = &pod.requests.exact;
        let fraction = |all: i64, used: i64| (all > 0).then(|| (used as f64 / all as f64).min(1.0));
        let cpu = fraction(
            node.allocatable.milli_cpu,
            node.requested.milli_cpu + wanted.milli_cpu,
        );
        let memory = fraction(
            node.allocatable.memory,
            node.requested.memory + wanted.memory,
        );
        // The standard deviation of two values is half their distance.
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
            _ => 0.0,
        };
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a value between 0 and 100, truncated as the reference does"
        )]
        let score = ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64;
        score
    }
}
