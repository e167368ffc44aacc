//! ReplicaSet: as many pods of a template as asked for.

mod apply;
pub mod plan;
pub mod rank;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::view::index;
use evenkeel_client::{Change, LoopContext, ObjectKey, View, WorkQueue, run_loop};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;

use crate::claim;

/// ReplicaSets reconciled at once. Their pods are created concurrently within each.
const WORKERS: usize = 16;

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let sets = context.views.of::<ReplicaSet>();
    let pods = context.views.of::<Pod>();
    sets.add_index(index::CONTROLLER, index::controller);
    pods.add_index(index::CONTROLLER, index::controller);
    pods.add_index(claim::ORPHAN, claim::orphan);
    sets.synced().await;
    pods.synced().await;
    let queue = WorkQueue::new(context.metrics.of("replicaset"));
    {
        let queue = Arc::clone(&queue);
        sets.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        let queue = Arc::clone(&queue);
        let sets = Arc::clone(&sets);
        pods.on_change(move |change| pod_changed(change, &sets, &queue));
    }
    let reconciler = apply::Reconciler {
        sets,
        pods,
        context: context.clone(),
    };
    run_loop("replicaset", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

fn pod_changed(change: &Change<Pod>, sets: &View<ReplicaSet>, queue: &WorkQueue<ObjectKey>) {
    for side in change.sides() {
        if let Some(key) = claim::controller_key(&side.metadata, "apps", "ReplicaSet") {
            queue.add(key);
        }
    }
    // A pod nobody owns may be adopted by any set that selects it, and waking the sets that
    // selected it before lets them notice that it went.
    let orphan = change.latest();
    if claim::controller_of(&orphan.metadata).is_some()
        || orphan.metadata.deletion_timestamp.is_some()
    {
        return;
    }
    for set in sets.in_namespace(&change.key.namespace) {
        let Ok(selector) = LabelSelector::from_spec(Some(&set.spec.selector)) else {
            continue;
        };
        if !selector.is_everything() && selector.matches(claim::labels(&orphan.metadata)) {
            queue.add(ObjectKey::of(set.as_ref()));
        }
    }
}
