//! The accounts of a Job: every pod that ends is counted once and only once, whatever crashes in
//! between (KEP-2307).
//!
//! A pod carries a finalizer until it has been counted. Counting takes three writes, each of which
//! may be the last before a crash: the pod's uid goes into `uncountedTerminatedPods`; the
//! finalizer is taken off; the uid is exchanged for one more in the counter. A uid whose pod has
//! no finalizer any more is counted; one whose pod still has it is not. Indexes that succeeded
//! need no uid, because an index counts once by itself.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::facts::{self, is_indexed, is_tracked, valid_index};
use super::plan::{FAILURE_TARGET, Plan, SUCCESS_CRITERIA_MET, new_condition};
use super::policy;
use crate::pods;

/// Uids kept in the status at most, so that it stays small and one job does not starve others.
pub const MOST_UNCOUNTED: usize = 500;

/// What to write, and what to take the finalizer off after that.
#[derive(Debug, Clone)]
pub struct Account {
    /// The status to write before any finalizer is taken off.
    pub status: JobStatus,
    /// Pods that are counted by then.
    pub release: Vec<Arc<Pod>>,
    /// The end of the job, once all of them are.
    pub end: Option<JobCondition>,
    /// What is told: reason and message, all of them normal.
    pub events: Vec<(&'static str, &'static str)>,
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The uids of pods not yet counted.
#[must_use]
pub fn tracked(mine: &[Arc<Pod>]) -> HashSet<String> {
    let tracked = mine.iter().filter(|pod| is_tracked(pod));
    tracked.map(|pod| uid(pod).to_owned()).collect()
}

/// Exchanges uids whose pods have lost the finalizer for counts.
pub fn exchange(status: &mut JobStatus, tracked: &HashSet<String>) {
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let take = |uids: &mut Option<Vec<String>>, count: &mut Option<i32>| {
        let Some(list) = uids else { return };
        let before = list.len();
        list.retain(|uid| tracked.contains(uid));
        let gone = i32::try_from(before - list.len()).unwrap_or(0);
        if gone > 0 {
            *count = Some(count.unwrap_or(0) + gone);
        }
        if list.is_empty() {
            *uids = None;
        }
    };
    take(&mut uncounted.succeeded, &mut status.succeeded);
    take(&mut uncounted.failed, &mut status.failed);
}

/// Draws up the accounts after a plan's act. `mine` are the pods as they are then; `complete` says
/// that the act left nothing undone.
#[must_use]
pub fn draw_up(job: &Job, plan: &Plan, mine: &[Arc<Pod>], done: bool, now: Timestamp) -> Account {
    let mut status = facts::status(job);
    status
        .uncounted_terminated_pods
        .get_or_insert_with(UncountedTerminatedPods::default);
    let suspended = facts::is_suspended(job);
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(Time(now));
    }
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let active: Vec<_> = mine.iter().filter(|pod| pods::is_active(pod)).collect();
    let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
    status.active = Some(number(active.len()));
    status.ready = Some(number(ready));
    status.terminating = Some(terminating(mine));
    let mut account = Account {
        status,
        release: Vec::new(),
        end: None,
        events: Vec::new(),
    };
    // Not over while a pod that should have ended runs on.
    let mut verdict = plan.verdict.clone().filter(|_| done && active.is_empty());
    if plan.verdict.is_none() {
        if is_complete(job, plan, active.len()) {
            let text = "Reached expected number of succeeded pods";
            verdict = Some(new_condition(
                SUCCESS_CRITERIA_MET,
                "CompletionsReached",
                text,
                now,
            ));
        } else if job.metadata.deletion_timestamp.is_none() {
            account.note_suspension(suspended, now);
        }
    }
    account.count(job, plan, mine, verdict.as_ref());
    account.judge(verdict, now);
    account
}

/// Pods on their way out that have not ended.
#[must_use]
pub fn terminating(mine: &[Arc<Pod>]) -> i32 {
    let going = mine.iter().filter(|pod| pods::is_terminating(pod)).count();
    i32::try_from(going).unwrap_or(i32::MAX)
}

fn is_complete(job: &Job, plan: &Plan, active: usize) -> bool {
    let succeeded = plan.facts.succeeded;
    let enough = match facts::spec(job).completions {
        None => succeeded > 0,
        Some(completions) => succeeded >= completions,
    };
    enough && active == 0
}

impl Account {
    fn note_suspension(&mut self, suspended: bool, now: Timestamp) {
        let (state, reason, message) = if suspended {
            ("True", "JobSuspended", "Job suspended")
        } else {
            ("False", "JobResumed", "Job resumed")
        };
        let conditions = self.status.conditions.get_or_insert_default();
        let found = conditions.iter_mut().find(|item| item.type_ == "Suspended");
        let mut new = new_condition("Suspended", reason, message, now);
        new.status = state.to_owned();
        match found {
            Some(found) if found.status == state => return,
            Some(found) => *found = new,
            // From nothing to not suspended is no change.
            None if !suspended => {
                if conditions.is_empty() {
                    self.status.conditions = None;
                }
                return;
            }
            None => conditions.push(new),
        }
        if suspended {
            self.status.start_time = None;
            self.events.push(("Suspended", message));
        } else {
            // The deadline counts from here.
            self.status.start_time = Some(Time(now));
            self.events.push(("Resumed", message));
        }
    }

    /// Notes pods that have ended, and whose finalizer may go after that.
    fn count(&mut self, job: &Job, plan: &Plan, mine: &[Arc<Pod>], verdict: Option<&JobCondition>) {
        let before = self.status.uncounted_terminated_pods.clone();
        let before = before.unwrap_or_default();
        let has = |uids: &Option<Vec<String>>, pod: &Pod| {
            uids.iter().flatten().any(|item| item == uid(pod))
        };
        exchange(&mut self.status, &tracked(mine));
        let uncounted = self
            .status
            .uncounted_terminated_pods
            .get_or_insert_default();
        let is_success = verdict.is_some_and(|item| item.type_ == SUCCESS_CRITERIA_MET);
        let lost = verdict.is_some() && !is_success;
        let over = verdict.is_some() || job.metadata.deletion_timestamp.is_some();
        let mut ordered: Vec<&Arc<Pod>> = mine.iter().filter(|pod| is_tracked(pod)).collect();
        if is_indexed(job) {
            ordered.sort_by_key(|pod| facts::index_of(pod));
        }
        let ran: HashSet<&str> = plan.facts.active.iter().map(|pod| uid(pod)).collect();
        let mut new_indexes = Vec::new();
        let (mut succeeded, mut failed) = (
            uncounted.succeeded.take().unwrap_or_default(),
            uncounted.failed.take().unwrap_or_default(),
        );
        for pod in ordered {
            let is_done = pods::phase(pod) == "Succeeded";
            // One that this very round took away because the job has succeeded did not fail.
            let is_ours = is_success && ran.contains(uid(pod));
            let is_failed = facts::is_failed(job, pod) && !is_ours;
            if !(over || is_done || (is_failed && !is_held(plan, job, pod))) {
                continue;
            }
            self.release.push(Arc::clone(pod));
            let index = valid_index(job, pod);
            if is_done && !has(&before.failed, pod) {
                if is_indexed(job) {
                    new_indexes.extend(index.filter(|it| !plan.facts.told_indexes.has(*it)));
                } else if !has(&before.succeeded, pod) {
                    succeeded.push(uid(pod).to_owned());
                }
            } else if (is_failed || lost)
                && !has(&before.failed, pod)
                && (!is_indexed(job) || index.is_some())
                && policy::judge(job, pod).counts()
            {
                failed.push(uid(pod).to_owned());
            }
            if new_indexes.len() + succeeded.len() + failed.len() >= MOST_UNCOUNTED {
                break;
            }
        }
        uncounted.succeeded = Some(succeeded).filter(|uids| !uids.is_empty());
        uncounted.failed = Some(failed).filter(|uids| !uids.is_empty());
        if is_indexed(job) {
            let indexes = plan.facts.succeeded_indexes.clone().with(new_indexes);
            self.status.succeeded = Some(indexes.total());
            let text = Some(indexes.to_string());
            self.status.completed_indexes = text.filter(|text| !text.is_empty());
            let failed = plan.facts.failed_indexes.as_ref();
            self.status.failed_indexes = failed.map(ToString::to_string);
        }
    }

    /// Tells how the job stands now, and what it ends with.
    fn judge(&mut self, verdict: Option<JobCondition>, now: Timestamp) {
        let Some(verdict) = verdict else { return };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (reason, message) = (text(&verdict.reason), text(&verdict.message));
        let kind = match verdict.type_.as_str() {
            SUCCESS_CRITERIA_MET => "Complete",
            _ => "Failed",
        };
        self.end = Some(new_condition(kind, &reason, &message, now));
        let told = self.status.conditions.iter().flatten();
        let is_told = told.clone().any(|item| item.type_ == verdict.type_);
        let is_interim = [FAILURE_TARGET, SUCCESS_CRITERIA_MET].contains(&verdict.type_.as_str());
        if is_interim && !is_told {
            self.status.conditions.get_or_insert_default().push(verdict);
        }
    }
}

/// A pod kept until its index has a successor.
fn is_held(plan: &Plan, job: &Job, pod: &Pod) -> bool {
    let index = valid_index(job, pod);
    let held = index.and_then(|index| plan.facts.held.get(&index));
    held.is_some_and(|held| uid(held) == uid(pod))
}

/// The status after finalizers have been taken off: counts, and the end where nothing is left to
/// count or to wait for. True: the job has ended.
#[must_use]
pub fn close(
    mut status: JobStatus,
    end: Option<&JobCondition>,
    mine: &[Arc<Pod>],
) -> (JobStatus, bool) {
    let tracked = tracked(mine);
    exchange(&mut status, &tracked);
    let Some(end) = end else {
        return (status, false);
    };
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let left = uncounted.succeeded.iter().flatten().count()
        + uncounted.failed.iter().flatten().count()
        + tracked.len();
    if left > 0 || terminating(mine) > 0 {
        return (status, false);
    }
    status.terminating = Some(0);
    // A job that ends without ever having run has begun with its end.
    let begun = end.last_transition_time.clone();
    status.start_time = status.start_time.or(begun);
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|item| item.type_ != end.type_);
    conditions.push(end.clone());
    if end.type_ == "Complete" {
        status.completion_time = end.last_transition_time.clone();
    }
    (status, true)
}
