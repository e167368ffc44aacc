//! CronJob: a Job whenever its time has come.

mod apply;
pub mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use evenkeel_client::view::index;
use evenkeel_client::{LoopContext, WorkQueue, run_loop};
use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::claim;

/// CronJobs reconciled at once.
const WORKERS: usize = 8;

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let crons = context.views.of::<CronJob>();
    let jobs = context.views.of::<Job>();
    jobs.add_index(index::CONTROLLER, index::controller);
    crons.synced().await;
    jobs.synced().await;
    let queue = WorkQueue::new(context.metrics.of("cronjob"));
    {
        let queue = Arc::clone(&queue);
        crons.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        let queue = Arc::clone(&queue);
        jobs.on_change(move |change| {
            for side in change.sides() {
                if let Some(key) = claim::controller_key(&side.metadata, "batch", "CronJob") {
                    queue.add(key);
                }
            }
        });
    }
    let reconciler = apply::Reconciler {
        crons,
        jobs,
        context: context.clone(),
    };
    run_loop("cronjob", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}
