//! Namespaces.

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError};
use crate::object::{self, child, default_field, fields};
use crate::row::Strategy;
use crate::validation::{self, Cursor};

/// The finalizer that waits until a namespace is empty.
pub const KUBERNETES: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What namespaces do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Namespaces;

impl Strategy for Namespaces {
    fn defaults(&self, object: &mut Value) {
        let name = object::name(object).to_owned();
        if !name.is_empty() {
            let labels = child(child(object, "metadata"), "labels");
            fields(labels).insert(NAME_LABEL.to_owned(), name.into());
        }
        child(object, "spec");
        default_field(child(object, "status"), "phase", "Active");
    }

    fn prepare_create(&self, object: &mut Value) {
        fields(object).insert("status".to_owned(), json!({"phase": "Active"}));
        let spec = child(object, "spec");
        let mut finalizers = object::list(spec, &["finalizers"]).to_vec();
        if !finalizers.iter().any(|name| name == KUBERNETES) {
            finalizers.push(KUBERNETES.into());
        }
        fields(spec).insert("finalizers".to_owned(), finalizers.into());
        // The name may have been generated since the defaults were set.
        self.defaults(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let finalizers = object::at(old, &["spec", "finalizers"]).cloned();
        object::set_or_remove(fields(child(new, "spec")), "finalizers", finalizers);
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        for name in spec.texts("finalizers") {
            validation::qualified_name(name, &spec.at("finalizers"), &mut out);
            validation::plain_finalizer(name, &spec.at("finalizers"), &mut out);
        }
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("status");
        let deleted = object::deletion_timestamp(new).is_some();
        let (wanted, state) = if deleted {
            ("Terminating", "is not empty")
        } else {
            ("Active", "is empty")
        };
        if at.text("phase") != wanted {
            out.push(FieldError::invalid(
                &at.at("Phase"),
                at.text("phase"),
                &format!("may only be '{wanted}' if `deletionTimestamp` {state}"),
            ));
        }
        out
    }
}

/// Keeps everything but the finalizers of the spec: an update through `finalize`.
pub fn prepare_finalize(new: &mut Value, old: &Value) {
    let finalizers = object::at(new, &["spec", "finalizers"]).cloned();
    let kept = ["resourceVersion", "managedFields"]
        .map(|name| (name, object::at(new, &["metadata", name]).cloned()));
    *new = old.clone();
    for (name, value) in kept {
        if value.is_some() {
            object::set_or_remove(object::metadata(new), name, value);
        }
    }
    object::set_or_remove(fields(child(new, "spec")), "finalizers", finalizers);
}

/// What is wrong with an update through `finalize`.
#[must_use]
pub fn validate_finalize(new: &Value) -> ErrorList {
    let mut out = ErrorList::new();
    for finalizer in Cursor::root(new).child("spec").items("finalizers") {
        let name = finalizer.value.as_str().unwrap_or_default();
        validation::qualified_name(name, &finalizer.path, &mut out);
        validation::plain_finalizer(name, &finalizer.path, &mut out);
    }
    out
}
