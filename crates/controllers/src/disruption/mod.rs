//! Disruption budgets: how many of a set of pods may be taken away on purpose, kept up to date in
//! the budget's status; the door's eviction subresource spends it.

mod apply;
pub mod plan;
mod scale;
mod stale;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::{
    Change, EventType, LoopContext, ObjectKey, Recorder, View, WorkQueue, run_loop,
};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::claim;

/// Budgets looked at at once.
const WORKERS: usize = 8;

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let budgets = context.views.of::<PodDisruptionBudget>();
    let pods = context.views.of::<Pod>();
    let scales = scale::Scales {
        sets: context.views.of::<ReplicaSet>(),
        deployments: context.views.of::<Deployment>(),
        stateful: context.views.of::<StatefulSet>(),
        replication: context.views.of::<ReplicationController>(),
        client: context.client.clone(),
    };
    budgets.synced().await;
    pods.synced().await;
    scales.sets.synced().await;
    scales.deployments.synced().await;
    scales.stateful.synced().await;
    scales.replication.synced().await;
    let queue = WorkQueue::new(context.metrics.of("disruption"));
    {
        let queue = Arc::clone(&queue);
        budgets.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        let (queue, budgets) = (Arc::clone(&queue), Arc::clone(&budgets));
        let recorder = context.recorder.clone();
        pods.on_change(move |change| pod_changed(change, &budgets, &queue, &recorder));
    }
    let stale = stale::run(context.clone(), Arc::clone(&pods));
    let reconciler = apply::Reconciler {
        budgets,
        pods,
        scales,
        context: context.clone(),
    };
    let main = run_loop("disruption", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    });
    futures::future::join(main, stale).await;
}

/// The selector of a budget; one that selects all of a namespace does so.
fn selector(budget: &PodDisruptionBudget) -> Option<LabelSelector> {
    let spec = budget.spec.as_ref();
    LabelSelector::from_spec(spec.and_then(|spec| spec.selector.as_ref())).ok()
}

fn pod_changed(
    change: &Change<Pod>,
    budgets: &View<PodDisruptionBudget>,
    queue: &WorkQueue<ObjectKey>,
    recorder: &Recorder,
) {
    for side in change.sides() {
        let labels = claim::labels(&side.metadata);
        let mut found = budgets.in_namespace(&change.key.namespace);
        found.retain(|budget| selector(budget).is_some_and(|it| it.matches(labels)));
        // Told once, when the pod comes: the events of its life would tell it again and again.
        if found.len() > 1 && change.old.is_none() {
            let text = format!(
                "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
                change.key.namespace,
                change.key.name,
                found[0].metadata.name.as_deref().unwrap_or_default()
            );
            let reason = "MultiplePodDisruptionBudgets";
            recorder.tell(side.as_ref(), EventType::Warning, reason, text);
        }
        for budget in found {
            queue.add(ObjectKey::of(budget.as_ref()));
        }
    }
}
