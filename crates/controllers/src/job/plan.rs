//! What a Job needs: pure.
//!
//! First how it stands (has it failed, has it succeeded by its policy), then, if it goes on, how
//! many pods it should have. The order of the questions is the reference's (`syncJob`), because a
//! job can satisfy several answers at once.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::{self, Record};
use super::facts::{self, Facts, active_indexes, index_of, is_indexed, spec};
use super::indexes::Indexes;
use super::{policy, template};
use crate::pod_control::BURST;
use crate::pods;

/// It has failed, and its pods are being ended.
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
/// It has succeeded, and its pods are being ended.
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";

/// What to do about pods: one thing at a time.
#[derive(Debug, Clone, Default)]
pub enum Act {
    /// Nothing.
    #[default]
    Nothing,
    /// The job is over: these go, and are counted.
    End(Vec<Arc<Pod>>),
    /// These are too many: they go, and are not counted.
    Remove(Vec<Arc<Pod>>),
    /// These come.
    Create(Vec<Pod>),
}

/// What is decided.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// About pods.
    pub act: Act,
    /// How the job stands: `FailureTarget`, `SuccessCriteriaMet` or, where the first was told
    /// before, `Failed`.
    pub verdict: Option<JobCondition>,
    /// The facts it was decided on.
    pub facts: Facts,
    /// Failures since the last success, to be kept once they have been written down.
    pub backoff: Record,
    /// When to look again though nothing changed.
    pub look_again: Option<Timestamp>,
}

pub(super) fn new_condition(
    kind: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()).filter(|text| !text.is_empty()),
        message: Some(message.to_owned()).filter(|text| !text.is_empty()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Decides from the pods that are the job's. `backoff` is what is remembered of failures.
#[must_use]
pub fn plan(job: &Job, mine: &[Arc<Pod>], backoff: Record, now: Timestamp) -> Plan {
    let facts = Facts::of(job, mine);
    let mut plan = Plan {
        backoff: backoff.after(&facts.new_succeeded, &facts.new_failed),
        facts,
        ..Plan::default()
    };
    plan.verdict = verdict(job, mine, &plan.facts, now);
    if plan.verdict.is_some() {
        plan.act = Act::End(plan.facts.active.clone());
        return plan;
    }
    plan.look_again = deadline(job);
    if job.metadata.deletion_timestamp.is_none() {
        manage(job, mine, now, &mut plan);
    }
    plan
}

/// When a job that runs must have ended.
fn deadline(job: &Job) -> Option<Timestamp> {
    if facts::is_suspended(job) {
        return None;
    }
    let start = job.status.as_ref()?.start_time.as_ref()?.0;
    let seconds = spec(job).active_deadline_seconds?;
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn verdict(job: &Job, mine: &[Arc<Pod>], facts: &Facts, now: Timestamp) -> Option<JobCondition> {
    if let Some(found) = facts::condition(job, SUCCESS_CRITERIA_MET) {
        return Some(found.clone());
    }
    if let Some(found) = facts::condition(job, FAILURE_TARGET) {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (reason, message) = (text(&found.reason), text(&found.message));
        return Some(new_condition("Failed", &reason, &message, now));
    }
    let failed =
        |reason: &str, message: &str| Some(new_condition(FAILURE_TARGET, reason, message, now));
    let failed_pods = mine.iter().filter(|pod| facts::is_failed(job, pod));
    if let Some(message) = failed_pods
        .into_iter()
        .find_map(|pod| policy::judge(job, pod).message)
    {
        return failed("PodFailurePolicy", &message);
    }
    let limit = spec(job).backoff_limit.unwrap_or(6);
    if facts.failed > limit || restarted_too_often(job, mine, limit) {
        let text = "Job has reached the specified backoff limit";
        return failed("BackoffLimitExceeded", text);
    }
    if deadline(job).is_some_and(|at| at <= now) {
        let text = "Job was active longer than specified deadline";
        return failed("DeadlineExceeded", text);
    }
    if !is_indexed(job) {
        return None;
    }
    if let Some(indexes) = &facts.failed_indexes {
        let total = indexes.total();
        if spec(job)
            .max_failed_indexes
            .is_some_and(|most| total > most)
        {
            let text = "Job has exceeded the specified maximal number of failed indexes";
            return failed("MaxFailedIndexesExceeded", text);
        }
        let all = total + facts.succeeded_indexes.total() >= facts::completions(job);
        if total > 0 && all {
            return failed("FailedIndexes", "Job has failed indexes");
        }
    }
    let message = policy::enough(job, &facts.succeeded_indexes)?;
    let met = new_condition(SUCCESS_CRITERIA_MET, "SuccessPolicy", &message, now);
    Some(met)
}

/// Containers restarted in their pods count too.
fn restarted_too_often(job: &Job, mine: &[Arc<Pod>], limit: i32) -> bool {
    let template = spec(job).template.spec.as_ref();
    if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let running = mine
        .iter()
        .filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let restarts: i32 = running
        .flat_map(|pod| &pod.status)
        .map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            let all = init.chain(status.container_statuses.iter().flatten());
            all.map(|status| status.restart_count).sum::<i32>()
        })
        .sum();
    if limit == 0 {
        restarts > 0
    } else {
        restarts >= limit
    }
}

/// Fits the number of pods to what is asked for. Pods that must go come before pods that must
/// come.
fn manage(job: &Job, mine: &[Arc<Pod>], now: Timestamp, plan: &mut Plan) {
    let facts = &plan.facts;
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let active = number(facts.active.len());
    if facts::is_suspended(job) {
        if active > 0 {
            plan.act = Act::Remove(surplus(job, &facts.active, facts.active.len()));
        }
        return;
    }
    let parallel = spec(job).parallelism.unwrap_or(1);
    let wanted = match spec(job).completions {
        // After the first success no more are started; those that run may end.
        None if facts.succeeded > 0 => active,
        None => parallel,
        Some(completions) => (completions - facts.succeeded).min(parallel).max(0),
    };
    let too_many = usize::try_from(active - wanted).unwrap_or(0);
    let mut surplus = surplus(job, &facts.active, too_many);
    if !surplus.is_empty() {
        surplus.truncate(BURST);
        plan.act = Act::Remove(surplus);
        return;
    }
    let waiting = if facts::waits_for_end(job) {
        facts.terminating
    } else {
        0
    };
    let Some(missing) = usize::try_from(wanted - waiting - active)
        .ok()
        .filter(|missing| *missing > 0)
    else {
        return;
    };
    let per_index = facts::is_per_index(job);
    if !per_index && let Some(until) = plan.backoff.blocked_until(now) {
        plan.look_again = Some(plan.look_again.map_or(until, |at| at.min(until)));
        return;
    }
    let missing = missing.min(BURST);
    if !is_indexed(job) {
        let pod = template::new_pod(job, None, None);
        plan.act = Act::Create(vec![pod; missing]);
        return;
    }
    let mut created = Vec::new();
    for index in pending(job, mine, facts, missing) {
        let held = facts.held.get(&index);
        let blocked = held.and_then(|pod| {
            let (failures, ignored) = facts::failures_before(pod);
            let failures = u32::try_from(failures + ignored + 1).unwrap_or(u32::MAX);
            backoff::blocked_until(failures, backoff::finished_at(pod), now)
        });
        match blocked.filter(|_| per_index) {
            Some(until) => {
                plan.look_again = Some(plan.look_again.map_or(until, |at| at.min(until)));
            }
            None => created.push(template::new_pod(job, Some(index), held)),
        }
    }
    if !created.is_empty() {
        plan.act = Act::Create(created);
    }
}

/// The first indexes that nobody works on and that are not done.
fn pending(job: &Job, mine: &[Arc<Pod>], facts: &Facts, count: usize) -> Vec<i32> {
    let mut taken = active_indexes(&facts.active).union(&facts.succeeded_indexes);
    if facts::waits_for_end(job) {
        let going = mine.iter().filter(|pod| pods::is_terminating(pod));
        taken = taken.with(going.filter_map(|pod| index_of(pod)));
    }
    if let Some(failed) = &facts.failed_indexes {
        taken = taken.union(failed);
    }
    taken.missing(facts::completions(job), count)
}

/// At least so many of the active pods: of each index all but one, those of no index the job has,
/// and then those that lose least.
fn surplus(job: &Job, active: &[Arc<Pod>], at_least: usize) -> Vec<Arc<Pod>> {
    let mut left: Vec<Arc<Pod>> = active.to_vec();
    left.sort_by_key(|pod| worth(pod));
    let mut surplus = Vec::new();
    if is_indexed(job) {
        let mut kept = Indexes::default();
        let mut stay = Vec::new();
        // The most worthy of an index comes last, and stays.
        for pod in left.into_iter().rev() {
            match facts::valid_index(job, &pod) {
                Some(index) if !kept.has(index) => {
                    kept.add(index);
                    stay.push(pod);
                }
                _ => surplus.push(pod),
            }
        }
        stay.reverse();
        left = stay;
    }
    let more = at_least.saturating_sub(surplus.len());
    surplus.extend(left.into_iter().take(more));
    surplus
}

/// What is lost with a pod: unbound before bound, pending before running, not ready before ready,
/// young before old (`controller.ActivePods`).
fn worth(pod: &Pod) -> impl Ord + use<> {
    let phase = match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        pods::node_name(pod).is_some(),
        phase,
        pods::is_ready(pod),
        pods::ready_since(pod).map(Reverse),
        Reverse(pods::restarts(pod)),
        created.map(Reverse),
        pod.metadata.uid.clone(),
    )
}
