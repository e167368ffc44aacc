//! Pods scaled by measured use: the HorizontalPodAutoscaler loop.
//!
//! `calculate` turns use into a number of replicas, `behavior` limits how fast that number may
//! move, `plan` puts both together with the conditions people read; all three are pure. `apply`
//! reads and writes the `scale` subresource. Figures of pods' CPU and memory come from a
//! [`PodMetrics`] that the composition hands in, all others from APIs that other servers serve
//! ([`custom`]). What never lives here: a measurement.

mod apply;
pub mod behavior;
pub mod calculate;
pub mod custom;
mod monitor;
pub mod plan;
mod proposal;
pub mod sample;
pub mod summary;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{LoopContext, WorkQueue, run_loop};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;

pub use custom::{OtherMetrics, ServedMetrics};
pub use sample::{ContainerSample, PodMetrics, PodSample, SampleError};
pub use summary::NodeSummaries;

/// Between two looks at one autoscaler (`--horizontal-pod-autoscaler-sync-period`).
pub const PERIOD: Duration = Duration::from_secs(15);
/// Autoscalers looked at at once.
const WORKERS: usize = 5;

/// Runs until the context's shutdown. The context acts as
/// `system:serviceaccount:kube-system:horizontal-pod-autoscaler`.
pub async fn run(context: LoopContext, metrics: Arc<dyn PodMetrics>) {
    let others = Arc::new(ServedMetrics::new(context.client.clone()));
    run_with(context, metrics, others).await;
}

/// As [`run`], with a source of other figures.
pub async fn run_with(
    context: LoopContext,
    metrics: Arc<dyn PodMetrics>,
    others: Arc<dyn OtherMetrics>,
) {
    let queue = WorkQueue::new(context.metrics.of("horizontal-pod-autoscaler"));
    let scalers = context.views.of::<HorizontalPodAutoscaler>();
    scalers.synced().await;
    let monitor = Arc::new(monitor::Monitor::new(&context.metrics));
    {
        let (queue, monitor) = (Arc::clone(&queue), Arc::clone(&monitor));
        scalers.on_change(move |change| {
            match (&change.old, &change.new) {
                (None, Some(_)) => monitor.came(),
                (Some(_), None) => monitor.went(&change.key.namespace, &change.key.name),
                _ => {}
            }
            let generation = |side: &Option<Arc<HorizontalPodAutoscaler>>| {
                side.as_ref()
                    .map(|it| (it.metadata.uid.clone(), it.metadata.generation))
            };
            // Our own status is no reason to look again.
            if generation(&change.old) != generation(&change.new) {
                queue.add(change.key.clone());
            }
        });
    }
    let reconciler = apply::Reconciler::new(scalers, context.clone(), metrics, others, monitor);
    run_loop(
        "horizontal-pod-autoscaler",
        WORKERS,
        queue,
        context.shutdown,
        |key| reconciler.reconcile(key),
    )
    .await;
}

/// Asks for the view of pods only once there is an autoscaler.
pub(crate) fn pods_of(context: &LoopContext) -> Arc<evenkeel_client::View<Pod>> {
    context.views.of::<Pod>()
}
