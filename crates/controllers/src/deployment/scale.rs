//! Resizing, also in the middle of a rollout or while paused: pure.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::limits::{self, available, size};
use super::plan::{World, older_first, resize};
use super::revision::{DESIRED, MAXIMUM, annotation};

fn number(set: &ReplicaSet, name: &str) -> Option<i32> {
    annotation(set, name).and_then(|text| text.parse().ok())
}

/// Somebody changed `spec.replicas` since the sets were last scaled.
pub(super) fn is_scaling(world: &World<'_>) -> bool {
    let wanted = limits::wanted(&world.deployment);
    let active = world.sets().filter(|set| size(set) > 0);
    active
        .filter_map(|set| number(set, DESIRED))
        .any(|desired| desired != wanted)
}

/// Brings the sets to the size asked for, in proportion where several have pods.
pub(super) fn scale(world: &mut World<'_>) {
    let deployment = world.deployment.clone();
    let wanted = limits::wanted(&deployment);
    let mut messages = std::mem::take(&mut world.messages);
    if let Some(set) = active_or_latest(world) {
        // Also when the size is right: the annotations then say what it was scaled for.
        resize(set, wanted, &deployment, &mut messages);
        world.messages = messages;
        return;
    }
    let saturated = world
        .new
        .as_ref()
        .is_some_and(|set| is_saturated(&deployment, set));
    if saturated {
        for set in world.old.iter_mut().filter(|set| size(set) > 0) {
            resize(set, 0, &deployment, &mut messages);
        }
    } else if !limits::is_recreate(&deployment) {
        proportionally(world, &deployment, &mut messages);
    }
    world.messages = messages;
}

/// The only set with pods; the new one, or the newest old one, when none has any.
fn active_or_latest<'a>(world: &'a mut World<'_>) -> Option<&'a mut ReplicaSet> {
    world.old.sort_by(older_first);
    let active = world.sets().filter(|set| size(set) > 0).count();
    match active {
        0 if world.new.is_some() => world.new.as_mut(),
        0 => world.old.last_mut(),
        1 => {
            let mut all = world.old.iter_mut().chain(world.new.iter_mut());
            all.find(|set| size(set) > 0)
        }
        _ => None,
    }
}

fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = limits::wanted(deployment);
    number(set, DESIRED) == Some(wanted) && size(set) == wanted && available(set) == wanted
}

fn proportionally(world: &mut World<'_>, deployment: &Deployment, messages: &mut Vec<String>) {
    let wanted = limits::wanted(deployment);
    let allowed = match wanted {
        0 => 0,
        wanted => wanted + limits::max_surge(deployment),
    };
    let reported = deployment
        .status
        .as_ref()
        .and_then(|it| it.replicas)
        .unwrap_or(0);
    let to_add = allowed - world.total();
    let mut active: Vec<&mut ReplicaSet> = world
        .old
        .iter_mut()
        .chain(world.new.iter_mut())
        .filter(|set| size(set) > 0)
        .collect();
    // The largest takes what rounding leaves over; among equals the newest when growing, the
    // oldest when shrinking.
    active.sort_by(|a, b| {
        let age = if to_add > 0 {
            older_first(b, a)
        } else {
            older_first(a, b)
        };
        size(b).cmp(&size(a)).then(age)
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for set in &active {
        let share = share(set, deployment, reported, to_add, added);
        added += share;
        sizes.push(size(set) + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (set, to) in active.into_iter().zip(sizes) {
        resize(set, to, deployment, messages);
    }
}

fn share(set: &ReplicaSet, deployment: &Deployment, reported: i32, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let left = to_add - added;
    let part = fraction(set, deployment, reported);
    if to_add > 0 {
        part.min(left)
    } else {
        part.max(left)
    }
}

fn fraction(set: &ReplicaSet, deployment: &Deployment, reported: i32) -> i32 {
    let wanted = limits::wanted(deployment);
    if wanted == 0 {
        return -size(set);
    }
    let most = i64::from(wanted) + i64::from(limits::max_surge(deployment));
    let before = number(set, MAXIMUM)
        .filter(|most| *most != 0)
        .unwrap_or(reported);
    if before <= 0 {
        return 0;
    }
    let exact = i64::from(size(set)) * most;
    // Rounded half up; all numbers are positive.
    let scaled = (2 * exact + i64::from(before)) / (2 * i64::from(before));
    i32::try_from(scaled).unwrap_or(i32::MAX) - size(set)
}
