//! Kinds that ask: access reviews, token reviews and requests, bindings and evictions.

use serde_json::Value;

use crate::field::{ErrorList, FieldError};
use crate::names;
use crate::object::{child, default_field};
use crate::row::Strategy;
use crate::validation::{self, Cursor};

/// What an access review is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessReviews {
    /// `SubjectAccessReview`
    Subject,
    /// `LocalSubjectAccessReview`
    Local,
    /// `SelfSubjectAccessReview`
    Own,
}

/// What token reviews are checked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenReviews;

/// What token requests are checked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenRequests;

/// What bindings of pods to nodes are checked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodBindings;

impl Strategy for AccessReviews {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let spec = root.child("spec");
        let (resource, other) = (
            spec.child("resourceAttributes"),
            spec.child("nonResourceAttributes"),
        );
        // The reference shows Go's names of the fields.
        let shown = if other.value.is_null() {
            "null".to_owned()
        } else {
            let [path, verb] = ["path", "verb"].map(|name| Value::from(other.text(name)));
            format!("{{\"Path\":{path},\"Verb\":{verb}}}")
        };
        if resource.value.is_null() == other.value.is_null() {
            out.push(FieldError::invalid_shown(
                &spec.path,
                &shown,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
        if *self != Self::Own && spec.text("user").is_empty() && spec.list("groups").is_empty() {
            out.push(FieldError::invalid(
                &spec.at("user"),
                "",
                "at least one of user or group must be specified",
            ));
        }
        for name in ["fieldSelector", "labelSelector"] {
            if let Some(selector) = resource.get(name) {
                selector_attributes(&selector, name == "labelSelector", &mut out);
            }
        }
        empty_metadata(&root, *self == Self::Local, &mut out);
        if *self == Self::Local {
            let namespace = root.child("metadata").text("namespace");
            if !resource.value.is_null() && resource.text("namespace") != namespace {
                out.push(FieldError::invalid(
                    &resource.at("namespace"),
                    resource.text("namespace"),
                    "must match metadata.namespace",
                ));
            }
            if !other.value.is_null() {
                out.push(FieldError::invalid_shown(
                    &other.path,
                    &shown,
                    "disallowed on this kind of request",
                ));
            }
        }
        out
    }
}

/// A review is kept nowhere: it has no name, and nothing else that a stored object has.
fn empty_metadata(root: &Cursor<'_>, local: bool, out: &mut ErrorList) {
    let meta = root.child("metadata");
    // Where the review is asked for says in which namespace; owners of fields are not the client's.
    let kept = |name: &str| matches!(name, "namespace" | "managedFields");
    let fields = meta.value.as_object();
    let given = |(name, value): (&String, &Value)| !kept(name) && !value.is_null();
    if fields.is_some_and(|fields| fields.iter().any(given)) {
        let detail = if local {
            "must be empty except for namespace"
        } else {
            "must be empty"
        };
        out.push(FieldError::invalid(&meta.path, meta.value.clone(), detail));
    }
}

/// Checks a selector that the request in question would be made with. Operators of later versions
/// are let through.
fn selector_attributes(at: &Cursor<'_>, of_labels: bool, out: &mut ErrorList) {
    let (raw, list) = (at.text("rawSelector"), at.list("requirements"));
    match (raw.is_empty(), list.is_empty()) {
        (false, false) => out.push(FieldError::invalid(
            &at.at("rawSelector"),
            raw,
            "may not specified at the same time as requirements",
        )),
        (true, true) => out.push(FieldError::required(
            &at.at("requirements"),
            &format!(
                "when {} is specified, requirements or rawSelector is required",
                at.path
            ),
        )),
        _ => {}
    }
    for requirement in at.items("requirements") {
        let key = requirement.text("key");
        if !of_labels && key.is_empty() {
            out.push(FieldError::required(
                &requirement.at("key"),
                "must be specified",
            ));
        }
        let values = requirement.at("values");
        match (
            requirement.text("operator"),
            requirement.list("values").is_empty(),
        ) {
            ("In" | "NotIn", true) => out.push(FieldError::required(
                &values,
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            ("Exists" | "DoesNotExist", false) => out.push(FieldError::forbidden(
                &values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            _ => {}
        }
        if of_labels {
            validation::label_name(key, &requirement.at("key"), out);
            for value in requirement.items("values") {
                let text = value.value.as_str().unwrap_or_default();
                validation::named(names::label_value, text, &value.path, out);
            }
        }
    }
}

impl Strategy for TokenReviews {
    fn validate(&self, object: &Value) -> ErrorList {
        let spec = Cursor::root(object).child("spec");
        if spec.text("token").is_empty() {
            return vec![FieldError::required(&spec.at("token"), "")];
        }
        ErrorList::new()
    }
}

impl Strategy for TokenRequests {
    fn defaults(&self, object: &mut Value) {
        default_field(child(object, "spec"), "expirationSeconds", 3600);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let spec = Cursor::root(object).child("spec");
        let seconds = spec.number("expirationSeconds");
        let wrong = if seconds < 600 {
            "may not specify a duration less than 10 minutes"
        } else if seconds > 1 << 32 {
            "may not specify a duration larger than 2^32 seconds"
        } else {
            return ErrorList::new();
        };
        vec![FieldError::invalid(
            &spec.at("expirationSeconds"),
            seconds,
            wrong,
        )]
    }
}

impl Strategy for PodBindings {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let target = Cursor::root(object).child("target");
        if !matches!(target.text("kind"), "" | "Node") {
            out.push(FieldError::not_supported(
                &target.at("kind"),
                target.text("kind"),
                &["Node", "<empty>"],
            ));
        }
        if target.text("name").is_empty() {
            out.push(FieldError::required(&target.at("name"), ""));
        }
        out
    }
}
