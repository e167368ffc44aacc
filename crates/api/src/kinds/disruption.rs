//! Pod disruption budgets and priority classes: what says which pod has to go, and which may stay.

use serde_json::{Value, json};

use super::workloads::{int_or_percent, not_above_100_percent};
use crate::field::{ErrorList, FieldError};
use crate::object::{self, default_field, fields};
use crate::row::Strategy;
use crate::validation::{self, Cursor, label_selector, nonnegative};

/// The highest value of a class that users make.
const HIGHEST_FOR_USERS: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
/// The classes of the system itself, with their values.
pub const SYSTEM_CLASSES: [(&str, i64); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];

/// What pod disruption budgets do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodDisruptionBudgets;

/// What priority classes do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct PriorityClasses;

impl Strategy for PodDisruptionBudgets {
    fn prepare_create(&self, object: &mut Value) {
        let status = json!({
            "disruptionsAllowed": 0,
            "currentHealthy": 0,
            "desiredHealthy": 0,
            "expectedPods": 0,
        });
        fields(object).insert("status".to_owned(), status);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        if spec.has("minAvailable") && spec.has("maxUnavailable") {
            // The reference shows the spec in Go's names.
            let shown = format!(
                "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\
                 \"UnhealthyPodEvictionPolicy\":{}}}",
                spec.raw("minAvailable"),
                spec.raw("selector"),
                spec.raw("maxUnavailable"),
                spec.raw("unhealthyPodEvictionPolicy")
            );
            out.push(FieldError::invalid_shown(
                &spec.path,
                &shown,
                "minAvailable and maxUnavailable cannot be both set",
            ));
        }
        for name in ["minAvailable", "maxUnavailable"] {
            if spec.has(name) {
                int_or_percent(&spec, name, &mut out);
                not_above_100_percent(&spec, name, &mut out);
            }
        }
        label_selector(&spec.child("selector"), &mut out);
        validation::one_of(
            &spec,
            "unhealthyPodEvictionPolicy",
            &["AlwaysAllow", "IfHealthyBudget"],
            &mut out,
        );
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("status");
        validation::conditions(&at, &mut out);
        for name in [
            "disruptionsAllowed",
            "currentHealthy",
            "desiredHealthy",
            "expectedPods",
        ] {
            nonnegative(&at, name, &mut out);
        }
        out
    }
}

impl Strategy for PriorityClasses {
    fn defaults(&self, object: &mut Value) {
        default_field(object, "preemptionPolicy", "PreemptLowerPriority");
        default_field(object, "value", 0);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let (name, value) = (object::name(object), root.number("value"));
        if name.starts_with(SYSTEM_PREFIX) {
            if let Some(wrong) = not_the_systems(name, value, root.is_true("globalDefault")) {
                out.push(FieldError::forbidden(
                    &root.child("metadata").at("name"),
                    &format!(
                        "priority class names with 'system-' prefix are reserved for system use \
                         only. error: {wrong}"
                    ),
                ));
            }
        } else if value > HIGHEST_FOR_USERS {
            out.push(FieldError::forbidden(
                &root.at("value"),
                &format!("maximum allowed value of a user defined priority is {HIGHEST_FOR_USERS}"),
            ));
        }
        validation::required_one_of(
            &root,
            "preemptionPolicy",
            &["PreemptLowerPriority", "Never"],
            &mut out,
        );
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        if at.number("value") != before.number("value") {
            out.push(FieldError::forbidden(
                &at.at("value"),
                "may not be changed in an update.",
            ));
        }
        validation::immutable(
            at.raw("preemptionPolicy"),
            before.raw("preemptionPolicy"),
            &at.at("preemptionPolicy"),
            &mut out,
        );
        out
    }

    fn bumps_generation(&self, _new: &Value, _old: &Value) -> bool {
        false
    }
}

fn not_the_systems(name: &str, value: i64, global: bool) -> Option<String> {
    let Some((_, wanted)) = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if value != *wanted {
        return Some(format!("value of {name} PriorityClass must be {wanted}"));
    }
    global.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}
