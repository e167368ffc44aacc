//! Deployment: one template's ReplicaSet grows while the others shrink, within the limits asked
//! for.

mod apply;
pub mod limits;
pub mod plan;
pub mod revision;
mod rollout;
mod scale;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::view::index;
use evenkeel_client::{Change, LoopContext, ObjectKey, View, WorkQueue, run_loop};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

use crate::claim;

/// Deployments reconciled at once.
const WORKERS: usize = 16;

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let deployments = context.views.of::<Deployment>();
    let sets = context.views.of::<ReplicaSet>();
    let pods = context.views.of::<Pod>();
    sets.add_index(index::CONTROLLER, index::controller);
    sets.add_index(claim::ORPHAN, claim::orphan);
    pods.add_index(index::CONTROLLER, index::controller);
    deployments.synced().await;
    sets.synced().await;
    pods.synced().await;
    let queue = WorkQueue::new(context.metrics.of("deployment"));
    {
        let queue = Arc::clone(&queue);
        deployments.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        let queue = Arc::clone(&queue);
        let deployments = Arc::clone(&deployments);
        sets.on_change(move |change| set_changed(change, &deployments, &queue));
    }
    {
        let queue = Arc::clone(&queue);
        let (deployments, sets) = (Arc::clone(&deployments), Arc::clone(&sets));
        pods.on_change(move |change| pod_changed(change, &deployments, &sets, &queue));
    }
    let reconciler = apply::Reconciler {
        deployments,
        sets,
        pods,
        context: context.clone(),
    };
    run_loop("deployment", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

fn set_changed(
    change: &Change<ReplicaSet>,
    deployments: &View<Deployment>,
    queue: &WorkQueue<ObjectKey>,
) {
    for side in change.sides() {
        if let Some(key) = claim::controller_key(&side.metadata, "apps", "Deployment") {
            queue.add(key);
        }
    }
    let latest = change.latest();
    if change.new.is_none() || claim::controller_of(&latest.metadata).is_some() {
        return;
    }
    for deployment in deployments.in_namespace(&change.key.namespace) {
        let selector = LabelSelector::from_spec(Some(&deployment.spec.selector));
        if selector.is_ok_and(|selector| selector.matches(claim::labels(&latest.metadata))) {
            queue.add(ObjectKey::of(deployment.as_ref()));
        }
    }
}

/// A Recreate deployment waits for its last old pod to end: only that matters here, all else
/// comes through the status of the sets.
fn pod_changed(
    change: &Change<Pod>,
    deployments: &View<Deployment>,
    sets: &View<ReplicaSet>,
    queue: &WorkQueue<ObjectKey>,
) {
    let ended = change
        .new
        .as_ref()
        .is_none_or(|pod| crate::pods::is_terminal(pod));
    let Some(old) = change.old.as_ref().filter(|_| ended) else {
        return;
    };
    let set = claim::controller_key(&old.metadata, "apps", "ReplicaSet")
        .and_then(|key| sets.get_key(&key));
    let Some(key) = set.and_then(|set| claim::controller_key(&set.metadata, "apps", "Deployment"))
    else {
        return;
    };
    if deployments
        .get_key(&key)
        .is_some_and(|found| limits::is_recreate(&found))
    {
        queue.add(key);
    }
}
