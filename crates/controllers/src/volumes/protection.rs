//! Claims and volumes stay while they are in use: their protection finalizers go last. Claims also
//! say since when no pod has referred to them.
//!
//! A claim is in use by a pod that has a node, whatever its phase, as an agent may still have it
//! mounted; a volume by the claim it is bound to.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{Change, LoopContext, ObjectKey, Outcome, View, WorkQueue, run_loop};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{ListParams, PostParams};

use super::facts::{BY_CLAIM, by_claim, claim_phase, is_made_for, name, pod_claims, volume_phase};
use crate::error::ReconcileError;
use crate::pods;

/// Keeps claims that pods use.
pub const CLAIM: &str = "kubernetes.io/pvc-protection";
/// Keeps volumes that claims are bound to.
pub const VOLUME: &str = "kubernetes.io/pv-protection";
/// The condition of a claim that no pod refers to.
pub const UNUSED: &str = "Unused";

fn protected(meta: &ObjectMeta, finalizer: &str) -> bool {
    let mut finalizers = meta.finalizers.iter().flatten();
    finalizers.any(|found| found == finalizer)
}

/// What a finalizer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Nothing.
    Stay,
    /// It has to be added.
    Add,
    /// It may go when nobody uses the object.
    Judge,
}

/// Looks at an object's metadata alone.
#[must_use]
pub fn needs(meta: &ObjectMeta, finalizer: &str) -> Protection {
    match (
        meta.deletion_timestamp.is_some(),
        protected(meta, finalizer),
    ) {
        (true, true) => Protection::Judge,
        (false, false) => Protection::Add,
        _ => Protection::Stay,
    }
}

/// Forced out or given up by its agent: it has nothing mounted any more.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
        && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// May an agent have the claim mounted for this pod?
#[must_use]
pub fn mounts(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    pods::node_name(pod).is_some()
        && pod_claims(pod).any(|(used, ephemeral)| {
            used == name(&claim.metadata)
                && (!ephemeral || (!is_shut_down(pod) && is_made_for(claim, pod)))
        })
}

/// Does the pod refer to the claim and may still run?
#[must_use]
pub fn refers(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    !pods::is_terminal(pod)
        && pod_claims(pod).any(|(used, ephemeral)| {
            used == name(&claim.metadata) && (!ephemeral || is_made_for(claim, pod))
        })
}

/// The claim with the condition that says whether any pod refers to it.
#[must_use]
pub fn with_unused(
    claim: &PersistentVolumeClaim,
    used: bool,
    now: Timestamp,
) -> Option<PersistentVolumeClaim> {
    let (status, reason, message) = if used {
        (
            "False",
            "PodUsingPVC",
            "A pod is currently referencing this PVC",
        )
    } else {
        (
            "True",
            "NoPodsUsingPVC",
            "No pods are currently referencing this PVC",
        )
    };
    let conditions = claim.status.as_ref().and_then(|it| it.conditions.as_ref());
    let mut found = conditions.into_iter().flatten();
    if found.any(|it| it.type_ == UNUSED && it.status == status) {
        return None;
    }
    let mut wanted = claim.clone();
    let status_of = wanted.status.get_or_insert_default();
    let conditions = status_of.conditions.get_or_insert_default();
    conditions.retain(|it| it.type_ != UNUSED);
    conditions.push(PersistentVolumeClaimCondition {
        type_: UNUSED.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PersistentVolumeClaimCondition::default()
    });
    Some(wanted)
}

/// Without (or with) a finalizer.
pub(super) fn rewritten(meta: &ObjectMeta, finalizer: &str, add: bool) -> Vec<String> {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.retain(|found| found != finalizer);
    if add {
        finalizers.push(finalizer.to_owned());
    }
    finalizers
}

struct Claims {
    claims: Arc<View<PersistentVolumeClaim>>,
    pods: Arc<View<Pod>>,
    context: LoopContext,
}

impl Claims {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(claim) = self.claims.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.context.client.clone(), &key.namespace);
        let params = PostParams::default();
        if claim.metadata.deletion_timestamp.is_none() && claim_phase(&claim) == "Bound" {
            let users = self.pods.by_index(BY_CLAIM, &key.to_string());
            let used = users.iter().any(|pod| refers(pod, &claim));
            if let Some(wanted) = with_unused(&claim, used, self.context.clock.now()) {
                let written = api.replace_status(&key.name, &params, &wanted).await?;
                self.claims.note_written(written);
                return Ok(Outcome::Done);
            }
        }
        let add = match needs(&claim.metadata, CLAIM) {
            Protection::Stay => return Ok(Outcome::Done),
            Protection::Add => true,
            Protection::Judge if self.is_mounted(&claim, &key).await? => return Ok(Outcome::Done),
            Protection::Judge => false,
        };
        let mut wanted = (*claim).clone();
        wanted.metadata.finalizers = Some(rewritten(&claim.metadata, CLAIM, add));
        let gone = wanted
            .metadata
            .finalizers
            .as_ref()
            .is_some_and(Vec::is_empty);
        match api.replace(&key.name, &params, &wanted).await {
            Ok(_) if gone && claim.metadata.deletion_timestamp.is_some() => {
                self.claims.note_deleted(&claim);
            }
            Ok(written) => {
                self.claims.note_written(written);
            }
            Err(error) if evenkeel_client::errors::is_not_found(&error) => {
                self.claims.note_deleted(&claim);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Outcome::Done)
    }

    /// Asked of the view first and, before the claim is let go, of the door: a pod that the view
    /// does not know yet would lose its data.
    async fn is_mounted(
        &self,
        claim: &PersistentVolumeClaim,
        key: &ObjectKey,
    ) -> Result<bool, ReconcileError> {
        let users = self.pods.by_index(BY_CLAIM, &key.to_string());
        if users.iter().any(|pod| mounts(pod, claim)) {
            return Ok(true);
        }
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let now = api.list(&ListParams::default()).await?;
        Ok(now.items.iter().any(|pod| mounts(pod, claim)))
    }
}

/// Protects claims. Runs until the context's shutdown.
pub async fn run_claims(context: LoopContext) {
    let claims = context.views.of::<PersistentVolumeClaim>();
    let pods = context.views.of::<Pod>();
    pods.add_index(BY_CLAIM, by_claim);
    claims.synced().await;
    pods.synced().await;
    let queue = WorkQueue::new(context.metrics.of("pvc-protection"));
    {
        let queue = Arc::clone(&queue);
        claims.on_change(move |change| {
            if change.new.is_some() {
                queue.add(change.key.clone());
            }
        });
    }
    {
        let queue = Arc::clone(&queue);
        pods.on_change(move |change| pod_changed(change, &queue));
    }
    let reconciler = Claims {
        claims,
        pods,
        context: context.clone(),
    };
    run_loop("pvc-protection", 16, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

fn pod_changed(change: &Change<Pod>, queue: &WorkQueue<ObjectKey>) {
    // Whether it has a node, has ended or is being forced out are what counts.
    let what = |pod: &Pod| {
        (
            pods::node_name(pod).is_some(),
            pods::is_terminal(pod),
            is_shut_down(pod),
        )
    };
    let same = match (&change.old, &change.new) {
        (Some(old), Some(new)) => what(old) == what(new) && old.metadata.uid == new.metadata.uid,
        _ => false,
    };
    if same {
        return;
    }
    for side in change.sides() {
        for (claim, _) in pod_claims(side) {
            queue.add(ObjectKey::new(change.key.namespace.clone(), claim));
        }
    }
}

/// Protects volumes. Runs until the context's shutdown.
pub async fn run_volumes(context: LoopContext) {
    let volumes = context.views.of::<PersistentVolume>();
    volumes.synced().await;
    let queue = WorkQueue::new(context.metrics.of("pv-protection"));
    {
        let queue = Arc::clone(&queue);
        volumes.on_change(move |change| {
            let new = change.new.as_ref();
            if new.is_some_and(|it| needs(&it.metadata, VOLUME) != Protection::Stay) {
                queue.add(change.key.clone());
            }
        });
    }
    let client = context.client.clone();
    run_loop(
        "pv-protection",
        8,
        queue,
        context.shutdown,
        |key: ObjectKey| {
            let (client, volumes) = (client.clone(), Arc::clone(&volumes));
            async move {
                let Some(volume) = volumes.get_key(&key) else {
                    return Ok(Outcome::Done);
                };
                let add = match needs(&volume.metadata, VOLUME) {
                    Protection::Add => true,
                    Protection::Judge if volume_phase(&volume) != "Bound" => false,
                    _ => return Ok(Outcome::Done),
                };
                let mut wanted = (*volume).clone();
                wanted.metadata.finalizers = Some(rewritten(&volume.metadata, VOLUME, add));
                let gone = wanted
                    .metadata
                    .finalizers
                    .as_ref()
                    .is_some_and(Vec::is_empty);
                let api: Api<PersistentVolume> = Api::all(client);
                match api
                    .replace(&key.name, &PostParams::default(), &wanted)
                    .await
                {
                    Ok(_) if gone && volume.metadata.deletion_timestamp.is_some() => {
                        volumes.note_deleted(&volume);
                    }
                    Ok(written) => {
                        volumes.note_written(written);
                    }
                    Err(error) if evenkeel_client::errors::is_not_found(&error) => {
                        volumes.note_deleted(&volume);
                    }
                    Err(error) => return Err(ReconcileError::from(error)),
                }
                Ok(Outcome::Done)
            }
        },
    )
    .await;
}
