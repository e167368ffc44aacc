//! What a Job and its pods say: pure readings that the plan and the accounts stand on.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use super::indexes::Indexes;
use super::{backoff, policy};
use crate::pods;

/// Holds a pod until it has been counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The annotation and label with a pod's index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The annotation with the failures of the index before this pod.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same, for failures that did not count.
pub const INDEX_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Who manages a job that says nothing.
pub const MANAGER: &str = "kubernetes.io/job-controller";

pub(super) fn spec(job: &Job) -> &JobSpec {
    static EMPTY: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
    job.spec.as_ref().unwrap_or(&EMPTY)
}

pub(super) fn status(job: &Job) -> JobStatus {
    job.status.clone().unwrap_or_default()
}

/// A condition that is true.
#[must_use]
pub fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|item| item.type_ == kind && item.status == "True")
}

/// How a job ended: its `Complete` or `Failed` condition.
#[must_use]
pub fn ended(job: &Job) -> Option<&JobCondition> {
    condition(job, "Complete").or_else(|| condition(job, "Failed"))
}

/// Who manages the job, if not this loop.
#[must_use]
pub fn other_manager(job: &Job) -> Option<&str> {
    let manager = spec(job).managed_by.as_deref();
    manager.filter(|name| *name != MANAGER)
}

pub(super) fn is_suspended(job: &Job) -> bool {
    spec(job).suspend == Some(true)
}

pub(super) fn is_indexed(job: &Job) -> bool {
    spec(job).completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn is_per_index(job: &Job) -> bool {
    is_indexed(job) && spec(job).backoff_limit_per_index.is_some()
}

pub(super) fn completions(job: &Job) -> i32 {
    spec(job).completions.unwrap_or(0)
}

/// A pod on its way out is replaced only when it has ended.
pub(super) fn waits_for_end(job: &Job) -> bool {
    spec(job).pod_replacement_policy.as_deref() == Some("Failed")
}

/// It has not been counted yet.
#[must_use]
pub fn is_tracked(pod: &Pod) -> bool {
    let finalizers = pod.metadata.finalizers.iter().flatten();
    finalizers.into_iter().any(|item| item == FINALIZER)
}

/// It failed, or was deleted before it succeeded (unless the job waits for the end of such).
#[must_use]
pub fn is_failed(job: &Job, pod: &Pod) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => !waits_for_end(job) && pod.metadata.deletion_timestamp.is_some(),
    }
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

/// The index a pod works on.
#[must_use]
pub fn index_of(pod: &Pod) -> Option<i32> {
    let text = annotation(pod, INDEX)?;
    text.parse().ok().filter(|index| *index >= 0)
}

/// The index a pod works on, where the job has it.
pub(super) fn valid_index(job: &Job, pod: &Pod) -> Option<i32> {
    index_of(pod).filter(|index| *index < completions(job))
}

fn count_of(pod: &Pod, name: &str) -> i32 {
    let number = annotation(pod, name).and_then(|text| text.parse::<i32>().ok());
    number.filter(|number| *number >= 0).unwrap_or(0)
}

/// Failures of the pod's index before it: those that count, and those that do not.
pub(super) fn failures_before(pod: &Pod) -> (i32, i32) {
    (count_of(pod, INDEX_FAILURES), count_of(pod, INDEX_IGNORED))
}

/// With this pod its index has failed for good.
fn ends_index(job: &Job, pod: &Pod) -> bool {
    if !is_failed(job, pod) {
        return false;
    }
    let verdict = policy::judge(job, pod);
    let limit = spec(job).backoff_limit_per_index.unwrap_or(i32::MAX);
    verdict.action == Some(policy::Action::FailIndex)
        || (verdict.counts() && failures_before(pod).0 >= limit)
}

/// Everything that is counted, as the pods stand.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Neither ended nor on their way out.
    pub active: Vec<Arc<Pod>>,
    /// Ended well and not yet counted.
    pub new_succeeded: Vec<Arc<Pod>>,
    /// Failed and not yet counted.
    pub new_failed: Vec<Arc<Pod>>,
    /// Successes, counted or not; indexes where there are any.
    pub succeeded: i32,
    /// Failures that count, counted or not.
    pub failed: i32,
    /// Ready ones among the active.
    pub ready: i32,
    /// On their way out and not ended.
    pub terminating: i32,
    /// Indexes the status tells as completed.
    pub told_indexes: Indexes,
    /// Those and the newly completed.
    pub succeeded_indexes: Indexes,
    /// Indexes that have failed for good, where each has its own limit.
    pub failed_indexes: Option<Indexes>,
    /// Failed pods kept until their index has a successor, which takes their count over.
    pub held: BTreeMap<i32, Arc<Pod>>,
}

impl Facts {
    /// Reads them.
    #[must_use]
    pub fn of(job: &Job, mine: &[Arc<Pod>]) -> Self {
        let status = status(job);
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let set = |uids: Option<Vec<String>>| -> HashSet<String> {
            uids.unwrap_or_default().into_iter().collect()
        };
        let (succeeded, failed) = (set(uncounted.succeeded), set(uncounted.failed));
        let counted = |uids: &HashSet<String>, pod: &Pod| {
            let uid = pod.metadata.uid.as_ref();
            uid.is_some_and(|uid| uids.contains(uid))
        };
        let is_new = |pod: &Pod, uids: &HashSet<String>| {
            is_tracked(pod)
                && !counted(uids, pod)
                && (!is_indexed(job) || valid_index(job, pod).is_some())
        };
        let mut facts = Self::default();
        for pod in mine {
            if pods::is_active(pod) {
                facts.ready += i32::from(pods::is_ready(pod));
                facts.active.push(Arc::clone(pod));
            }
            facts.terminating += i32::from(pods::is_terminating(pod));
            // One that was taken away while it ran has failed, however it ended after that.
            let is_lost = counted(&failed, pod);
            if pods::phase(pod) == "Succeeded" && !is_lost && is_new(pod, &succeeded) {
                facts.new_succeeded.push(Arc::clone(pod));
            }
            if is_failed(job, pod) && is_new(pod, &failed) {
                facts.new_failed.push(Arc::clone(pod));
            }
        }
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let that_count = facts.new_failed.iter();
        let that_count = that_count.filter(|pod| policy::judge(job, pod).counts());
        facts.failed =
            status.failed.unwrap_or(0) + number(that_count.count()) + number(failed.len());
        facts.succeeded = status.succeeded.unwrap_or(0)
            + number(facts.new_succeeded.len())
            + number(succeeded.len());
        if is_indexed(job) {
            facts.read_indexes(job, &status, mine);
        }
        facts
    }

    fn read_indexes(&mut self, job: &Job, status: &JobStatus, mine: &[Arc<Pod>]) {
        let parse = |text: &Option<String>| {
            Indexes::parse(text.as_deref().unwrap_or_default(), completions(job))
        };
        let tracked = || mine.iter().filter(|pod| is_tracked(pod));
        let of = |pod: &Arc<Pod>| valid_index(job, pod);
        self.told_indexes = parse(&status.completed_indexes);
        let new = tracked().filter(|pod| pods::phase(pod) == "Succeeded");
        self.succeeded_indexes = self.told_indexes.clone().with(new.filter_map(of));
        self.succeeded = self.succeeded_indexes.total();
        if !is_per_index(job) {
            return;
        }
        let new = tracked().filter(|pod| ends_index(job, pod));
        let failed = parse(&status.failed_indexes).with(new.filter_map(of));
        let active = active_indexes(&self.active);
        for pod in tracked().filter(|pod| is_failed(job, pod)) {
            let Some(index) = valid_index(job, pod) else {
                continue;
            };
            if self.succeeded_indexes.has(index) || failed.has(index) || active.has(index) {
                continue;
            }
            let rank = |pod: &Pod| {
                let (counted, ignored) = failures_before(pod);
                (counted + ignored, backoff::finished_at(pod))
            };
            let is_later = self.held.get(&index).is_none_or(|held| {
                let (found, new) = (rank(held), rank(pod));
                found.0 <= new.0 && found.1 <= new.1
            });
            if is_later {
                self.held.insert(index, Arc::clone(pod));
            }
        }
        self.failed_indexes = Some(failed);
    }
}

/// The indexes pods work on.
pub(super) fn active_indexes(pods: &[Arc<Pod>]) -> Indexes {
    pods.iter().filter_map(|pod| index_of(pod)).collect()
}
