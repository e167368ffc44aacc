//! Namespaces: what each gets when it is made, and what happens when it goes.

mod apply;
pub mod plan;
pub mod root_ca;
pub mod service_account;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use evenkeel_client::{LoopContext, ObjectKey, WorkQueue, run_loop};
use k8s_openapi::api::core::v1::{Namespace, Pod};

/// Namespaces deleted at once.
const WORKERS: usize = 10;

/// Deletes the contents of terminating namespaces. Runs until the context's shutdown.
pub async fn run_deletion(context: LoopContext) {
    let queue = WorkQueue::new(context.metrics.of("namespace"));
    let namespaces = context.views.of::<Namespace>();
    let pods = context.views.of::<Pod>();
    {
        let queue = Arc::clone(&queue);
        namespaces.on_change(move |change| {
            if change
                .new
                .as_ref()
                .is_some_and(|found| plan::is_terminating(found))
            {
                queue.add(change.key.clone());
            }
        });
    }
    {
        // Pods are what a namespace waits for longest: its next step follows the last of them.
        let queue = Arc::clone(&queue);
        let namespaces = Arc::clone(&namespaces);
        pods.on_change(move |change| {
            let name = &change.key.namespace;
            let going = || {
                namespaces
                    .get("", name)
                    .is_some_and(|it| plan::is_terminating(&it))
            };
            if change.new.is_none() && going() {
                queue.add(ObjectKey::new("", name.clone()));
            }
        });
    }
    let reconciler = apply::Reconciler {
        namespaces,
        context: context.clone(),
    };
    run_loop("namespace", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}
