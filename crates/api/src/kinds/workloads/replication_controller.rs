//! Replication controllers and pod templates of the core group.

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError};
use crate::kinds::pod;
use crate::names;
use crate::object::{self, child, default_field, fields};
use crate::row::Strategy;
use crate::validation::{Cursor, labels_match, nonnegative};

/// What replication controllers do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplicationControllers;

/// What pod templates do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodTemplates;

impl Strategy for ReplicationControllers {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        if spec.get("template").is_some_and(Value::is_object) {
            pod::template_defaults(child(spec, "template"));
        }
        // Before there was a selector of its own, the template's labels were it; and they are
        // the controller's labels where it has none.
        let labels = object::at(object, &["spec", "template", "metadata", "labels"])
            .filter(|labels| labels.as_object().is_some_and(|map| !map.is_empty()))
            .cloned();
        if let Some(labels) = labels {
            for owner in ["spec", "metadata"] {
                let name = if owner == "spec" {
                    "selector"
                } else {
                    "labels"
                };
                let at = child(object, owner);
                let empty = at
                    .get(name)
                    .and_then(Value::as_object)
                    .is_none_or(serde_json::Map::is_empty);
                if empty {
                    fields(at).insert(name.to_owned(), labels.clone());
                }
            }
        }
        default_field(child(object, "spec"), "replicas", 1);
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
        nonnegative(&spec, "minReadySeconds", &mut out);
        if spec.entries("selector").next().is_none() {
            out.push(FieldError::required(&spec.at("selector"), ""));
        }
        nonnegative(&spec, "replicas", &mut out);
        let Some(template) = spec.get("template") else {
            out.push(FieldError::required(&spec.at("template"), ""));
            return out;
        };
        let found = template.child("metadata").child("labels");
        if !labels_match(spec.raw("selector"), found.value) {
            out.push(FieldError::invalid(
                &found.path,
                found.value.clone(),
                "`selector` does not match template `labels`",
            ));
        }
        pod::validate_template(&template, &mut out);
        super::always_restarts(&template, "ReplicationController", &mut out);
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
            "observedGeneration",
        ] {
            nonnegative(&at, name, &mut out);
        }
        super::counts(&at, "fullyLabeledReplicas", &mut out);
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        if old.is_none() {
            name_warning(object::name(new), &mut out);
        }
        out.extend(super::template_warnings(new, old));
        out
    }
}

/// A name that works for the object and will surprise in its pods.
pub(in crate::kinds) fn name_warning(name: &str, out: &mut Vec<String>) {
    let wrong = names::dns1123_label(name);
    if !wrong.is_empty() {
        out.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in \
             surprising behavior; a DNS label is recommended: [{}]",
            wrong.join(" ")
        ));
    }
}

impl Strategy for PodTemplates {
    fn defaults(&self, object: &mut Value) {
        pod::template_defaults(child(object, "template"));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        pod::validate_template(&Cursor::root(object).child("template"), &mut out);
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some_and(|old| old.get("template") == new.get("template")) {
            return Vec::new();
        }
        pod::warnings_of(&Cursor::root(new).child("template"))
    }
}
