//! What a Deployment reports: counts and conditions, pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::limits;
use super::plan::World;

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const DONE: &str = "NewReplicaSetAvailable";
const LATE: &str = "ProgressDeadlineExceeded";

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    let all = status.conditions.iter().flatten();
    all.into_iter()
        .find(|item| item.type_.as_deref() == Some(kind))
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(all) = &mut status.conditions {
        all.retain(|item| item.type_.as_deref() != Some(kind));
    }
}

fn condition(
    kind: &str,
    state: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(state.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
    }
}

/// Sets a condition unless status and reason are as they were; the transition time stays while
/// the status stays.
fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    let kind = new.type_.clone().unwrap_or_default();
    if let Some(old) = find(status, &kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(status, &kind);
    status.conditions.get_or_insert_with(Vec::new).push(new);
}

fn own(deployment: &mut Deployment) -> &mut DeploymentStatus {
    deployment
        .status
        .get_or_insert_with(DeploymentStatus::default)
}

/// Pausing stops the clock of the progress deadline, resuming starts it again.
pub(super) fn note_paused(deployment: &mut Deployment, now: Timestamp) {
    if limits::progress_deadline(deployment).is_none() {
        return;
    }
    let paused = deployment.spec.paused == Some(true);
    let status = own(deployment);
    let reason = find(status, PROGRESSING).and_then(|item| item.reason.clone());
    if reason.as_deref() == Some(LATE) {
        return;
    }
    let was = reason.as_deref() == Some("DeploymentPaused");
    if paused && !was {
        let text = "Deployment is paused";
        set(
            status,
            condition(PROGRESSING, "Unknown", "DeploymentPaused", text, now),
        );
    } else if !paused && was {
        let text = "Deployment is resumed";
        set(
            status,
            condition(PROGRESSING, "Unknown", "DeploymentResumed", text, now),
        );
    }
}

pub(super) fn note_found(deployment: &mut Deployment, set_name: &str, now: Timestamp) {
    if limits::progress_deadline(deployment).is_none() {
        return;
    }
    let status = own(deployment);
    if find(status, PROGRESSING).is_none() {
        let text = format!("Found new replica set \"{set_name}\"");
        set(
            status,
            condition(PROGRESSING, "True", "FoundNewReplicaSet", &text, now),
        );
    }
}

pub(super) fn note_created(deployment: &mut Deployment, set_name: &str, now: Timestamp) {
    if limits::progress_deadline(deployment).is_none() {
        return;
    }
    let text = format!("Created new replica set \"{set_name}\"");
    set(
        own(deployment),
        condition(PROGRESSING, "True", "NewReplicaSetCreated", &text, now),
    );
}

/// The status after a set could not be created.
#[must_use]
pub fn create_failed(
    deployment: &Deployment,
    set_name: &str,
    why: &str,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = deployment.status.clone().unwrap_or_default();
    if limits::progress_deadline(deployment).is_some() {
        let text = format!("Failed to create new replica set \"{set_name}\": {why}");
        set(
            &mut status,
            condition(PROGRESSING, "False", "ReplicaSetCreateError", &text, now),
        );
    }
    status
}

/// Counts and availability.
pub(super) fn calculate(world: &World<'_>) -> DeploymentStatus {
    let deployment = &world.deployment;
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |read: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        world
            .sets()
            .filter_map(|set| set.status.as_ref())
            .map(read)
            .sum()
    };
    let total = sum(|status| status.replicas);
    let available = sum(|status| status.available_replicas.unwrap_or(0));
    let new = world.new.as_ref().and_then(|set| set.status.as_ref());
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(total),
        updated_replicas: Some(new.map_or(0, |status| status.replicas)),
        ready_replicas: Some(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((total - available).max(0)),
        terminating_replicas: Some(sum(|status| status.terminating_replicas.unwrap_or(0))),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let enough = limits::wanted(deployment) - limits::max_unavailable(deployment);
    let (state, reason, text) = if available >= enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        let text = "Deployment does not have minimum availability.";
        ("False", "MinimumReplicasUnavailable", text)
    };
    set(
        &mut status,
        condition(AVAILABLE, state, reason, text, world.now),
    );
    status
}

/// Every replica is of the new template and available, and no old one is left.
pub(super) fn is_complete(world: &World<'_>) -> bool {
    complete(&world.deployment, &calculate(world))
}

fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(limits::wanted(deployment));
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn is_moving(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let number = |value: Option<i32>| value.unwrap_or(0);
    let left =
        |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || left(new) < left(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}

fn deadline(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let current = find(status, PROGRESSING)?;
    let from = current.last_update_time.as_ref()?.0;
    let seconds = limits::progress_deadline(deployment)?;
    from.checked_add(SignedDuration::from_secs(seconds.into()))
        .ok()
}

/// Counts, and how the rollout goes. Notes when the deadline has to be looked at.
pub(super) fn progress(world: &mut World<'_>) -> DeploymentStatus {
    let mut status = calculate(world);
    let deployment = &world.deployment;
    let now = world.now;
    let old = deployment.status.clone().unwrap_or_default();
    let subject = match &world.new {
        Some(set) => format!("ReplicaSet \"{}\"", name(&set.metadata)),
        None => format!("Deployment \"{}\"", name(&deployment.metadata)),
    };
    if limits::progress_deadline(deployment).is_none() {
        remove(&mut status, PROGRESSING);
    }
    let current = find(&old, PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|item| item.reason.as_deref());
    let was_done = status.replicas == status.updated_replicas && reason == Some(DONE);
    if limits::progress_deadline(deployment).is_some() && !was_done {
        if complete(deployment, &status) {
            let text = format!("{subject} has successfully progressed.");
            set(
                &mut status,
                condition(PROGRESSING, "True", DONE, &text, now),
            );
        } else if is_moving(&old, &status) {
            let text = format!("{subject} is progressing.");
            let mut new = condition(PROGRESSING, "True", "ReplicaSetUpdated", &text, now);
            if let Some(current) = current
                .as_ref()
                .filter(|it| it.status.as_deref() == Some("True"))
            {
                new.last_transition_time = current.last_transition_time.clone();
            }
            // Renewed even if nothing but the time differs: each step restarts the deadline.
            remove(&mut status, PROGRESSING);
            set(&mut status, new);
        } else if reason != Some(DONE) && deadline(deployment, &status).is_some_and(|at| at < now) {
            let text = format!("{subject} has timed out progressing.");
            set(
                &mut status,
                condition(PROGRESSING, "False", LATE, &text, now),
            );
        }
    }
    match replica_failure(world) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    let reason = find(&status, PROGRESSING).and_then(|item| item.reason.as_deref());
    if !complete(&world.deployment, &status) && reason != Some(LATE) && reason != Some(DONE) {
        let second = SignedDuration::from_secs(1);
        let at = deadline(&world.deployment, &status);
        world.look_again = at.and_then(|at| at.checked_add(second).ok());
    }
    status
}

fn name(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The failure of the new set, or else of any.
fn replica_failure(world: &World<'_>) -> Option<DeploymentCondition> {
    let failure = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.iter().flatten();
        let found = conditions
            .into_iter()
            .find(|item| item.type_.as_deref() == Some(REPLICA_FAILURE))?;
        Some(DeploymentCondition {
            type_: found.type_.clone(),
            status: found.status.clone(),
            last_transition_time: found.last_transition_time.clone(),
            last_update_time: found.last_transition_time.clone(),
            reason: found.reason.clone(),
            message: found.message.clone(),
        })
    };
    let new = world.new.as_ref().and_then(failure);
    new.or_else(|| world.old.iter().find_map(failure))
}

/// The same for a reader: absent counts are zero, absent conditions none.
#[must_use]
pub fn is_same(old: Option<&DeploymentStatus>, new: &DeploymentStatus) -> bool {
    let bare = |status: &DeploymentStatus| {
        let zero = |value: Option<i32>| Some(value.unwrap_or(0));
        DeploymentStatus {
            replicas: zero(status.replicas),
            updated_replicas: zero(status.updated_replicas),
            ready_replicas: zero(status.ready_replicas),
            available_replicas: zero(status.available_replicas),
            unavailable_replicas: zero(status.unavailable_replicas),
            terminating_replicas: zero(status.terminating_replicas),
            collision_count: status.collision_count,
            observed_generation: status.observed_generation,
            conditions: Some(status.conditions.clone().unwrap_or_default()),
        }
    };
    old.is_some_and(|old| bare(old) == bare(new))
}
