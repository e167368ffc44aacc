//! The two strategies: pure.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::limits::{self, available, size};
use super::plan::{World, older_first, resize};
use super::status;

/// How many replicas the new set may have now.
pub(super) fn new_replicas(world: &World<'_>, new: &ReplicaSet) -> i32 {
    let wanted = limits::wanted(&world.deployment);
    if limits::is_recreate(&world.deployment) {
        return wanted;
    }
    let most = wanted.saturating_add(limits::max_surge(&world.deployment));
    let room = most - world.total();
    if room <= 0 {
        return size(new);
    }
    size(new) + room.min(wanted - size(new))
}

/// Old down, new up, within surge and unavailability; one direction at a time.
pub(super) fn rolling(world: &mut World<'_>) {
    world.sync_revision(true);
    if world.made || scale_new(world) || scale_old(world) {
        return;
    }
    if status::is_complete(world) {
        world.clean_up();
    }
}

/// All old pods end, then the new ones start.
pub(super) fn recreate(world: &mut World<'_>) {
    world.sync_revision(false);
    let mut scaled = false;
    for set in world.old.iter_mut().filter(|set| size(set) > 0) {
        scaled |= resize(set, 0, &world.deployment, &mut world.messages);
    }
    if scaled || world.old_pods_running() {
        return;
    }
    if world.new.is_none() {
        world.sync_revision(true);
        return;
    }
    if scale_new(world) {
        return;
    }
    if status::is_complete(world) {
        world.clean_up();
    }
}

fn scale_new(world: &mut World<'_>) -> bool {
    let Some(mut new) = world.new.take() else {
        return false;
    };
    let wanted = limits::wanted(&world.deployment);
    let from = size(&new);
    let scaled = if from == wanted {
        false
    } else {
        world.new = Some(new.clone());
        let to = if from > wanted {
            wanted
        } else {
            new_replicas(world, &new)
        };
        resize(&mut new, to, &world.deployment, &mut world.messages)
    };
    world.new = Some(new);
    scaled
}

fn scale_old(world: &mut World<'_>) -> bool {
    if world.old.iter().map(size).sum::<i32>() == 0 {
        return false;
    }
    let wanted = limits::wanted(&world.deployment);
    let least = wanted - limits::max_unavailable(&world.deployment);
    let not_yet = world
        .new
        .as_ref()
        .map_or(0, |new| size(new) - available(new));
    let most = world.total() - least - not_yet;
    if most <= 0 {
        return false;
    }
    world.old.sort_by(older_first);
    // Pods that are not available serve nobody: they go first, and cost nothing.
    let mut unhealthy = 0;
    for set in &mut world.old {
        let idle = size(set) - available(set);
        if unhealthy >= most || size(set) == 0 || idle <= 0 {
            continue;
        }
        let down = idle.min(most - unhealthy);
        let to = size(set) - down;
        resize(set, to, &world.deployment, &mut world.messages);
        unhealthy += down;
    }
    let mut left = world.sets().map(available).sum::<i32>() - least;
    let mut healthy = 0;
    for set in &mut world.old {
        if left <= 0 || size(set) == 0 {
            continue;
        }
        let down = size(set).min(left);
        let to = size(set) - down;
        resize(set, to, &world.deployment, &mut world.messages);
        left -= down;
        healthy += down;
    }
    unhealthy + healthy > 0
}
