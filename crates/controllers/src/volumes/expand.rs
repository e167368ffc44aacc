//! Claims that grow: those of the built-in provisioner are grown here, the others by whoever made
//! their volumes, which is told by an event.
//!
//! The volume's capacity is raised first; its node raises the limit of the directory and says so
//! ([`local_volume::MADE`]); then the claim has what it asked for. Each step may be the last
//! before a crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_api::local_volume;
use evenkeel_client::Api;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, run_loop};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;

use super::facts::{
    annotation, capacity, claim_phase, claim_spec, held_for, name, requested, storage, volume_name,
    volume_spec,
};
use super::local_path;
use crate::error::ReconcileError;

const RESIZING: &str = "Resizing";
const PENDING: &str = "FileSystemResizePending";
const IN_PROGRESS: &str = "ControllerResizeInProgress";

/// What is to be done about a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Somebody else grows it; an event says so, a warning where nobody can.
    Elsewhere(EventType),
    /// Say that it grows.
    Begin(Box<PersistentVolumeClaim>),
    /// Its volume gets more.
    Grow(Box<PersistentVolume>),
    /// Wait for its node.
    Await,
    /// It has what it asked for.
    Finish(Box<PersistentVolumeClaim>),
}

/// Decides about a claim and its volume.
#[must_use]
pub fn plan(claim: &PersistentVolumeClaim, volume: &PersistentVolume, now: Timestamp) -> Step {
    let wanted = requested(claim);
    let status = claim.status.as_ref();
    let has = storage(status.and_then(|it| it.capacity.as_ref())).unwrap_or_default();
    let held = held_for(volume).is_some_and(|(held, _)| held.uid == claim.metadata.uid);
    if claim_phase(claim) != "Bound" || !held || wanted <= has {
        return Step::Stay;
    }
    if !local_path::is_ours(volume) {
        // Drivers watch claims by themselves; for other sources there is nobody.
        let somebody = volume_spec(volume).csi.is_some();
        let kind = if somebody {
            EventType::Normal
        } else {
            EventType::Warning
        };
        return Step::Elsewhere(kind);
    }
    let conditions = status.and_then(|it| it.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    if !conditions.any(|it| it.type_ == RESIZING && it.status == "True") {
        return Step::Begin(Box::new(begun(claim, now)));
    }
    if capacity(volume) < wanted {
        let mut larger = volume.clone();
        let requests = claim_spec(claim).resources.as_ref();
        let requests = requests.and_then(|all| all.requests.as_ref());
        if let Some(size) = requests.and_then(|all| all.get("storage")) {
            let spec = larger.spec.get_or_insert_default();
            let capacity = spec.capacity.get_or_insert_with(BTreeMap::new);
            capacity.insert("storage".to_owned(), size.clone());
        }
        return Step::Grow(Box::new(larger));
    }
    let made = annotation(&volume.metadata, local_volume::MADE);
    let made = made.and_then(|text| text.parse::<evenkeel_api::quantity::Quantity>().ok());
    if made.is_none_or(|made| made < wanted) {
        return Step::Await;
    }
    Step::Finish(Box::new(finished(claim, volume)))
}

fn begun(claim: &PersistentVolumeClaim, now: Timestamp) -> PersistentVolumeClaim {
    let mut wanted = claim.clone();
    let requests = claim_spec(claim).resources.as_ref();
    let size = requests.and_then(|all| all.requests.as_ref()?.get("storage").cloned());
    let status = wanted.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|it| it.type_ != RESIZING);
    conditions.push(PersistentVolumeClaimCondition {
        type_: RESIZING.to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(now)),
        ..PersistentVolumeClaimCondition::default()
    });
    if let Some(size) = size {
        let allocated = status.allocated_resources.get_or_insert_with(BTreeMap::new);
        allocated.insert("storage".to_owned(), size);
        let statuses = status
            .allocated_resource_statuses
            .get_or_insert_with(BTreeMap::new);
        statuses.insert("storage".to_owned(), IN_PROGRESS.to_owned());
    }
    wanted
}

fn finished(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> PersistentVolumeClaim {
    let mut wanted = claim.clone();
    let status = wanted.status.get_or_insert_default();
    status.capacity.clone_from(&volume_spec(volume).capacity);
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|it| it.type_ != RESIZING && it.type_ != PENDING);
    }
    if let Some(statuses) = &mut status.allocated_resource_statuses {
        statuses.remove("storage");
    }
    wanted
}

struct Reconciler {
    claims: Arc<View<PersistentVolumeClaim>>,
    volumes: Arc<View<PersistentVolume>>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(claim) = self.claims.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let volume = volume_name(&claim).and_then(|name| self.volumes.get("", name));
        let Some(volume) = volume else {
            return Ok(Outcome::Done);
        };
        let recorder = &self.context.recorder;
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.context.client.clone(), &key.namespace);
        let params = PostParams::default();
        match plan(&claim, &volume, self.context.clock.now()) {
            // The volume's change, which its node writes, brings the claim back.
            Step::Stay | Step::Await => {}
            Step::Elsewhere(kind) => {
                let text = "waiting for an external controller to expand this PVC";
                recorder.tell(claim.as_ref(), kind, "ExternalExpanding", text);
            }
            Step::Begin(wanted) => {
                let written = api.replace_status(&key.name, &params, &wanted).await?;
                self.claims.note_written(written);
                let text = format!(
                    "External resizer is resizing volume {}",
                    name(&volume.metadata)
                );
                recorder.tell(claim.as_ref(), EventType::Normal, "Resizing", text);
            }
            Step::Grow(wanted) => {
                let volumes: Api<PersistentVolume> = Api::all(self.context.client.clone());
                let pv = name(&volume.metadata);
                let written = volumes.replace(pv, &params, &wanted).await?;
                self.volumes.note_written(written);
            }
            Step::Finish(wanted) => {
                let written = api.replace_status(&key.name, &params, &wanted).await?;
                self.claims.note_written(written);
                let text = "Resize volume succeeded";
                recorder.tell(
                    claim.as_ref(),
                    EventType::Normal,
                    "VolumeResizeSuccessful",
                    text,
                );
            }
        }
        Ok(Outcome::Done)
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let claims = context.views.of::<PersistentVolumeClaim>();
    let volumes = context.views.of::<PersistentVolume>();
    claims.synced().await;
    volumes.synced().await;
    let queue = WorkQueue::new(context.metrics.of("volume-expand"));
    {
        let queue = Arc::clone(&queue);
        claims.on_change(move |change| {
            if change
                .new
                .as_ref()
                .is_some_and(|claim| claim_phase(claim) == "Bound")
            {
                queue.add(change.key.clone());
            }
        });
    }
    {
        let queue = Arc::clone(&queue);
        volumes.on_change(move |change| {
            let ours = change
                .new
                .as_ref()
                .filter(|volume| local_path::is_ours(volume));
            if let Some((_, key)) = ours.and_then(|volume| held_for(volume)) {
                queue.add(key);
            }
        });
    }
    let reconciler = Reconciler {
        claims,
        volumes,
        context: context.clone(),
    };
    run_loop("volume-expand", 8, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}
