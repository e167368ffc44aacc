//! Daemon sets, as `pkg/apis/apps` and `pkg/registry/apps/daemonset` of the reference.
//!
//! The internal field `templateGeneration` of the reference lives in the annotation
//! `deprecated.daemonset.template.generation` in `apps/v1`; it is kept here likewise.

use serde_json::{Value, json};

use super::{convertible, int_or_percent, int_or_percent_value, not_above_100_percent};
use crate::field::{ErrorList, FieldError};
use crate::kinds::pod;
use crate::object::{self, child, default_field, fields};
use crate::row::Strategy;
use crate::validation::{Cursor, label_selector, nonnegative, selects};

const GENERATION: &str = "deprecated.daemonset.template.generation";

/// What daemon sets do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct DaemonSets;

fn template_generation(object: &Value) -> i64 {
    object::annotation(object, GENERATION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    let metadata = child(object, "metadata");
    fields(child(metadata, "annotations"))
        .insert(GENERATION.to_owned(), generation.to_string().into());
}

impl Strategy for DaemonSets {
    fn changes_first(&self) -> bool {
        true
    }

    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        let strategy = child(spec, "updateStrategy");
        default_field(strategy, "type", "RollingUpdate");
        if object::text(strategy, &["type"]) == "RollingUpdate" {
            let rolling = child(strategy, "rollingUpdate");
            default_field(rolling, "maxUnavailable", 1);
            default_field(rolling, "maxSurge", 0);
        }
        default_field(spec, "revisionHistoryLimit", 10);
        pod::template_defaults(child(spec, "template"));
        // The reference writes its field whether it was there or not, so that whoever writes a daemon
        // set owns it.
        if object::annotation(object, GENERATION).is_none() {
            set_template_generation(object, 0);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let status = json!({
            "currentNumberScheduled": 0,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 0,
            "numberReady": 0,
        });
        fields(object).insert("status".to_owned(), status);
        let generation = template_generation(object).max(1);
        set_template_generation(object, generation);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
        let template = |object: &Value| object::at(object, &["spec", "template"]).cloned();
        let mut generation = template_generation(old);
        if template(new) != template(old) {
            generation += 1;
        }
        set_template_generation(new, generation);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        let (selector, template) = (spec.child("selector"), spec.child("template"));
        label_selector(&selector, &mut out);
        let found = template.child("metadata").child("labels");
        let matches = convertible(&selector).then(|| selects(selector.value, found.value));
        if matches == Some(Some(false)) {
            out.push(FieldError::invalid(
                &found.path,
                found.value.clone(),
                "`selector` does not match template `labels`",
            ));
        }
        let terms =
            selector.entries("matchLabels").count() + selector.list("matchExpressions").len();
        if !selector.value.is_null() && terms == 0 {
            out.push(FieldError::invalid(
                &selector.path,
                selector.value.clone(),
                "empty selector is invalid for daemonset",
            ));
        }
        pod::validate_template(&template, &mut out);
        super::always_restarts(&template, "DaemonSet", &mut out);
        nonnegative(&spec, "minReadySeconds", &mut out);
        if template_generation(object) < 0 {
            out.push(FieldError::invalid(
                &spec.at("templateGeneration"),
                template_generation(object),
                crate::validation::NEGATIVE,
            ));
        }
        update_strategy(&spec.child("updateStrategy"), &mut out);
        nonnegative(&spec, "revisionHistoryLimit", &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        super::immutable_selector(new, old, &mut out);
        out
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("status");
        for name in [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ] {
            nonnegative(&at, name, &mut out);
        }
        super::not_decremented(&at, &Cursor::root(old).child("status"), &mut out);
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::template_warnings(new, old)
    }
}

fn update_strategy(at: &Cursor<'_>, out: &mut ErrorList) {
    match at.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => rolling_update(&at.child("rollingUpdate"), out),
        other => {
            let rolling = at.child("rollingUpdate");
            let shown = if rolling.value.is_null() {
                "null".to_owned()
            } else {
                format!(
                    "{{\"MaxUnavailable\":{},\"MaxSurge\":{}}}",
                    rolling.raw("maxUnavailable"),
                    rolling.raw("maxSurge")
                )
            };
            out.push(FieldError::not_supported_shown(
                &at.path,
                &format!(
                    "{{\"Type\":{},\"RollingUpdate\":{shown}}}",
                    Value::from(other)
                ),
                &["RollingUpdate", "OnDelete"],
            ));
        }
    }
}

fn rolling_update(at: &Cursor<'_>, out: &mut ErrorList) {
    const LIMITS: [&str; 2] = ["maxUnavailable", "maxSurge"];
    for name in LIMITS {
        int_or_percent(at, name, out);
    }
    for name in LIMITS {
        not_above_100_percent(at, name, out);
    }
    let [unavailable, surge] = LIMITS.map(|name| int_or_percent_value(at, name) != 0);
    match (unavailable, surge) {
        (true, true) => out.push(FieldError::invalid(
            &at.at("maxSurge"),
            at.raw("maxSurge").clone(),
            "may not be set when maxUnavailable is non-zero",
        )),
        (false, false) => out.push(FieldError::required(
            &at.at("maxUnavailable"),
            "cannot be 0 when maxSurge is 0",
        )),
        _ => {}
    }
}
