//! Takes back the `DisruptionTarget` condition of pods that were not deleted after all.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::plan::stale_at;
use crate::error::ReconcileError;
use crate::pod_control::wait_until;

pub(super) async fn run(context: LoopContext, pods: Arc<View<Pod>>) {
    let queue = WorkQueue::new(context.metrics.of("stale-pod-disruption"));
    {
        let queue = Arc::clone(&queue);
        pods.on_change(move |change| {
            if change
                .new
                .as_ref()
                .is_some_and(|pod| stale_at(pod).is_some())
            {
                queue.add(change.key.clone());
            }
        });
    }
    let reconcile = |key: ObjectKey| {
        let (context, pods) = (&context, &pods);
        async move {
            let Some(pod) = pods.get_key(&key) else {
                return Ok(Outcome::Done);
            };
            let Some(at) = stale_at(&pod) else {
                return Ok(Outcome::Done);
            };
            let now = context.clock.now();
            if at > now {
                return Ok(Outcome::After(wait_until(at, now)));
            }
            let mut conditions = pod
                .status
                .as_ref()
                .and_then(|status| status.conditions.clone())
                .unwrap_or_default();
            for condition in &mut conditions {
                if condition.type_ == "DisruptionTarget" {
                    condition.status = "False".to_owned();
                    condition.reason = None;
                    condition.message = None;
                    condition.last_transition_time = Some(Time(now));
                }
            }
            let patch = json!({
                // The list is written whole, so nobody may have changed it in between.
                "metadata": {
                    "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version,
                },
                "status": {"conditions": conditions},
            });
            let api: Api<Pod> = Api::namespaced(context.client.clone(), &key.namespace);
            let params = PatchParams::default();
            match api
                .patch_status(&key.name, &params, &Patch::Merge(&patch))
                .await
            {
                Ok(written) => {
                    pods.note_written(written);
                }
                Err(error) if errors::is_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
            Ok::<_, ReconcileError>(Outcome::Done)
        }
    };
    run_loop(
        "stale-pod-disruption",
        4,
        queue,
        context.shutdown.clone(),
        reconcile,
    )
    .await;
}
