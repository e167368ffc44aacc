//! What one metric of an autoscaler asks for, and what is said where it can't be told: pure. The
//! texts are those of the reference's `horizontal.go`.

use evenkeel_api::quantity::{Format, Quantity};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::calculate::{self, Question, Target, Tolerances};
use crate::plan::Seen;
use crate::sample::Figure;

/// One metric, calculated.
pub(crate) struct Proposal {
    pub(crate) replicas: i32,
    pub(crate) name: String,
    pub(crate) status: MetricStatus,
}

/// Why a metric could not be calculated.
pub(crate) struct Failure {
    /// Of ScalingActive and of the event.
    pub(crate) reason: &'static str,
    /// What both say.
    pub(crate) text: String,
    /// What comes before it where all metrics are spoken of.
    pub(crate) before: String,
}

/// A selector as Go prints it.
fn printed(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return "nil".to_owned();
    };
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels
        .map(|(key, value)| format!("{key}: {value},"))
        .collect();
    let term = |term: &LabelSelectorRequirement| {
        let values = term.values.clone().unwrap_or_default().join(" ");
        format!(
            "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},",
            term.key, term.operator
        )
    };
    let terms: String = selector
        .match_expressions
        .iter()
        .flatten()
        .map(term)
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"
    )
}

fn milli_of(text: &Text) -> Result<i64, String> {
    let value: Result<Quantity, _> = text.0.parse();
    value
        .map(|value| value.milli())
        .map_err(|_| "invalid target".to_owned())
}

fn decimal(milli: i64) -> Text {
    milli_text(milli, Format::DecimalSi)
}

/// A metric that is not the pods' CPU or memory.
fn other(
    seen: &Seen<'_>,
    spec: &MetricSpec,
    figure: Option<&Figure>,
    tolerances: Tolerances,
) -> Result<Proposal, Failure> {
    let namespace = seen
        .scaler
        .metadata
        .namespace
        .as_deref()
        .unwrap_or_default();
    let mut status = MetricStatus {
        type_: spec.type_.clone(),
        ..MetricStatus::default()
    };
    let value = |milli: i64| MetricValueStatus {
        value: Some(decimal(milli)),
        ..MetricValueStatus::default()
    };
    let average = |milli: i64| MetricValueStatus {
        average_value: Some(decimal(milli)),
        ..MetricValueStatus::default()
    };
    match (spec, figure) {
        (
            MetricSpec {
                pods: Some(source), ..
            },
            Some(Figure::Pods(found)),
        ) => {
            let metric = &source.metric.name;
            let fail = |text: String| Failure {
                reason: "FailedGetPodsMetric",
                text,
                before: "failed to get pods metric value: ".to_owned(),
            };
            let values = found.clone();
            let values =
                values.map_err(|error| fail(format!("unable to get metric {metric}: {error}")))?;
            let target = source.target.average_value.as_ref();
            let target = target.ok_or_else(|| fail("invalid target".to_owned()))?;
            let question = Question {
                current: seen.replicas,
                target: Target::Average(milli_of(target).map_err(fail)?),
                resource: "",
                container: None,
                tolerances,
                now: seen.now,
            };
            let found = calculate::of_pods(&question, seen.pods, values).map_err(fail)?;
            status.pods = Some(PodsMetricStatus {
                metric: source.metric.clone(),
                current: average(found.average),
            });
            let name = format!("pods metric {metric}");
            Ok(Proposal {
                replicas: found.replicas,
                name,
                status,
            })
        }
        (
            MetricSpec {
                object: Some(source),
                ..
            },
            Some(Figure::Object(found)),
        ) => {
            let (metric, object) = (&source.metric.name, &source.described_object);
            let target = (&source.target.value, &source.target.average_value);
            let before = match target {
                (None, Some(_)) => format!(
                    "failed to get object metric value: failed to get {metric} object metric: "
                ),
                _ => "failed to get object metric value: ".to_owned(),
            };
            let fail = |text: String| Failure {
                reason: "FailedGetObjectMetric",
                text,
                before: before.clone(),
            };
            let usage = found.clone().map_err(|error| {
                let (kind, name) = (&object.kind, &object.name);
                fail(format!(
                    "unable to get metric {metric} on {kind} {namespace}/{name}: {error}"
                ))
            });
            let (replicas, name, current) = match target {
                (Some(target), _) if source.target.type_ == "Value" => {
                    let target = milli_of(target).map_err(fail)?;
                    let usage = usage?;
                    let replicas =
                        calculate::of_value(seen.replicas, usage, target, tolerances, seen.pods);
                    let name = format!("{} metric {metric}", object.kind);
                    (replicas.map_err(fail)?, name, value(usage))
                }
                (_, Some(target)) if source.target.type_ == "AverageValue" => {
                    let target = milli_of(target).map_err(fail)?;
                    let (replicas, each) =
                        calculate::per_pod(seen.running, usage?, target, tolerances);
                    let selector = printed(source.metric.selector.as_ref());
                    let name = format!("external metric {metric}({selector})");
                    (replicas, name, average(each))
                }
                _ => {
                    let text = "invalid object metric source: neither a value target nor an average \
                                value target was set";
                    return Err(fail(text.to_owned()));
                }
            };
            status.object = Some(ObjectMetricStatus {
                metric: source.metric.clone(),
                described_object: object.clone(),
                current,
            });
            Ok(Proposal {
                replicas,
                name,
                status,
            })
        }
        (
            MetricSpec {
                external: Some(source),
                ..
            },
            Some(Figure::External(found)),
        ) => {
            let metric = &source.metric.name;
            let selector = printed(source.metric.selector.as_ref());
            let kind = match source.target.average_value {
                Some(_) => format!("{metric} external metric"),
                None => format!("external metric {metric}"),
            };
            let fail = |text: String| Failure {
                reason: "FailedGetExternalMetric",
                text,
                before: format!(
                    "failed to get {metric} external metric value: failed to get {kind}: "
                ),
            };
            let usage = found
                .as_ref()
                .map(|all| all.iter().fold(0i64, |sum, one| sum.saturating_add(*one)))
                .map_err(|error| {
                    fail(format!(
                        "unable to get external metric {namespace}/{metric}/{selector}: {error}"
                    ))
                });
            let (replicas, current) = match (&source.target.average_value, &source.target.value) {
                (Some(target), _) => {
                    let target = milli_of(target).map_err(fail)?;
                    let (replicas, each) =
                        calculate::per_pod(seen.running, usage?, target, tolerances);
                    (replicas, average(each))
                }
                (None, Some(target)) => {
                    let target = milli_of(target).map_err(fail)?;
                    let usage = usage?;
                    let replicas =
                        calculate::of_value(seen.replicas, usage, target, tolerances, seen.pods);
                    (replicas.map_err(fail)?, value(usage))
                }
                (None, None) => {
                    let text = "invalid external metric source: neither a value target nor an \
                                average value target was set";
                    return Err(fail(text.to_owned()));
                }
            };
            status.external = Some(ExternalMetricStatus {
                metric: source.metric.clone(),
                current,
            });
            let name = format!("external metric {metric}({selector})");
            Ok(Proposal {
                replicas,
                name,
                status,
            })
        }
        (MetricSpec { type_, .. }, _) => Err(Failure {
            reason: "InvalidMetricSourceType",
            text: format!("unknown metric source type \"{type_}\""),
            before: String::new(),
        }),
    }
}

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

/// What one metric asks for.
pub(crate) fn proposal(
    seen: &Seen<'_>,
    spec: &MetricSpec,
    figure: Option<&Figure>,
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
        _ => return other(seen, spec, figure, tolerances),
    };
    let fail = |text: String| {
        let kind = match target {
            MetricTarget {
                average_value: Some(_),
                ..
            } => "usage",
            _ => "utilization",
        };
        Failure {
            reason,
            text: format!("failed to get {resource} {kind}: {text}"),
            before: match container {
                Some(container) => format!("failed to get {container} container metric value: "),
                None => format!("failed to get {resource} resource metric value: "),
            },
        }
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
