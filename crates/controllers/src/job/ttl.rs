//! Jobs that have ended go when their `ttlSecondsAfterFinished` has passed, with all they own.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{LoopContext, ObjectKey, Outcome, WorkQueue, errors, run_loop};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};

use super::facts;
use crate::error::ReconcileError;
use crate::pod_control::wait_until;

/// When a job is to go; `None`: never, or not yet known.
#[must_use]
pub fn expires_at(job: &Job) -> Option<Timestamp> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let seconds = facts::spec(job).ttl_seconds_after_finished?;
    let ended = facts::ended(job)?.last_transition_time.as_ref()?.0;
    ended
        .checked_add(SignedDuration::from_secs(seconds.into()))
        .ok()
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let jobs = context.views.of::<Job>();
    jobs.synced().await;
    let queue = WorkQueue::new(context.metrics.of("ttl-after-finished"));
    {
        let queue = Arc::clone(&queue);
        jobs.on_change(move |change| {
            if change
                .new
                .as_ref()
                .is_some_and(|job| expires_at(job).is_some())
            {
                queue.add(change.key.clone());
            }
        });
    }
    let reconcile = |key: ObjectKey| {
        let (context, jobs) = (&context, &jobs);
        async move {
            let Some(at) = jobs.get_key(&key).and_then(|job| expires_at(&job)) else {
                return Ok(Outcome::Done);
            };
            let now = context.clock.now();
            if at > now {
                return Ok(Outcome::After(wait_until(at, now)));
            }
            let api: Api<Job> = Api::namespaced(context.client.clone(), &key.namespace);
            // Somebody may have given it more time just now.
            let Some(fresh) = api.get_opt(&key.name).await? else {
                return Ok(Outcome::Done);
            };
            if expires_at(&fresh).is_none_or(|at| at > now) {
                jobs.note_written(fresh);
                return Ok(Outcome::Done);
            }
            let params = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Foreground),
                ..DeleteParams::default()
            };
            let params = params.preconditions(Preconditions {
                uid: fresh.metadata.uid.clone(),
                resource_version: None,
            });
            match api.delete(&key.name, &params).await {
                Ok(answer) => jobs.note_delete_answer(&fresh, answer.left()),
                Err(error) if errors::is_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
            Ok::<_, ReconcileError>(Outcome::Done)
        }
    };
    run_loop(
        "ttl-after-finished",
        4,
        queue,
        context.shutdown.clone(),
        reconcile,
    )
    .await;
}
