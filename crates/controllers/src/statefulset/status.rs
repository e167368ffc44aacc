//! What a StatefulSet reports: pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity::{revision, wanted};
use super::plan::Revisions;
use crate::{history, pods};

/// Counts over the set's pods. When all are of the revision the set goes to, it has arrived.
#[must_use]
pub fn status(
    set: &StatefulSet,
    revisions: &Revisions,
    collisions: i32,
    mine: &[Arc<Pod>],
    now: Timestamp,
) -> StatefulSetStatus {
    let (current, update) = (
        history::name(&revisions.current),
        history::name(&revisions.update),
    );
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let (mut replicas, mut ready, mut available) = (0, 0, 0);
    let (mut on_current, mut on_update) = (0, 0);
    for pod in mine {
        replicas += 1;
        if pods::phase(pod) == "Running" && pods::is_ready(pod) {
            ready += 1;
            let at = pods::available_at(pod, min_ready);
            available += i32::from(at.is_some_and(|at| at <= now));
        }
        if pod.metadata.deletion_timestamp.is_none() {
            on_current += i32::from(revision(pod) == current);
            on_update += i32::from(revision(pod) == update);
        }
    }
    let wanted = wanted(set);
    let arrived = on_update == wanted && ready == wanted && replicas == wanted;
    let old = set.status.as_ref();
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas,
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        current_replicas: Some(if arrived { on_update } else { on_current }),
        updated_replicas: Some(on_update),
        current_revision: Some(if arrived { update } else { current }.to_owned()),
        update_revision: Some(update.to_owned()),
        collision_count: Some(collisions),
        conditions: old.and_then(|it| it.conditions.clone()),
    }
}

/// The same for a reader: absent counts are zero.
#[must_use]
pub fn is_same(old: Option<&StatefulSetStatus>, new: &StatefulSetStatus) -> bool {
    let bare = |status: &StatefulSetStatus| {
        let zero = |value: Option<i32>| Some(value.unwrap_or(0));
        StatefulSetStatus {
            ready_replicas: zero(status.ready_replicas),
            available_replicas: zero(status.available_replicas),
            current_replicas: zero(status.current_replicas),
            updated_replicas: zero(status.updated_replicas),
            collision_count: zero(status.collision_count),
            conditions: status.conditions.clone().filter(|all| !all.is_empty()),
            ..status.clone()
        }
    };
    old.is_some_and(|old| bare(old) == bare(new))
}
