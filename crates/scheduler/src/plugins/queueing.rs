//! The order of the queue, and the gates before it.

use crate::framework::{ClusterEvent, Plugin, PreEnqueue, QueueSort, Rejection};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Higher priority first.
#[derive(Debug)]
pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>) -> bool {
        false
    }
}

impl QueueSort for PrioritySort {
    fn rank(&self, pod: &PodInfo) -> i64 {
        i64::from(pod.priority)
    }
}

/// Pods with `spec.schedulingGates` are not tried (KEP-3521).
#[derive(Debug)]
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>) -> bool {
        // Only a change of the pod itself lifts a gate.
        false
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo, _: &Snapshot) -> Option<Rejection> {
        let gates = pod.spec()?.scheduling_gates.as_ref()?;
        if gates.is_empty() {
            return None;
        }
        let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
        Some(Rejection::unresolvable(format!(
            "waiting for scheduling gates: [{}]",
            names.join(" ")
        )))
    }
}
