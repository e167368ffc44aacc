//! Which pods of an older revision go next.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;

use super::identity;
use super::plan::{Action, Replica, World, is_ordered, is_updated};
use crate::pods;
use crate::scaled::scaled;

/// The update strategy.
#[must_use]
pub fn strategy(set: &StatefulSet) -> &str {
    let strategy = set.spec.update_strategy.as_ref();
    let kind = strategy.and_then(|it| it.type_.as_deref());
    kind.filter(|text| !text.is_empty())
        .unwrap_or("RollingUpdate")
}

/// Ordinals below this one, counted from the first, keep their revision.
#[must_use]
pub fn partition(set: &StatefulSet) -> usize {
    let strategy = set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|it| it.rolling_update.as_ref());
    let partition = rolling.and_then(|it| it.partition).unwrap_or(0);
    usize::try_from(partition).unwrap_or(0)
}

/// Pods that may be unavailable while rolling; at least one, or nothing could move.
#[must_use]
pub fn max_unavailable(set: &StatefulSet) -> usize {
    let strategy = set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|it| it.rolling_update.as_ref());
    let value = rolling.and_then(|it| it.max_unavailable.as_ref());
    let number = match value {
        None => 1,
        value => scaled(value, identity::wanted(set), false),
    };
    usize::try_from(number).unwrap_or(1).max(1)
}

/// Deletes pods of an older revision, highest ordinal first, while the number of unavailable ones
/// allows it.
pub(super) fn roll(world: &World<'_>, replicas: &[Replica], actions: &mut Vec<Action>) {
    if strategy(world.set) != "RollingUpdate" {
        return;
    }
    let there = |replica: &Replica| match replica {
        Replica::There(pod) => Some(Arc::clone(pod)),
        Replica::Missing(_) => None,
    };
    // A place that is still empty is unavailable too.
    let bad = replicas.iter().filter(|it| world.is_bad(it)).count();
    let most = max_unavailable(world.set);
    let candidates: Vec<Arc<Pod>> = replicas
        .iter()
        .skip(partition(world.set))
        .filter_map(there)
        .filter(|pod| pod.metadata.deletion_timestamp.is_none() && !is_updated(world, pod))
        // What has ended is deleted by now.
        .filter(|pod| !pods::is_terminal(pod))
        .collect();
    let mut room = most.saturating_sub(bad);
    let mut victims = Vec::new();
    if !is_ordered(world.set) {
        // Those that serve nobody cost nothing, so they go first and all.
        let idle = candidates.iter().rev();
        victims.extend(idle.filter(|pod| world.is_unavailable(pod)).cloned());
    }
    for pod in candidates.iter().rev() {
        let taken = victims.iter().any(|it| it.metadata.uid == pod.metadata.uid);
        if room == 0 {
            break;
        }
        if !taken {
            victims.push(Arc::clone(pod));
            room -= 1;
        }
    }
    actions.extend(victims.into_iter().map(Action::Delete));
}
