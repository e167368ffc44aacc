//! What a Deployment needs: pure.
//!
//! The steps are the reference's (`syncDeployment`), taken on copies: sets are changed in place
//! and compared with what was there at the end, so that each set and the status are written at
//! most once.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{limits, revision, rollout, scale, status};
use crate::{claim, pods};

/// What to do, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    /// The new template's set, to be created.
    pub create: Option<ReplicaSet>,
    /// Sets to replace.
    pub update: Vec<ReplicaSet>,
    /// Sets beyond the history limit.
    pub delete: Vec<ReplicaSet>,
    /// The revision to write on the Deployment.
    pub revision: Option<String>,
    /// Its new status, if it differs.
    pub status: Option<DeploymentStatus>,
    /// `ScalingReplicaSet` messages, told once the writes went through.
    pub messages: Vec<String>,
    /// When to look again though nothing changed: the progress deadline.
    pub look_again: Option<Timestamp>,
}

/// The state a plan is made on.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) deployment: Deployment,
    /// The set of the current template.
    pub(super) new: Option<ReplicaSet>,
    /// All others.
    pub(super) old: Vec<ReplicaSet>,
    /// Pods of all sets, for Recreate.
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) now: Timestamp,
    pub(super) made: bool,
    pub(super) delete: Vec<ReplicaSet>,
    pub(super) messages: Vec<String>,
    pub(super) revision: Option<String>,
    pub(super) look_again: Option<Timestamp>,
}

/// Decides. `sets` are the Deployment's own, `pods` those of its sets.
#[must_use]
pub fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Plan {
    let mut sets: Vec<ReplicaSet> = sets.iter().map(|set| set.as_ref().clone()).collect();
    sets.sort_by(older_first);
    let found = sets.iter().position(|set| {
        let template = set.spec.template.as_ref();
        template.is_some_and(|it| revision::is_same_template(it, &deployment.spec.template))
    });
    let before = sets.clone();
    let new = found.map(|at| sets.remove(at));
    let mut world = World {
        deployment: deployment.clone(),
        new,
        old: sets,
        pods,
        now,
        made: false,
        delete: Vec::new(),
        messages: Vec::new(),
        revision: None,
        look_again: None,
    };
    let status = world.steps();
    let mut plan = Plan {
        delete: world.delete,
        revision: world.revision,
        messages: world.messages,
        look_again: world.look_again,
        status: status.filter(|status| !status::is_same(deployment.status.as_ref(), status)),
        ..Plan::default()
    };
    let mut left = world.old;
    match world.new {
        Some(set) if world.made => plan.create = Some(set),
        Some(set) => left.insert(0, set),
        None => {}
    }
    plan.update = left
        .into_iter()
        .filter(|set| !before.contains(set))
        .collect();
    plan
}

/// By creation, then by name.
pub(super) fn older_first(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let key = |set: &ReplicaSet| {
        let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, set.metadata.name.clone())
    };
    key(a).cmp(&key(b))
}

impl World<'_> {
    fn steps(&mut self) -> Option<DeploymentStatus> {
        let paused = self.deployment.spec.paused == Some(true);
        if self.deployment.metadata.deletion_timestamp.is_some() {
            self.sync_revision(false);
            return Some(status::calculate(self));
        }
        status::note_paused(&mut self.deployment, self.now);
        if paused || scale::is_scaling(self) {
            self.sync_revision(false);
            scale::scale(self);
            if paused {
                self.clean_up();
            }
            return Some(status::calculate(self));
        }
        if limits::is_recreate(&self.deployment) {
            rollout::recreate(self);
        } else {
            rollout::rolling(self);
        }
        Some(status::progress(self))
    }

    /// All sets, the old ones first.
    pub(super) fn sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(self.new.iter())
    }

    /// Replicas asked of all sets.
    pub(super) fn total(&self) -> i32 {
        self.sets().map(limits::size).sum()
    }

    /// Gives the new set its revision, and makes it if it is missing and `make` says so.
    pub(super) fn sync_revision(&mut self, make: bool) {
        let newest_old = self
            .old
            .iter()
            .map(revision::revision_of)
            .max()
            .unwrap_or(0);
        let number = newest_old + 1;
        if let Some(mut set) = self.new.take() {
            revision::annotate_new(&mut set, &self.deployment, number, false);
            let wanted = self.deployment.spec.min_ready_seconds.unwrap_or(0);
            if set.spec.min_ready_seconds.unwrap_or(0) != wanted {
                set.spec.min_ready_seconds = Some(wanted);
            }
            let name = set.metadata.name.clone().unwrap_or_default();
            status::note_found(&mut self.deployment, &name, self.now);
            self.set_revision(revision::annotation(&set, revision::REVISION).map(str::to_owned));
            self.new = Some(set);
            return;
        }
        if !make {
            return;
        }
        let mut set = self.new_set();
        let replicas = rollout::new_replicas(self, &set);
        set.spec.replicas = Some(replicas);
        revision::annotate_new(&mut set, &self.deployment, number, true);
        let name = set.metadata.name.clone().unwrap_or_default();
        if replicas > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            self.messages.push(message);
        }
        status::note_created(&mut self.deployment, &name, self.now);
        self.set_revision(Some(number.to_string()));
        self.new = Some(set);
        self.made = true;
    }

    fn set_revision(&mut self, revision: Option<String>) {
        let annotations = self.deployment.metadata.annotations.as_ref();
        let found = annotations.and_then(|all| all.get(revision::REVISION));
        if revision.is_some() && found != revision.as_ref() {
            self.revision = revision;
        }
    }

    fn new_set(&self) -> ReplicaSet {
        let spec = &self.deployment.spec;
        let collisions = self
            .deployment
            .status
            .as_ref()
            .and_then(|it| it.collision_count);
        let hash = revision::template_hash(&spec.template, collisions);
        let mut template = spec.template.clone();
        let meta = template.metadata.get_or_insert_with(ObjectMeta::default);
        let labels = meta.labels.get_or_insert_with(Default::default);
        labels.insert(revision::HASH.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector.clone();
        let wanted = selector.match_labels.get_or_insert_with(Default::default);
        wanted.insert(revision::HASH.to_owned(), hash.clone());
        let name = self.deployment.metadata.name.as_deref().unwrap_or_default();
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                namespace: self.deployment.metadata.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![claim::reference_to(&self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        }
    }

    /// Sets beyond the revision history limit that hold no pods go, oldest revision first.
    pub(super) fn clean_up(&mut self) {
        let limit = self.deployment.spec.revision_history_limit;
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else {
            return;
        };
        let mut dead: Vec<&ReplicaSet> = self.old.iter().collect();
        dead.retain(|set| set.metadata.deletion_timestamp.is_none());
        let excess = dead
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        dead.sort_by(|a, b| {
            let revision = revision::revision_of(a).cmp(&revision::revision_of(b));
            revision.then_with(|| older_first(a, b))
        });
        let idle = |set: &&&ReplicaSet| {
            let status = set.status.clone().unwrap_or_default();
            status.replicas == 0
                && limits::size(set) == 0
                && set.metadata.generation <= status.observed_generation
        };
        let gone = dead.iter().take(excess).filter(idle);
        let gone: Vec<ReplicaSet> = gone.map(|set| (*set).clone()).collect();
        self.old.retain(|set| !gone.contains(set));
        self.delete.extend(gone);
    }

    /// Some pod of an old set has not ended yet.
    pub(super) fn old_pods_running(&self) -> bool {
        let new = self
            .new
            .as_ref()
            .and_then(|set| set.metadata.uid.as_deref());
        let reported = |set: &ReplicaSet| set.status.as_ref().is_some_and(|it| it.replicas > 0);
        self.old.iter().any(reported)
            || self.pods.iter().any(|pod| {
                let owner = claim::controller_of(&pod.metadata);
                owner.map(|owner| owner.uid.as_str()) != new && !pods::is_terminal(pod)
            })
    }
}

/// Asks a set for another number of replicas and notes what it then is for. `message` is told if
/// the number changed.
pub(super) fn resize(
    set: &mut ReplicaSet,
    to: i32,
    deployment: &Deployment,
    messages: &mut Vec<String>,
) -> bool {
    let from = limits::size(set);
    revision::annotate_replicas(set, deployment);
    if from == to {
        return false;
    }
    set.spec.replicas = Some(to);
    let direction = if to > from { "up" } else { "down" };
    let name = set.metadata.name.as_deref().unwrap_or_default();
    messages.push(format!(
        "Scaled {direction} replica set {name} from {from} to {to}"
    ));
    true
}
