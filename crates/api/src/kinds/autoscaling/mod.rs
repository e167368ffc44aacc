//! Horizontal pod autoscalers and the scale of other kinds.

pub mod v1;

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError};
use crate::kinds::pod::container_resource_name;
use crate::names;
use crate::object::{self, child, default_field, fields, list, text};
use crate::quantity::Quantity;
use crate::row::Strategy;
use crate::validation::{self, Cursor, NEGATIVE, nonnegative};

const DEFAULT_UTILIZATION: i64 = 80;
const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;
/// Metric types and the fields that carry them, in the reference's order of fields.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: [&str; 5] = [
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];
/// A table shows this many metrics.
const SHOWN: usize = 2;

/// What autoscalers do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Autoscalers;

/// What a scale, the body of a subresource, is checked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scales;

impl Strategy for Scales {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        nonnegative(&Cursor::root(object).child("spec"), "replicas", &mut out);
        out
    }
}

impl Strategy for Autoscalers {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        default_field(spec, "minReplicas", 1);
        if list(spec, &["metrics"]).is_empty() {
            let metrics = json!([{
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": DEFAULT_UTILIZATION},
                },
            }]);
            fields(spec).insert("metrics".to_owned(), metrics);
        }
        if let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) {
            let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
            let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
            let up = child(behavior, "scaleUp");
            default_field(up, "stabilizationWindowSeconds", 0);
            default_field(up, "selectPolicy", "Max");
            default_field(up, "policies", json!([pods, percent]));
            let down = child(behavior, "scaleDown");
            default_field(down, "selectPolicy", "Max");
            default_field(down, "policies", json!([percent]));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        fields(object).insert("status".to_owned(), json!({"desiredReplicas": 0}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        autoscaler(&Cursor::root(object).child("spec"), &mut out);
        api_versions(object, None, &mut out);
        out
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        autoscaler(&Cursor::root(new).child("spec"), &mut out);
        api_versions(new, Some(old), &mut out);
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("status");
        nonnegative(&at, "currentReplicas", &mut out);
        nonnegative(&at, "desiredReplicas", &mut out);
        out
    }
}

fn autoscaler(spec: &Cursor<'_>, out: &mut ErrorList) {
    let (min, max) = (spec.integer("minReplicas"), spec.number("maxReplicas"));
    nonnegative(spec, "minReplicas", out);
    if min.is_some_and(|min| max < min) {
        out.push(FieldError::invalid(
            &spec.at("maxReplicas"),
            max,
            "must be greater than or equal to `minReplicas`",
        ));
    }
    target_reference(&spec.child("scaleTargetRef"), out);
    for at in spec.items("metrics") {
        metric(&at, out);
    }
    // Without pods only these have a value.
    let elsewhere = |at: Cursor<'_>| ["Object", "External"].contains(&at.text("type"));
    if min == Some(0) && !spec.items("metrics").any(elsewhere) {
        out.push(FieldError::forbidden(
            &spec.at("metrics"),
            "must specify at least one Object or External metric to support scaling to zero \
             replicas",
        ));
    }
    for name in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.child("behavior").get(name) {
            scaling_rules(&rules, out);
        }
    }
    match max {
        0 => out.push(FieldError::required(&spec.at("maxReplicas"), "").declared()),
        ..0 => {
            let detail = "must be greater than or equal to 1";
            out.push(FieldError::invalid(&spec.at("maxReplicas"), max, detail).declared());
        }
        _ => {}
    }
}

/// Checks the versions of what is referred to. Those that were wrong before the reference looked at
/// them may stay.
fn api_versions(new: &Value, old: Option<&Value>, out: &mut ErrorList) {
    let spec = Cursor::root(new).child("spec");
    let before = old.map(|old| Cursor::root(old).child("spec"));
    let target = spec.child("scaleTargetRef");
    let same = before.as_ref().is_some_and(|before| {
        let before = before.child("scaleTargetRef");
        ["apiVersion", "kind"]
            .iter()
            .all(|name| before.text(name) == target.text(name))
    });
    if !same {
        // The only kind without a group that can be scaled.
        let may_lack_group = target.text("kind") == "ReplicationController";
        api_version(&target, may_lack_group, out);
    }
    let described = |spec: &Cursor<'_>, out: &mut ErrorList| {
        for metric in spec.items("metrics") {
            if let Some(object) = metric.get("object") {
                api_version(&object.child("describedObject"), true, out);
            }
        }
    };
    let mut wrong_before = ErrorList::new();
    if let Some(before) = &before {
        described(before, &mut wrong_before);
    }
    if wrong_before.is_empty() {
        described(&spec, out);
    }
}

fn api_version(at: &Cursor<'_>, may_lack_group: bool, out: &mut ErrorList) {
    let version = at.text("apiVersion");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let wrong = if version.matches('/').count() > 1 {
        format!("unexpected GroupVersion string: {version}")
    } else if group.is_empty() && !may_lack_group {
        "apiVersion must specify API group".to_owned()
    } else {
        return;
    };
    out.push(FieldError::invalid(&at.at("apiVersion"), version, &wrong));
}

fn target_reference(at: &Cursor<'_>, out: &mut ErrorList) {
    for name in ["kind", "name"] {
        if at.text(name).is_empty() {
            out.push(FieldError::required(&at.at(name), ""));
        } else {
            validation::named(names::path_segment, at.text(name), &at.at(name), out);
        }
    }
}

fn metric(at: &Cursor<'_>, out: &mut ErrorList) {
    let kind = at.text("type");
    if kind.is_empty() {
        out.push(FieldError::required(
            &at.at("type"),
            "must specify a metric source type",
        ));
    }
    if !TYPES.contains(&kind) {
        out.push(FieldError::not_supported(&at.at("type"), kind, &TYPES));
    }
    let present: Vec<&str> = SOURCES
        .iter()
        .map(|(_, field)| *field)
        .filter(|field| at.has(field))
        .collect();
    if let Some(field) = present.first() {
        source(&at.child(field), field, out);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind);
    match expected {
        Some((_, field)) if !at.has(field) => out.push(FieldError::required(
            &at.at(field),
            "must populate information for the given metric source",
        )),
        None => out.push(FieldError::not_supported(&at.at("type"), kind, &TYPES)),
        Some(_) => {}
    }
    if present.len() > 1 {
        for field in present {
            if expected.is_none_or(|(_, wanted)| *wanted != field) {
                out.push(FieldError::forbidden(
                    &at.at(field),
                    "must populate the given metric source only",
                ));
            }
        }
    }
}

fn source(at: &Cursor<'_>, field: &str, out: &mut ErrorList) {
    let target = at.child("target");
    match field {
        "object" => {
            target_reference(&at.child("describedObject"), out);
            identifier(at, out);
        }
        "external" | "pods" => identifier(at, out),
        _ => {
            if at.text("name").is_empty() {
                out.push(FieldError::required(
                    &at.at("name"),
                    "must specify a resource name",
                ));
            }
            if field == "containerResource" {
                if !at.text("name").is_empty() {
                    container_resource_name(at.text("name"), &at.at("name"), out);
                }
                if at.text("container").is_empty() {
                    out.push(FieldError::required(
                        &at.at("container"),
                        "must specify a container",
                    ));
                } else {
                    validation::dns_label(at.text("container"), &at.at("container"), out);
                }
            }
        }
    }
    metric_target(&target, out);
    let (value, average) = (target.has("value"), target.has("averageValue"));
    let missing = match field {
        "object" if !value && !average => Some("must set either a target value or averageValue"),
        "external" if !value && !average => {
            Some("must set either a target value for metric or a per-pod target")
        }
        "pods" if !average => Some("must specify a positive target averageValue"),
        _ => None,
    };
    if let Some(detail) = missing {
        out.push(FieldError::required(&target.at("averageValue"), detail));
    }
    if field == "external" && value && average {
        out.push(FieldError::forbidden(
            &target.at("value"),
            "may not set both a target value for metric and a per-pod target",
        ));
    }
    if matches!(field, "resource" | "containerResource") {
        match (target.has("averageUtilization"), average) {
            (false, false) => out.push(FieldError::required(
                &target.at("averageUtilization"),
                "must set either a target raw value or a target utilization",
            )),
            (true, true) => out.push(FieldError::forbidden(
                &target.at("averageValue"),
                "may not set both a target raw value and a target utilization",
            )),
            _ => {}
        }
    }
}

fn identifier(at: &Cursor<'_>, out: &mut ErrorList) {
    let metric = at.child("metric");
    if metric.text("name").is_empty() {
        out.push(FieldError::required(
            &metric.at("name"),
            "must specify a metric name",
        ));
    } else {
        validation::named(
            names::path_segment,
            metric.text("name"),
            &metric.at("name"),
            out,
        );
    }
}

fn metric_target(at: &Cursor<'_>, out: &mut ErrorList) {
    let kind = at.text("type");
    if kind.is_empty() {
        out.push(FieldError::required(
            &at.at("type"),
            "must specify a metric target type",
        ));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        out.push(FieldError::invalid(
            &at.at("type"),
            kind,
            "must be either Utilization, Value, or AverageValue",
        ));
    }
    for name in ["value", "averageValue"] {
        let amount = at.text(name).parse::<Quantity>();
        if amount.is_ok_and(|amount| amount.is_zero() || amount.is_negative()) {
            out.push(FieldError::invalid(
                &at.at(name),
                at.text(name),
                "must be positive",
            ));
        }
    }
    if let Some(percent) = at.integer("averageUtilization").filter(|value| *value < 1) {
        out.push(FieldError::invalid(
            &at.at("averageUtilization"),
            percent,
            "must be greater than 0",
        ));
    }
}

fn scaling_rules(at: &Cursor<'_>, out: &mut ErrorList) {
    if let Some(window) = at.integer("stabilizationWindowSeconds") {
        let wrong = if window < 0 {
            Some("must be greater than or equal to zero".to_owned())
        } else if window > WINDOW_MAX {
            Some(format!("must be less than or equal to {WINDOW_MAX}"))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            out.push(FieldError::invalid(
                &at.at("stabilizationWindowSeconds"),
                window,
                &wrong,
            ));
        }
    }
    validation::one_of(at, "selectPolicy", &["Disabled", "Max", "Min"], out);
    if at.list("policies").is_empty() {
        out.push(FieldError::required(
            &at.at("policies"),
            "must specify at least one Policy",
        ));
    }
    for policy in at.items("policies") {
        let kind = policy.text("type");
        if !["Percent", "Pods"].contains(&kind) {
            out.push(FieldError::not_supported(
                &policy.at("type"),
                kind,
                &["Percent", "Pods"],
            ));
        }
        for name in ["value", "periodSeconds"] {
            if policy.number(name) <= 0 {
                out.push(FieldError::invalid(
                    &policy.at(name),
                    policy.number(name),
                    "must be greater than zero",
                ));
            }
        }
        let period = policy.number("periodSeconds");
        if period > PERIOD_MAX {
            out.push(FieldError::invalid(
                &policy.at("periodSeconds"),
                period,
                &format!("must be less than or equal to {PERIOD_MAX}"),
            ));
        }
    }
    let tolerance = at.text("tolerance").parse::<Quantity>();
    if let Some(tolerance) = tolerance.ok().filter(Quantity::is_negative) {
        out.push(FieldError::invalid(
            &at.at("tolerance"),
            tolerance.to_string(),
            NEGATIVE,
        ));
    }
}

/// `cpu: 5%/70%, memory: 20%/80%`: every metric's observed and wanted value.
pub(super) fn targets_text(object: &Value) -> Value {
    let metrics = list(object, &["spec", "metrics"]);
    if metrics.is_empty() {
        return "<none>".into();
    }
    let observed = list(object, &["status", "currentMetrics"]);
    let mut parts: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(index, metric)| target_text(metric, observed.get(index)))
        .collect();
    let more = parts.len().saturating_sub(SHOWN);
    parts.truncate(SHOWN);
    let shown = parts.join(", ");
    if more > 0 {
        format!("{shown} + {more} more...").into()
    } else {
        shown.into()
    }
}

fn target_text(metric: &Value, observed: Option<&Value>) -> String {
    let kind = text(metric, &["type"]);
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return "<unknown type>".to_owned();
    };
    let current = |name: &str| -> Option<String> {
        match object::at(observed?, &[field, "current", name])? {
            Value::String(amount) => Some(amount.clone()),
            Value::Number(number) => Some(format!("{number}%")),
            _ => None,
        }
    };
    let unknown = || "<unknown>".to_owned();
    let target = |name: &str| text(metric, &[field, "target", name]);
    let average = target("averageValue");
    let values = match kind {
        "Resource" | "ContainerResource" if average.is_empty() => {
            let wanted = object::integer(metric, &[field, "target", "averageUtilization"])
                .map_or_else(|| "<auto>".to_owned(), |percent| format!("{percent}%"));
            format!(
                "{}/{wanted}",
                current("averageUtilization").unwrap_or_else(unknown)
            )
        }
        "External" | "Object" if average.is_empty() => format!(
            "{}/{}",
            current("value").unwrap_or_else(unknown),
            target("value")
        ),
        _ => format!(
            "{}/{average}",
            current("averageValue").unwrap_or_else(unknown)
        ),
    };
    match kind {
        "Resource" | "ContainerResource" => {
            format!("{}: {values}", text(metric, &[field, "name"]))
        }
        "External" | "Object" if !average.is_empty() => format!("{values} (avg)"),
        _ => values,
    }
}
