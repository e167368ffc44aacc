//! What keeps pods running: defaults, validation, what may change. Deployments and replica sets are
//! here with what all of them share; the others have modules of their own.

mod controller_revision;
mod daemon_set;
mod replication_controller;
mod stateful_set;

use serde_json::{Value, json};

pub use controller_revision::ControllerRevisions;
pub use daemon_set::DaemonSets;
pub(in crate::kinds) use replication_controller::name_warning;
pub use replication_controller::{PodTemplates, ReplicationControllers};
pub use stateful_set::StatefulSets;

use super::pod;
use crate::field::{ErrorList, FieldError};
use crate::object::{self, child, default_field, fields};
use crate::row::Strategy;
use crate::validation::{self, Cursor, label_selector, nonnegative, selects, text};

const OVER_REPLICAS: &str = "cannot be greater than status.replicas";

/// What deployments do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deployments;

/// What replica sets do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplicaSets;

/// Warnings about a template that is new.
fn template_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let template = |object: &Value| object::at(object, &["spec", "template"]).cloned();
    if old.is_some_and(|old| template(old) == template(new)) {
        return Vec::new();
    }
    pod::warnings_of(&Cursor::root(new).child("spec").child("template"))
}

/// Warnings about an object whose pods are named after it.
fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    if old.is_none() {
        name_warning(object::name(new), &mut out);
    }
    out.extend(template_warnings(new, old));
    out
}

/// Checks the selector and the template that it must match.
fn selector_and_template(spec: &Cursor<'_>, out: &mut ErrorList) {
    let selector = spec.child("selector");
    if selector.value.is_null() {
        out.push(FieldError::required(&selector.path, ""));
    } else {
        label_selector(&selector, out);
        let labels = selector.entries("matchLabels").next();
        if labels.is_none() && selector.list("matchExpressions").is_empty() {
            out.push(FieldError::invalid(
                &selector.path,
                selector.value.clone(),
                "empty selector is invalid for deployment",
            ));
        }
    }
    let template = spec.child("template");
    let meta = template.child("metadata");
    match convertible(&selector).then(|| selects(selector.value, meta.raw("labels"))) {
        None | Some(None) => {
            out.push(FieldError::invalid(
                &selector.path,
                selector.value.clone(),
                "invalid label selector",
            ));
            return;
        }
        // A missing selector matches nothing, also not the template.
        Some(Some(false)) => out.push(FieldError::invalid(
            &meta.at("labels"),
            meta.raw("labels").clone(),
            "`selector` does not match template `labels`",
        )),
        Some(Some(true)) => {}
    }
    pod::validate_template(&template, out);
    always_restarts(&template, "ReplicaSet", out);
}

/// Checks that the pods of a template never end by themselves.
fn always_restarts(template: &Cursor<'_>, kind: &str, out: &mut ErrorList) {
    let pod_spec = template.child("spec");
    let policy = pod_spec.text("restartPolicy");
    if policy != "Always" {
        out.push(FieldError::not_supported(
            &pod_spec.at("restartPolicy"),
            policy,
            &["Always"],
        ));
    }
    if pod_spec.has("activeDeadlineSeconds") {
        out.push(FieldError::forbidden(
            &pod_spec.at("activeDeadlineSeconds"),
            &format!("activeDeadlineSeconds in {kind} is not Supported"),
        ));
    }
}

/// Can a selector be turned into one that matches, as the reference's conversion decides?
pub(in crate::kinds) fn convertible(selector: &Cursor<'_>) -> bool {
    let labels_good = selector.entries("matchLabels").all(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        crate::names::qualified_name(key).is_empty() && crate::names::label_value(value).is_empty()
    });
    labels_good
        && selector.items("matchExpressions").all(|expression| {
            let values = expression.list("values").len();
            let shape = match expression.text("operator") {
                "In" | "NotIn" => values > 0,
                "Exists" | "DoesNotExist" => values == 0,
                _ => false,
            };
            shape && crate::names::qualified_name(expression.text("key")).is_empty()
        })
}

fn immutable_selector(new: &Value, old: &Value, out: &mut ErrorList) {
    let at = Cursor::root(new).child("spec").child("selector");
    let before = Cursor::root(old).child("spec").child("selector");
    validation::immutable(at.value, before.value, &at.path, out);
}

/// Checks that a field is a number that is not negative, or a percentage.
pub(in crate::kinds) fn int_or_percent(at: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    match at.raw(name) {
        Value::String(value) => validation::named(text::percent, value, &at.at(name), out),
        _ => nonnegative(at, name, out),
    }
}

fn int_or_percent_value(at: &Cursor<'_>, name: &str) -> i64 {
    match at.raw(name) {
        Value::String(value) => text::percent_value(value).unwrap_or_default(),
        other => other.as_i64().unwrap_or_default(),
    }
}

/// Checks that a percentage is not above 100.
pub(in crate::kinds) fn not_above_100_percent(at: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    if at.raw(name).is_string() && int_or_percent_value(at, name) > 100 {
        out.push(FieldError::invalid(
            &at.at(name),
            at.raw(name).clone(),
            "must not be greater than 100%",
        ));
    }
}

fn strategy(spec: &Cursor<'_>, out: &mut ErrorList) {
    let at = spec.child("strategy");
    let rolling = at.child("rollingUpdate");
    match at.text("type") {
        "Recreate" => {
            if at.has("rollingUpdate") {
                out.push(FieldError::forbidden(
                    &rolling.path,
                    "may not be specified when strategy `type` is 'Recreate'",
                ));
            }
        }
        "RollingUpdate" => {
            int_or_percent(&rolling, "maxUnavailable", out);
            int_or_percent(&rolling, "maxSurge", out);
            let unavailable = int_or_percent_value(&rolling, "maxUnavailable");
            if unavailable == 0 && int_or_percent_value(&rolling, "maxSurge") == 0 {
                out.push(FieldError::invalid(
                    &rolling.at("maxUnavailable"),
                    rolling.raw("maxUnavailable").clone(),
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
            not_above_100_percent(&rolling, "maxUnavailable", out);
        }
        other => {
            // The reference shows the whole strategy in Go's names.
            let shown = format!(
                "{{\"Type\":{},\"RollingUpdate\":{}}}",
                Value::from(other),
                if rolling.value.is_null() {
                    "null".to_owned()
                } else {
                    format!(
                        "{{\"MaxUnavailable\":{},\"MaxSurge\":{}}}",
                        rolling.raw("maxUnavailable"),
                        rolling.raw("maxSurge")
                    )
                }
            );
            out.push(FieldError::not_supported_shown(
                &at.path,
                &shown,
                &["Recreate", "RollingUpdate"],
            ));
        }
    }
}

impl Strategy for Deployments {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        default_field(spec, "replicas", 1);
        pod::template_defaults(child(spec, "template"));
        let strategy = child(spec, "strategy");
        default_field(strategy, "type", "RollingUpdate");
        if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate") {
            let rolling = child(strategy, "rollingUpdate");
            default_field(rolling, "maxUnavailable", "25%");
            default_field(rolling, "maxSurge", "25%");
        }
        default_field(spec, "revisionHistoryLimit", 10);
        default_field(spec, "progressDeadlineSeconds", 600);
    }

    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        let labels = object::at(old, &["metadata", "labels"]).cloned();
        object::set_or_remove(object::metadata(new), "labels", labels);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        nonnegative(&spec, "replicas", &mut out);
        selector_and_template(&spec, &mut out);
        strategy(&spec, &mut out);
        nonnegative(&spec, "minReadySeconds", &mut out);
        nonnegative(&spec, "revisionHistoryLimit", &mut out);
        nonnegative(&spec, "progressDeadlineSeconds", &mut out);
        if let Some(deadline) = spec
            .integer("progressDeadlineSeconds")
            .filter(|deadline| *deadline <= spec.number("minReadySeconds"))
        {
            out.push(FieldError::invalid(
                &spec.at("progressDeadlineSeconds"),
                deadline,
                "must be greater than minReadySeconds",
            ));
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        immutable_selector(new, old, &mut out);
        out
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("status");
        for name in [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ] {
            nonnegative(&at, name, &mut out);
        }
        counts(&at, "updatedReplicas", &mut out);
        not_decremented(&at, &Cursor::root(old).child("status"), &mut out);
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        self::warnings(new, old)
    }

    fn bumps_generation(&self, new: &Value, old: &Value) -> bool {
        // The controller copies annotations to the replica sets, so that they count.
        let part = |object, path| object::at(object, path).cloned();
        [&["spec"] as &[&str], &["metadata", "annotations"]]
            .into_iter()
            .any(|path| part(new, path) != part(old, path))
    }
}

/// Checks that hash collisions only add up.
fn not_decremented(at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) {
    if before
        .integer("collisionCount")
        .is_some_and(|count| at.number("collisionCount") < count || !at.has("collisionCount"))
    {
        out.push(FieldError::invalid(
            &at.at("collisionCount"),
            at.number("collisionCount"),
            "cannot be decremented",
        ));
    }
}

fn not_above(at: &Cursor<'_>, name: &str, limit: &str, detail: &str, out: &mut ErrorList) {
    if at.number(name) > at.number(limit) {
        out.push(FieldError::invalid(&at.at(name), at.number(name), detail));
    }
}

fn counts(at: &Cursor<'_>, first: &str, out: &mut ErrorList) {
    for name in [first, "readyReplicas", "availableReplicas"] {
        if at.number(name) > at.number("replicas") {
            out.push(FieldError::invalid(
                &at.at(name),
                at.number(name),
                OVER_REPLICAS,
            ));
        }
    }
    if at.number("availableReplicas") > at.number("readyReplicas") {
        out.push(FieldError::invalid(
            &at.at("availableReplicas"),
            at.number("availableReplicas"),
            "cannot be greater than readyReplicas",
        ));
    }
}

impl Strategy for ReplicaSets {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        default_field(spec, "replicas", 1);
        pod::template_defaults(child(spec, "template"));
    }

    fn prepare_create(&self, object: &mut Value) {
        fields(object).insert("status".to_owned(), json!({"replicas": 0}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        nonnegative(&spec, "replicas", &mut out);
        nonnegative(&spec, "minReadySeconds", &mut out);
        selector_and_template(&spec, &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        immutable_selector(new, old, &mut out);
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("status");
        for name in [
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "terminatingReplicas",
            "observedGeneration",
        ] {
            nonnegative(&at, name, &mut out);
        }
        counts(&at, "fullyLabeledReplicas", &mut out);
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        self::warnings(new, old)
    }
}
