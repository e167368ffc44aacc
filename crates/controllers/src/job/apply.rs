//! Carries a Job's plan out: pods, then the accounts, step by step.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::view::index;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View};
use futures::future::join_all;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use super::accounts::{close, draw_up};
use super::backoff::Record;
use super::facts::{self, FINALIZER};
use super::plan::{Act, plan};
use crate::claim;
use crate::error::ReconcileError;
use crate::pod_control::{PodControl, wait_until};
use crate::pods;
use crate::told::write_status;

pub(super) struct Reconciler {
    jobs: Arc<View<Job>>,
    pods: Arc<View<Pod>>,
    context: LoopContext,
    /// Failures of jobs that run, by the job's uid: lost with the process, and then read from the
    /// pods that are left.
    backoff: Mutex<HashMap<ObjectKey, (String, Record)>>,
}

impl Reconciler {
    pub(super) fn new(jobs: Arc<View<Job>>, pods: Arc<View<Pod>>, context: LoopContext) -> Self {
        Self {
            jobs,
            pods,
            context,
            backoff: Mutex::default(),
        }
    }

    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let job = self.jobs.get_key(&key);
        let ours = job.filter(|job| facts::other_manager(job).is_none());
        let Some(job) = ours.filter(|job| facts::ended(job).is_none()) else {
            self.backoff.lock().remove(&key);
            return Ok(Outcome::Done);
        };
        let mode = facts::spec(&job).completion_mode.as_deref();
        if mode.is_some_and(|mode| !["NonIndexed", "Indexed"].contains(&mode)) {
            let text = "Skipped Job sync because completion mode is unknown";
            let recorder = &self.context.recorder;
            recorder.tell(
                job.as_ref(),
                EventType::Warning,
                "UnknownCompletionMode",
                text,
            );
            return Ok(Outcome::Done);
        }
        let selector = LabelSelector::from_spec(facts::spec(&job).selector.as_ref())
            .map_err(|error| ReconcileError::State(error.to_string()))?;
        let mine = self.claim(&job, &selector).await?;
        let remembered = self.remembered(&key, &job, &mine);
        let plan = plan(&job, &mine, remembered, self.context.clock.now());
        let done = self.carry_out(&job, &plan.act).await;
        let mine = self.owned(&job, &selector);
        let now = self.context.clock.now();
        let account = draw_up(&job, &plan, &mine, done.is_ok(), now);
        for (reason, message) in &account.events {
            let recorder = &self.context.recorder;
            recorder.tell(job.as_ref(), EventType::Normal, reason, *message);
        }
        let Some(job) = self.write_status(&job, account.status).await? else {
            return Ok(Outcome::Done);
        };
        self.remember(&key, &job, plan.backoff);
        let released = self.release(&account.release).await;
        let mine = self.owned(&job, &selector);
        let status = facts::status(&job);
        let (status, ended) = close(status, account.end.as_ref(), &mine);
        if self.write_status(&job, status).await?.is_some()
            && ended
            && let Some(end) = &account.end
        {
            self.tell_end(&job, end);
        }
        released?;
        done?;
        let now = self.context.clock.now();
        let next = plan.look_again;
        Ok(next.map_or(Outcome::Done, |at| Outcome::After(wait_until(at, now))))
    }

    fn owned(&self, job: &Job, selector: &LabelSelector) -> Vec<Arc<Pod>> {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let mut mine = self.pods.by_index(index::CONTROLLER, uid);
        mine.retain(|pod| selector.matches(claim::labels(&pod.metadata)));
        mine
    }

    async fn claim(
        &self,
        job: &Job,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
        let claims = claim::claims(
            job.metadata.deletion_timestamp.is_some(),
            selector,
            self.pods.by_index(index::CONTROLLER, uid),
            self.pods.by_index(claim::ORPHAN, namespace),
        );
        let client = &self.context.client;
        claim::carry_out_with(client, &self.pods, job, claims, Some(FINALIZER)).await
    }

    fn remembered(&self, key: &ObjectKey, job: &Job, mine: &[Arc<Pod>]) -> Record {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let kept = self.backoff.lock().get(key).cloned();
        if let Some((_, record)) = kept.filter(|(of, _)| of == uid) {
            return record;
        }
        let counted = || mine.iter().filter(|pod| !facts::is_tracked(pod)).cloned();
        let succeeded: Vec<_> = counted()
            .filter(|pod| pods::phase(pod) == "Succeeded")
            .collect();
        let failed: Vec<_> = counted()
            .filter(|pod| pods::phase(pod) == "Failed")
            .collect();
        Record::default().after(&succeeded, &failed)
    }

    fn remember(&self, key: &ObjectKey, job: &Job, record: Record) {
        let uid = job.metadata.uid.clone().unwrap_or_default();
        self.backoff.lock().insert(key.clone(), (uid, record));
    }

    fn control(&self) -> PodControl<'_> {
        PodControl {
            context: &self.context,
            view: &self.pods,
        }
    }

    async fn carry_out(&self, job: &Job, act: &Act) -> Result<(), ReconcileError> {
        let control = self.control();
        match act {
            Act::Nothing => {}
            Act::End(pods) => control.delete_all(job, pods).await?,
            Act::Create(pods) => control.create_all(job, pods.iter()).await?,
            Act::Remove(pods) => {
                let removals = pods.iter().map(|pod| async move {
                    if facts::is_tracked(pod) {
                        control.remove_finalizer(pod, FINALIZER).await?;
                    }
                    control.delete(job, pod).await
                });
                let removed: Result<Vec<()>, _> = join_all(removals).await.into_iter().collect();
                removed?;
            }
        }
        Ok(())
    }

    async fn release(&self, pods: &[Arc<Pod>]) -> Result<(), ReconcileError> {
        let control = self.control();
        let removals = pods
            .iter()
            .map(|pod| control.remove_finalizer(pod, FINALIZER));
        let removed: Result<Vec<()>, _> = join_all(removals).await.into_iter().collect();
        removed?;
        Ok(())
    }

    /// The job with this status; `None`: it is gone.
    async fn write_status(
        &self,
        job: &Arc<Job>,
        status: JobStatus,
    ) -> Result<Option<Arc<Job>>, ReconcileError> {
        if is_same(job.status.as_ref(), &status) {
            return Ok(Some(Arc::clone(job)));
        }
        let mut fresh = job.as_ref().clone();
        fresh.status = Some(status);
        write_status(&self.context, &self.jobs, &fresh).await
    }

    fn tell_end(&self, job: &Job, end: &JobCondition) {
        let recorder = &self.context.recorder;
        if end.type_ != "Complete" {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let (reason, message) = (text(&end.reason), text(&end.message));
            recorder.tell(job, EventType::Warning, &reason, message);
            return;
        }
        let succeeded = facts::status(job).succeeded.unwrap_or(0);
        if facts::spec(job)
            .completions
            .is_some_and(|most| succeeded > most)
        {
            let text = "Too many succeeded pods running after completion count reached";
            recorder.tell(job, EventType::Warning, "TooManySucceededPods", text);
        }
        recorder.tell(job, EventType::Normal, "Completed", "Job completed");
    }
}

/// The same for a reader: absent counts are zero.
fn is_same(old: Option<&JobStatus>, new: &JobStatus) -> bool {
    let bare = |status: &JobStatus| {
        let zero = |value: Option<i32>| Some(value.unwrap_or(0));
        let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        let mut uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let list = |uids: Option<Vec<String>>| uids.filter(|uids| !uids.is_empty());
        uncounted.succeeded = list(uncounted.succeeded);
        uncounted.failed = list(uncounted.failed);
        JobStatus {
            active: zero(status.active),
            succeeded: zero(status.succeeded),
            failed: zero(status.failed),
            ready: zero(status.ready),
            terminating: zero(status.terminating),
            completed_indexes: text(&status.completed_indexes),
            conditions: status.conditions.clone().filter(|all| !all.is_empty()),
            uncounted_terminated_pods: Some(uncounted),
            ..status.clone()
        }
    };
    old.is_some_and(|old| bare(old) == bare(new))
}
