//! Kinds that ask: access reviews, token reviews and requests, bindings and evictions.

use serde_json::Value;

use crate::field::{ErrorList, FieldError};
use crate::object::{child, default_field};
use crate::row::Strategy;
use crate::validation::Cursor;

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
        if !resource.value.is_null() && !other.value.is_null() {
            out.push(FieldError::invalid(
                &other.path,
                other.value.clone(),
                "cannot be specified in combination with resourceAttributes",
            ));
        }
        if resource.value.is_null() && other.value.is_null() {
            out.push(FieldError::invalid(
                &resource.path,
                Value::Null,
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
                out.push(FieldError::invalid(
                    &other.path,
                    other.value.clone(),
                    "disallowed on this kind of request",
                ));
            }
        }
        out
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
