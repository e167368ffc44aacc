//! Which pods of an older template give way next, within surge and unavailability.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::Pod;

use super::plan::{Places, Plan, World, is_updated};
use crate::scaled::scaled;

/// Pods are replaced by the loop, not by whoever deletes them.
#[must_use]
pub fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.update_strategy.as_ref();
    let kind = strategy.and_then(|it| it.type_.as_deref());
    !matches!(kind, Some(kind) if kind != "RollingUpdate" && !kind.is_empty())
}

fn rolling(set: &DaemonSet) -> Option<&RollingUpdateDaemonSet> {
    let strategy = set.spec.update_strategy.as_ref()?;
    strategy.rolling_update.as_ref().filter(|_| is_rolling(set))
}

/// Two pods may share a node for a while.
#[must_use]
pub fn may_surge(set: &DaemonSet) -> bool {
    max_surge(set, 1) > 0
}

/// Nodes that may have a second pod, of so many.
#[must_use]
pub fn max_surge(set: &DaemonSet, nodes: i32) -> i32 {
    let surge = rolling(set).and_then(|it| it.max_surge.as_ref());
    scaled(surge, nodes, true)
}

/// `maxSurge` and `maxUnavailable` of so many nodes. If both are zero nothing could ever move, so
/// one may be unavailable.
#[must_use]
pub fn limits(set: &DaemonSet, nodes: i32) -> (usize, usize) {
    let surge = max_surge(set, nodes);
    let below = match rolling(set) {
        Some(rolling) => scaled(rolling.max_unavailable.as_ref(), nodes, true),
        None => 0,
    };
    let below = if nodes > 0 && surge <= 0 && below <= 0 {
        1
    } else {
        below
    };
    let number = |value: i32| usize::try_from(value).unwrap_or(0);
    (number(surge), number(below))
}

/// The new and the old pod of a node; `None` where there are several of a sort, which the first
/// part of the plan cleans up.
#[allow(clippy::type_complexity, reason = "a pair of options is what it is")]
fn pair<'a>(
    world: &World<'_>,
    pods: &'a [Arc<Pod>],
) -> Option<(Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>)> {
    let (mut new, mut old) = (None, None);
    for pod in pods {
        if pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let slot = if is_updated(world.set, pod, world.hash) {
            &mut new
        } else {
            &mut old
        };
        if slot.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

pub(super) fn roll(world: &World<'_>, places: &Places, plan: &mut Plan) {
    if !is_rolling(world.set) {
        return;
    }
    let wanted = places.nodes.values();
    let wanted = wanted.filter(|(_, fit)| fit.is_some_and(|fit| fit.run));
    let wanted = wanted.count();
    let nodes = i32::try_from(wanted).unwrap_or(i32::MAX);
    let (surge, below) = limits(world.set, nodes);
    if surge == 0 {
        in_place(world, places, below, plan);
    } else {
        surging(world, places, surge, wanted, plan);
    }
}

/// Old pods are deleted, as many at once as may be unavailable; the next look makes new ones.
fn in_place(world: &World<'_>, places: &Places, below: usize, plan: &mut Plan) {
    let mut unavailable = 0;
    let mut idle = Vec::new();
    let mut candidates = Vec::new();
    for (pods, fit) in places.nodes.values() {
        // A node that neither wants nor has a pod does not count.
        if pods.is_empty() && !fit.is_some_and(|fit| fit.run) {
            continue;
        }
        match pair(world, pods) {
            None | Some((None, None) | (Some(_), Some(_))) => unavailable += 1,
            Some((Some(new), None)) => unavailable += usize::from(!world.is_available(new)),
            Some((None, Some(old))) if world.is_available(old) => candidates.push(Arc::clone(old)),
            Some((None, Some(old))) => {
                // It serves nobody: replacing it costs nothing.
                unavailable += 1;
                idle.push(Arc::clone(old));
            }
        }
    }
    candidates.truncate(below.saturating_sub(unavailable));
    plan.delete.extend(idle);
    plan.delete.extend(candidates);
}

/// New pods come beside the old ones, and old ones go when the new are available.
fn surging(world: &World<'_>, places: &Places, surge: usize, wanted: usize, plan: &mut Plan) {
    let (mut surging, mut available) = (0, 0);
    let mut sunset = Vec::new();
    let mut candidates = Vec::new();
    for (node, (pods, fit)) in &places.nodes {
        if pods.is_empty() && !fit.is_some_and(|fit| fit.run) {
            continue;
        }
        let Some((new, old)) = pair(world, pods) else {
            surging += 1;
            continue;
        };
        let counts = old.or(new).is_some_and(|pod| world.is_available(pod));
        available += usize::from(counts);
        let Some(old) = old else { continue };
        let runs = fit.is_some_and(|fit| fit.run);
        match new {
            Some(new) if world.is_available(new) => plan.delete.push(Arc::clone(old)),
            Some(_) => surging += 1,
            None if !world.is_available(old) && !runs => plan.delete.push(Arc::clone(old)),
            // The old one serves nobody: the new one is not a surge but a replacement.
            None if !world.is_available(old) => plan.create.push(node.clone()),
            None if !runs => sunset.push(Arc::clone(old)),
            None => candidates.push(node.clone()),
        }
    }
    // With surge an owner expects all pods to be available: a node that is to be left keeps its
    // pod until another serves in its place.
    sunset.truncate(available.saturating_sub(wanted));
    plan.delete.extend(sunset);
    candidates.truncate(surge.saturating_sub(surging));
    plan.create.extend(candidates);
}
