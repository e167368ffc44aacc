//! What an autoscaler decides and reports: pure.

use std::sync::Arc;

use evenkeel_api::quantity::{Format, Quantity};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::behavior::{self, Bounds, Memory};
use crate::calculate::{self, Question, Target, Tolerances};
use crate::sample::{PodSample, SampleError};

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

/// One metric, calculated.
struct Proposal {
    replicas: i32,
    name: String,
    status: MetricStatus,
}

/// Why a metric could not be calculated: reason of ScalingActive and of the event, and text.
type Failure = (&'static str, String);

fn milli_text(milli: i64, format: Format) -> Text {
    // Memory is reported in whole bytes, CPU in thousandths.
    let value = match format {
        Format::BinarySi => Quantity::from_units(milli / 1000, Format::DecimalSi),
        _ => Quantity::from_milli(milli),
    };
    Text(value.to_string())
}

fn target_of(target: &MetricTarget) -> Result<Target, String> {
    if let Some(average) = &target.average_value {
        let value: Quantity = average.0.parse().map_err(|_| "invalid target".to_owned())?;
        return Ok(Target::Average(value.milli()));
    }
    if let Some(percent) = target.average_utilization {
        return Ok(Target::Utilization(percent));
    }
    let text = "invalid resource metric source: neither an average utilization target nor an \
                average value (usage) target was set";
    Err(text.to_owned())
}

fn proposal(
    seen: &Seen<'_>,
    spec: &MetricSpec,
    tolerances: Tolerances,
) -> Result<Proposal, Failure> {
    let (resource, container, target, reason, what) = match (spec.type_.as_str(), spec) {
        (
            "Resource",
            MetricSpec {
                resource: Some(source),
                ..
            },
        ) => (
            &source.name,
            None,
            &source.target,
            "FailedGetResourceMetric",
            "resource",
        ),
        (
            "ContainerResource",
            MetricSpec {
                container_resource: Some(source),
                ..
            },
        ) => (
            &source.name,
            Some(source.container.as_str()),
            &source.target,
            "FailedGetContainerResourceMetric",
            "container resource",
        ),
        // Refused by name: there is no source for these figures here.
        ("Pods", _) => {
            return Err(no_source(
                "FailedGetPodsMetric",
                "Pods",
                "custom.metrics.k8s.io",
            ));
        }
        ("Object", _) => {
            return Err(no_source(
                "FailedGetObjectMetric",
                "Object",
                "custom.metrics.k8s.io",
            ));
        }
        ("External", _) => {
            return Err(no_source(
                "FailedGetExternalMetric",
                "External",
                "external.metrics.k8s.io",
            ));
        }
        (other, _) => {
            let text = format!("unknown metric source type \"{other}\"");
            return Err(("InvalidMetricSourceType", text));
        }
    };
    let fail = |text: String| {
        (
            reason,
            format!(
                "failed to get {resource} {}: {text}",
                match target {
                    MetricTarget {
                        average_value: Some(_),
                        ..
                    } => "usage",
                    _ => "utilization",
                }
            ),
        )
    };
    if resource != "cpu" && resource != "memory" {
        let text =
            format!("no metrics known for resource \"{resource}\"; cpu and memory are measured");
        return Err(fail(text));
    }
    let samples = seen.samples.as_ref().map_err(|error| {
        fail(format!(
            "unable to get metrics for resource {resource}: {error}"
        ))
    })?;
    let question = Question {
        current: seen.replicas,
        target: target_of(target).map_err(fail)?,
        resource,
        container,
        tolerances,
        now: seen.now,
    };
    let found = calculate::replicas(&question, seen.pods, samples).map_err(fail)?;
    let name = match question.target {
        Target::Average(_) => format!("{resource} {what}"),
        Target::Utilization(_) => format!("{resource} {what} utilization (percentage of request)"),
    };
    let format = if resource == "memory" {
        Format::BinarySi
    } else {
        Format::DecimalSi
    };
    let current = MetricValueStatus {
        average_utilization: found.utilization,
        average_value: Some(milli_text(found.average, format)),
        value: None,
    };
    let mut status = MetricStatus {
        type_: spec.type_.clone(),
        ..MetricStatus::default()
    };
    match container {
        None => {
            status.resource = Some(ResourceMetricStatus {
                name: resource.clone(),
                current,
            });
        }
        Some(container) => {
            status.container_resource = Some(ContainerResourceMetricStatus {
                container: container.to_owned(),
                name: resource.clone(),
                current,
            });
        }
    }
    Ok(Proposal {
        replicas: found.replicas,
        name,
        status,
    })
}

fn no_source(reason: &'static str, kind: &str, group: &str) -> Failure {
    let text = format!("metrics of type {kind} are not supported: nothing serves {group} here");
    (reason, text)
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
        warnings: Vec::new(),
    };
    if memory.recommendations.is_empty() {
        // So that a restart does not scale down at once.
        memory.recommendations.push(behavior::Mark {
            replicas: seen.replicas,
            at: now,
        });
    }
    let (desired, reason) = if seen.replicas == 0 && min != 0 {
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
    } else if seen.replicas < min {
        let text = "Current number of replicas below Spec.MinReplicas";
        (min, text.to_owned())
    } else {
        match by_metrics(seen, &mut plan) {
            Some((proposed, name)) => normalized(seen, memory, &mut plan, proposed, &name, min),
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
    for metric in &metrics {
        match proposal(seen, metric, tolerances) {
            Ok(found) => {
                if best.as_ref().is_none_or(|best| found.replicas > best.0) {
                    best = Some((found.replicas, found.name));
                }
                statuses.push(found.status);
            }
            Err((reason, text)) => {
                plan.warnings.push((reason, text.clone()));
                first.get_or_insert((reason, text));
                invalid += 1;
            }
        }
    }
    plan.status.current_metrics = Some(statuses).filter(|all| !all.is_empty());
    if let Some((reason, text)) = first {
        // With some figures missing, up is safe and down is not.
        let shrinks = best.as_ref().is_none_or(|best| best.0 < seen.replicas);
        let whole = format!(
            "invalid metrics ({invalid} invalid out of {}), first error is: {text}",
            metrics.len()
        );
        plan.warnings.push(("FailedComputeMetricsReplicas", whole));
        if invalid >= metrics.len() || shrinks {
            let text = format!("the HPA was unable to compute the replica count: {text}");
            set_condition(&mut plan.status, "ScalingActive", false, reason, &text, now);
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
