//! What a DaemonSet reports: pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::plan::{Places, is_updated};
use crate::pods;

/// Counts over nodes; of several pods of a node the oldest counts.
#[must_use]
pub fn status(
    set: &DaemonSet,
    hash: &str,
    nodes: &[Arc<Node>],
    mine: &[Arc<Pod>],
    now: Timestamp,
) -> DaemonSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        ..DaemonSetStatus::default()
    };
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let (mut updated, mut available) = (0, 0);
    for (pods, fit) in Places::of(set, nodes, mine).nodes.values() {
        let Some(fit) = fit else { continue };
        if !fit.run {
            status.number_misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = pods.first() else { continue };
        status.current_number_scheduled += 1;
        if pods::is_ready(pod) {
            status.number_ready += 1;
            let at = pods::available_at(pod, min_ready);
            available += i32::from(at.is_some_and(|at| at <= now));
        }
        updated += i32::from(is_updated(set, pod, hash));
    }
    status.updated_number_scheduled = Some(updated);
    status.number_available = Some(available);
    status.number_unavailable = Some(status.desired_number_scheduled - available);
    status
}

/// The same for a reader: absent counts are zero.
#[must_use]
pub fn is_same(old: Option<&DaemonSetStatus>, new: &DaemonSetStatus) -> bool {
    let bare = |status: &DaemonSetStatus| {
        let zero = |value: Option<i32>| Some(value.unwrap_or(0));
        DaemonSetStatus {
            updated_number_scheduled: zero(status.updated_number_scheduled),
            number_available: zero(status.number_available),
            number_unavailable: zero(status.number_unavailable),
            conditions: status.conditions.clone().filter(|all| !all.is_empty()),
            ..status.clone()
        }
    };
    old.is_some_and(|old| bare(old) == bare(new))
}
