//! ReplicaSet, and ReplicationController before it: as many pods of a template as asked for.

mod apply;
pub mod plan;
pub mod rank;
mod replication;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::Kind;
use evenkeel_client::view::index;
use evenkeel_client::{Change, LoopContext, ObjectKey, View, WorkQueue, run_loop};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::core::NamespaceResourceScope;

use crate::claim;

/// Sets reconciled at once. Their pods are created concurrently within each.
const WORKERS: usize = 16;

/// A kind that keeps a number of pods of one template. Plans see all of them as a ReplicaSet.
pub trait Replicated:
    Kind + kube::Resource<Scope = NamespaceResourceScope> + serde::Serialize
{
    /// Name of its loop.
    const LOOP: &'static str;

    /// Seen as a ReplicaSet.
    fn as_set(&self) -> Cow<'_, ReplicaSet>;

    /// With another status.
    #[must_use]
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicated for ReplicaSet {
    const LOOP: &'static str = "replicaset";

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self {
            status: Some(status),
            ..self.clone()
        }
    }
}

/// Keeps ReplicaSets, until the context's shutdown.
pub async fn run(context: LoopContext) {
    run_of::<ReplicaSet>(context).await;
}

/// Keeps ReplicationControllers, until the context's shutdown.
pub async fn run_replication(context: LoopContext) {
    run_of::<ReplicationController>(context).await;
}

async fn run_of<O: Replicated>(context: LoopContext) {
    let sets = context.views.of::<O>();
    let pods = context.views.of::<Pod>();
    sets.add_index(index::CONTROLLER, index::controller);
    pods.add_index(index::CONTROLLER, index::controller);
    pods.add_index(claim::ORPHAN, claim::orphan);
    sets.synced().await;
    pods.synced().await;
    let queue = WorkQueue::new(context.metrics.of(O::LOOP));
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
    run_loop(O::LOOP, WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

fn pod_changed<O: Replicated>(change: &Change<Pod>, sets: &View<O>, queue: &WorkQueue<ObjectKey>) {
    for side in change.sides() {
        if let Some(key) = claim::controller_key(&side.metadata, &O::group(&()), &O::kind(&())) {
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
        let Ok(selector) = LabelSelector::from_spec(Some(&set.as_set().spec.selector)) else {
            continue;
        };
        if !selector.is_everything() && selector.matches(claim::labels(&orphan.metadata)) {
            queue.add(ObjectKey::of(set.as_ref()));
        }
    }
}
