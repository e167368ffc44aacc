//! What an autoscaler decides and reports: pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::behavior::{self, Bounds, Memory};
use crate::proposal::{Failure, proposal};
use crate::sample::{Figure, PodSample, SampleError};

/// Condition: the loop brought the target to zero, and will bring it back.
const SCALED_TO_ZERO: &str = "ScaledToZero";

/// What was seen.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The autoscaler.
    pub scaler: &'a HorizontalPodAutoscaler,
    /// `spec.replicas` of the scale.
    pub replicas: i32,
    /// `status.replicas` of the scale.
    pub running: i32,
    /// `status.selector` of the scale.
    pub selector: &'a str,
    /// The pods it selects.
    pub pods: &'a [Arc<Pod>],
    /// What they use.
    pub samples: &'a Result<Vec<PodSample>, SampleError>,
    /// What was read for each of its metrics.
    pub figures: &'a [Figure],
    /// Now.
    pub now: Timestamp,
}

/// What to do.
#[derive(Debug)]
pub struct Plan {
    /// Write this number to the scale, for this reason.
    pub rescale: Option<(i32, String)>,
    /// The status, before the outcome of the write is known.
    pub status: HorizontalPodAutoscalerStatus,
    /// What each metric asked for, as far as they were looked at.
    pub proposed: Vec<Option<i32>>,
    /// Warnings to tell: reason and message.
    pub warnings: Vec<(&'static str, String)>,
}

/// Sets a condition; the transition time moves with the status only.
pub fn set_condition(
    status: &mut HorizontalPodAutoscalerStatus,
    kind: &str,
    state: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let state = if state { "True" } else { "False" };
    let all = status.conditions.get_or_insert_with(Vec::new);
    let at = all.iter().position(|item| item.type_ == kind);
    let since = at.map(|at| &all[at]).filter(|item| item.status == state);
    let since = since.and_then(|item| item.last_transition_time.clone());
    let new = HorizontalPodAutoscalerCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: since.or(Some(Time(now))),
        observed_generation: None,
    };
    match at {
        Some(at) => all[at] = new,
        None => all.push(new),
    }
}

/// The status of an autoscaler whose target could not be read.
#[must_use]
pub fn unreadable(scaler: &HorizontalPodAutoscaler, why: &str, now: Timestamp) -> Plan {
    let mut status = scaler.status.clone().unwrap_or_default();
    let text = format!("the HPA controller was unable to get the target's current scale: {why}");
    set_condition(
        &mut status,
        "AbleToScale",
        false,
        "FailedGetScale",
        &text,
        now,
    );
    Plan {
        rescale: None,
        status,
        proposed: Vec::new(),
        warnings: vec![("FailedGetScale", why.to_owned())],
    }
}

/// Decides, and remembers what it recommended.
pub fn plan(seen: &Seen<'_>, memory: &mut Memory) -> Plan {
    let spec = &seen.scaler.spec;
    let now = seen.now;
    memory.forget(now);
    let mut status = seen.scaler.status.clone().unwrap_or_default();
    status.observed_generation = seen.scaler.metadata.generation;
    status.current_replicas = Some(seen.replicas);
    status.current_metrics = None;
    let text = "the HPA controller was able to get the target's current scale";
    set_condition(
        &mut status,
        "AbleToScale",
        true,
        "SucceededGetScale",
        text,
        now,
    );
    let min = spec.min_replicas.unwrap_or(1);
    let mut plan = Plan {
        rescale: None,
        status,
        proposed: Vec::new(),
        warnings: Vec::new(),
    };
    if memory.recommendations.is_empty() {
        // So that a restart does not scale down at once.
        memory.recommendations.push(behavior::Mark {
            replicas: seen.replicas,
            at: now,
        });
    }
    // Only what this loop brought to zero it brings back (KEP-2021); what a person did stays.
    let asleep = is_scaled_to_zero(&plan.status);
    let wakes = asleep && (min != 0 || has_figures_at_zero(seen.scaler));
    let (desired, reason) = if seen.replicas == 0 && !wakes {
        let text = "scaling is disabled since the replica count of the target is zero";
        set_condition(
            &mut plan.status,
            "ScalingActive",
            false,
            "ScalingDisabled",
            text,
            now,
        );
        plan.status.desired_replicas = 0;
        return plan;
    } else if seen.replicas > spec.max_replicas {
        let text = "Current number of replicas above Spec.MaxReplicas";
        (spec.max_replicas, text.to_owned())
    } else if seen.replicas != 0 && seen.replicas < min {
        let text = "Current number of replicas below Spec.MinReplicas";
        (min, text.to_owned())
    } else {
        match by_metrics(seen, &mut plan) {
            Some((proposed, name)) => {
                let (desired, reason) = normalized(seen, memory, &mut plan, proposed, &name, min);
                if seen.replicas == 0 && desired < min {
                    let text = "Current number of replicas below Spec.MinReplicas";
                    (min, text.to_owned())
                } else {
                    (desired, reason)
                }
            }
            None => {
                plan.status.desired_replicas = seen.replicas;
                return plan;
            }
        }
    };
    plan.status.desired_replicas = desired;
    if desired != seen.replicas {
        plan.rescale = Some((desired, reason));
    }
    plan
}

/// Object and external metrics have a value also where no pod runs.
#[must_use]
pub fn has_figures_at_zero(scaler: &HorizontalPodAutoscaler) -> bool {
    let metrics = scaler.spec.metrics.iter().flatten();
    metrics
        .into_iter()
        .any(|metric| matches!(metric.type_.as_str(), "Object" | "External"))
}

/// This loop brought it to zero, and nobody else.
fn is_scaled_to_zero(status: &HorizontalPodAutoscalerStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|found| found.type_ == SCALED_TO_ZERO && found.status == "True")
}

/// Says after a change whether it was this loop that brought it to zero.
pub fn set_scaled_to_zero(
    status: &mut HorizontalPodAutoscalerStatus,
    scaler: &HorizontalPodAutoscaler,
    from: i32,
    to: i32,
    now: Timestamp,
) {
    let min = scaler.spec.min_replicas.unwrap_or(1);
    let did = from > 0 && to == 0 && min == 0 && has_figures_at_zero(scaler);
    let (reason, text) = if did {
        (
            "ScaledToZero",
            "the HPA controller scaled the workload to zero",
        )
    } else {
        (
            "NotScaledToZero",
            "the HPA controller did not scale the workload to zero",
        )
    };
    set_condition(status, SCALED_TO_ZERO, did, reason, text, now);
}

/// The largest proposal; `None` when no decision can be made.
fn by_metrics(seen: &Seen<'_>, plan: &mut Plan) -> Option<(i32, String)> {
    let now = seen.now;
    if seen.selector.is_empty() {
        let text = "the HPA target's scale is missing a selector";
        set_condition(
            &mut plan.status,
            "ScalingActive",
            false,
            "InvalidSelector",
            text,
            now,
        );
        plan.warnings
            .push(("SelectorRequired", "selector is required".to_owned()));
        return None;
    }
    let tolerances = behavior::tolerances(seen.scaler.spec.behavior.as_ref());
    let metrics = seen.scaler.spec.metrics.clone().unwrap_or_default();
    let mut best: Option<(i32, String)> = None;
    let mut first: Option<Failure> = None;
    let mut invalid = 0;
    let mut statuses = Vec::new();
    for (index, metric) in metrics.iter().enumerate() {
        match proposal(seen, metric, seen.figures.get(index), tolerances) {
            Ok(found) => {
                plan.proposed.push(Some(found.replicas));
                if best.as_ref().is_none_or(|best| found.replicas > best.0) {
                    best = Some((found.replicas, found.name));
                }
                statuses.push(found.status);
            }
            Err(failure) => {
                plan.proposed.push(None);
                plan.warnings.push((failure.reason, failure.text.clone()));
                first.get_or_insert(failure);
                invalid += 1;
            }
        }
    }
    plan.status.current_metrics = Some(statuses).filter(|all| !all.is_empty());
    if let Some(Failure {
        reason,
        text,
        before,
    }) = first
    {
        // With some figures missing, up is safe and down is not.
        let shrinks = best.as_ref().is_none_or(|best| best.0 < seen.replicas);
        let whole = format!(
            "invalid metrics ({invalid} invalid out of {}), first error is: {before}{text}",
            metrics.len()
        );
        if invalid >= metrics.len() || shrinks {
            let text = format!("the HPA was unable to compute the replica count: {text}");
            set_condition(&mut plan.status, "ScalingActive", false, reason, &text, now);
            plan.warnings.push(("FailedComputeMetricsReplicas", whole));
            return None;
        }
    }
    let (replicas, name) = best?;
    let text = format!("the HPA was able to successfully calculate a replica count from {name}");
    set_condition(
        &mut plan.status,
        "ScalingActive",
        true,
        "ValidMetricFound",
        &text,
        now,
    );
    Some((replicas, name))
}

fn normalized(
    seen: &Seen<'_>,
    memory: &mut Memory,
    plan: &mut Plan,
    proposed: i32,
    name: &str,
    min: i32,
) -> (i32, String) {
    let now = seen.now;
    let spec = &seen.scaler.spec;
    let rules = spec.behavior.as_ref();
    let stable = behavior::stabilize(memory, rules, seen.replicas, proposed, now);
    let status = &mut plan.status;
    if stable.replicas == proposed {
        let text = "recommended size matches current size";
        set_condition(status, "AbleToScale", true, "ReadyForNewScale", text, now);
    } else {
        set_condition(
            status,
            "AbleToScale",
            true,
            stable.reason,
            stable.message,
            now,
        );
    }
    let bounds = Bounds {
        min,
        max: spec.max_replicas,
        current: seen.replicas,
    };
    let limited = behavior::limit(memory, rules, bounds, stable.replicas, now);
    let is_limited = limited.replicas != stable.replicas;
    set_condition(
        status,
        "ScalingLimited",
        is_limited,
        limited.reason,
        limited.message,
        now,
    );
    let reason = if proposed > seen.replicas {
        format!("{name} above target")
    } else {
        "All metrics below target".to_owned()
    };
    (limited.replicas, reason)
}
