//! Job: pods that run to completion, each counted once.

pub mod accounts;
mod apply;
pub mod backoff;
pub mod facts;
pub mod indexes;
mod orphans;
pub mod plan;
pub mod policy;
pub mod template;
#[cfg(test)]
mod tests;
pub mod ttl;

use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::view::index;
use evenkeel_client::{Change, LoopContext, ObjectKey, View, WorkQueue, run_loop};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use crate::claim;

/// Jobs reconciled at once.
const WORKERS: usize = 16;

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let jobs = context.views.of::<Job>();
    let pods = context.views.of::<Pod>();
    pods.add_index(index::CONTROLLER, index::controller);
    pods.add_index(claim::ORPHAN, claim::orphan);
    jobs.synced().await;
    pods.synced().await;
    let queue = WorkQueue::new(context.metrics.of("job"));
    {
        let queue = Arc::clone(&queue);
        jobs.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        let (queue, jobs) = (Arc::clone(&queue), Arc::clone(&jobs));
        pods.on_change(move |change| pod_changed(change, &jobs, &queue));
    }
    let orphans = orphans::run(context.clone(), Arc::clone(&jobs), Arc::clone(&pods));
    let reconciler = apply::Reconciler::new(jobs, pods, context.clone());
    let main = run_loop("job", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    });
    futures::future::join(main, orphans).await;
}

fn pod_changed(change: &Change<Pod>, jobs: &View<Job>, queue: &WorkQueue<ObjectKey>) {
    for side in change.sides() {
        if let Some(key) = claim::controller_key(&side.metadata, "batch", "Job") {
            queue.add(key);
        }
    }
    let latest = change.latest();
    if change.new.is_none() || claim::controller_of(&latest.metadata).is_some() {
        return;
    }
    for job in jobs.in_namespace(&change.key.namespace) {
        let selector = facts::spec(&job).selector.as_ref();
        let selector = LabelSelector::from_spec(selector);
        if selector.is_ok_and(|selector| selector.matches(claim::labels(&latest.metadata))) {
            queue.add(ObjectKey::of(job.as_ref()));
        }
    }
}
