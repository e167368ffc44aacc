//! StatefulSet: pods with names, ordinals and claims of their own, brought up and down in order.

mod apply;
mod claims;
pub mod identity;
pub mod plan;
pub mod retention;
pub mod rollout;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use evenkeel_client::view::index;
use evenkeel_client::{Change, LoopContext, ObjectKey, View, WorkQueue, run_loop};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::claim;

/// Sets reconciled at once.
const WORKERS: usize = 16;

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let sets = context.views.of::<StatefulSet>();
    let pods = context.views.of::<Pod>();
    let revisions = context.views.of::<ControllerRevision>();
    let claims = context.views.of::<PersistentVolumeClaim>();
    pods.add_index(index::CONTROLLER, index::controller);
    pods.add_index(claim::ORPHAN, claim::orphan);
    revisions.add_index(index::CONTROLLER, index::controller);
    revisions.add_index(claim::ORPHAN, claim::orphan);
    sets.synced().await;
    pods.synced().await;
    revisions.synced().await;
    claims.synced().await;
    let queue = WorkQueue::new(context.metrics.of("statefulset"));
    {
        let queue = Arc::clone(&queue);
        sets.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        let (queue, sets) = (Arc::clone(&queue), Arc::clone(&sets));
        pods.on_change(move |change| pod_changed(change, &sets, &queue));
    }
    {
        let (queue, sets) = (Arc::clone(&queue), Arc::clone(&sets));
        revisions.on_change(move |change| {
            for side in change.sides() {
                claim::wake(&side.metadata, &sets, |set| &set.spec.selector, &queue);
            }
        });
    }
    {
        // A claim that goes may be what a pod waits for; one that comes never is.
        let (queue, sets) = (Arc::clone(&queue), Arc::clone(&sets));
        claims.on_change(move |change| {
            if change.new.is_none() {
                claim_gone(&change.key, &sets, &queue);
            }
        });
    }
    let reconciler = apply::Reconciler {
        sets,
        pods,
        revisions,
        claims,
        context: context.clone(),
    };
    run_loop("statefulset", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

fn pod_changed(change: &Change<Pod>, sets: &View<StatefulSet>, queue: &WorkQueue<ObjectKey>) {
    for side in change.sides() {
        if let Some(key) = claim::controller_key(&side.metadata, "apps", "StatefulSet") {
            queue.add(key);
        }
    }
    if change.new.is_some() {
        claim::wake(
            &change.latest().metadata,
            sets,
            |set| &set.spec.selector,
            queue,
        );
    }
}

fn claim_gone(key: &ObjectKey, sets: &View<StatefulSet>, queue: &WorkQueue<ObjectKey>) {
    for set in sets.in_namespace(&key.namespace) {
        let templates = set.spec.volume_claim_templates.iter().flatten();
        let marker = format!("-{}-", identity::name(&set.metadata));
        let ours = templates.into_iter().any(|template| {
            let rest = key.name.strip_prefix(identity::name(&template.metadata));
            rest.is_some_and(|rest| rest.starts_with(&marker))
        });
        if ours {
            queue.add(ObjectKey::of(set.as_ref()));
        }
    }
}
