//! DaemonSet: one pod of a template on every node that fits.

mod apply;
pub mod backoff;
pub mod fit;
pub mod plan;
pub mod rollout;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use evenkeel_client::view::index;
use evenkeel_client::{LoopContext, ObjectKey, WorkQueue, run_loop};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::claim;

/// Sets reconciled at once.
const WORKERS: usize = 8;

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let sets = context.views.of::<DaemonSet>();
    let nodes = context.views.of::<Node>();
    let pods = context.views.of::<Pod>();
    let revisions = context.views.of::<ControllerRevision>();
    pods.add_index(index::CONTROLLER, index::controller);
    pods.add_index(claim::ORPHAN, claim::orphan);
    revisions.add_index(index::CONTROLLER, index::controller);
    revisions.add_index(claim::ORPHAN, claim::orphan);
    sets.synced().await;
    nodes.synced().await;
    pods.synced().await;
    revisions.synced().await;
    let queue = WorkQueue::new(context.metrics.of("daemonset"));
    {
        let queue = Arc::clone(&queue);
        sets.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        let (queue, sets) = (Arc::clone(&queue), Arc::clone(&sets));
        pods.on_change(move |change| {
            for side in change.sides() {
                claim::wake(&side.metadata, &sets, |set| &set.spec.selector, &queue);
            }
        });
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
        let (queue, sets) = (Arc::clone(&queue), Arc::clone(&sets));
        nodes.on_change(move |change| {
            if concerns(change.old.as_deref(), change.new.as_deref()) {
                for set in sets.list() {
                    queue.add(ObjectKey::of(set.as_ref()));
                }
            }
        });
    }
    let reconciler = apply::Reconciler::new(sets, nodes, pods, revisions, context.clone());
    run_loop("daemonset", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

/// Heartbeats and images are no concern of ours: labels and taints are.
fn concerns(old: Option<&Node>, new: Option<&Node>) -> bool {
    let (Some(old), Some(new)) = (old, new) else {
        return true;
    };
    let taints = |node: &Node| {
        let spec = node.spec.as_ref();
        spec.and_then(|spec| spec.taints.clone())
            .unwrap_or_default()
    };
    old.metadata.uid != new.metadata.uid
        || claim::labels(&old.metadata) != claim::labels(&new.metadata)
        || taints(old) != taints(new)
}
