//! Takes the finalizer off pods that no Job will ever count: those whose Job is gone or has ended.

use std::sync::Arc;

use evenkeel_client::view::index;
use evenkeel_client::{LoopContext, ObjectKey, Outcome, View, WorkQueue, run_loop};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::facts::{self, FINALIZER};
use crate::claim;
use crate::error::ReconcileError;
use crate::pod_control::PodControl;

/// A pod that is tracked and that no running job owns.
fn is_orphan(jobs: &View<Job>, pod: &Pod) -> bool {
    if !facts::is_tracked(pod) {
        return false;
    }
    let Some(owner) = claim::controller_of(&pod.metadata) else {
        return true;
    };
    let Some(key) = claim::controller_key(&pod.metadata, "batch", "Job") else {
        // Controlled by something else: its finalizer, whoever set it.
        return false;
    };
    let job = jobs.get_key(&key);
    let job = job.filter(|job| job.metadata.uid.as_deref() == Some(owner.uid.as_str()));
    match job {
        None => true,
        Some(job) => facts::other_manager(&job).is_none() && facts::ended(&job).is_some(),
    }
}

pub(super) async fn run(context: LoopContext, jobs: Arc<View<Job>>, pods: Arc<View<Pod>>) {
    let queue = WorkQueue::new(context.metrics.of("job-orphans"));
    {
        let (queue, jobs) = (Arc::clone(&queue), Arc::clone(&jobs));
        pods.on_change(move |change| {
            if change.new.as_ref().is_some_and(|pod| is_orphan(&jobs, pod)) {
                queue.add(change.key.clone());
            }
        });
    }
    {
        let (queue, pods) = (Arc::clone(&queue), Arc::clone(&pods));
        jobs.on_change(move |change| {
            let over = change
                .new
                .as_ref()
                .is_none_or(|job| facts::ended(job).is_some());
            if over {
                let uid = change.latest().metadata.uid.clone().unwrap_or_default();
                for pod in pods.by_index(index::CONTROLLER, &uid) {
                    queue.add(ObjectKey::of(pod.as_ref()));
                }
            }
        });
    }
    let reconcile = |key: ObjectKey| {
        let (context, jobs, pods) = (&context, &jobs, &pods);
        async move {
            let Some(pod) = pods.get_key(&key).filter(|pod| is_orphan(jobs, pod)) else {
                return Ok(Outcome::Done);
            };
            let control = PodControl {
                context,
                view: pods,
            };
            control.remove_finalizer(&pod, FINALIZER).await?;
            Ok::<_, ReconcileError>(Outcome::Done)
        }
    };
    run_loop("job-orphans", 8, queue, context.shutdown.clone(), reconcile).await;
}
