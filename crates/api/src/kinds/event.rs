//! Events of the core group: only the older, lenient rules hold for them in the reference.

use serde_json::Value;

use crate::field::{ErrorList, FieldError};
use crate::names;
use crate::row::Strategy;
use crate::validation::{self, Cursor};

const TEXT_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

/// What events do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Events;

impl Strategy for Events {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let namespace = root.child("metadata").text("namespace");
        let involved = root.child("involvedObject");
        let of = involved.text("namespace");
        let agrees = match (root.has("eventTime"), of) {
            (true, "") => matches!(namespace, "default" | "kube-system"),
            (true, _) => true,
            (false, "") => matches!(namespace, "" | "default"),
            (false, of) => of == namespace,
        };
        if !agrees {
            out.push(FieldError::invalid(
                &involved.at("namespace"),
                of,
                "does not match event.namespace",
            ));
        }
        if root.has("eventTime") {
            new_style(&root, &mut out);
        }
        validation::named(
            names::dns1123_subdomain,
            namespace,
            &root.at("namespace"),
            &mut out,
        );
        out
    }
}

fn new_style(root: &Cursor<'_>, out: &mut ErrorList) {
    // The reference names the internal field.
    let controller = root.text("reportingComponent");
    let path = root.at("reportingController");
    if controller.is_empty() {
        out.push(FieldError::required(&path, ""));
    }
    validation::qualified_name(controller, &path, out);
    for name in ["reportingInstance", "action", "reason"] {
        let value = root.text(name);
        if value.is_empty() {
            out.push(FieldError::required(&root.at(name), ""));
        }
        limit(root, name, value.len(), TEXT_MAX, out);
    }
    limit(root, "message", root.text("message").len(), NOTE_MAX, out);
}

fn limit(root: &Cursor<'_>, name: &str, length: usize, max: usize, out: &mut ErrorList) {
    if length > max {
        out.push(FieldError::invalid(
            &root.at(name),
            "",
            &format!("can have at most {max} characters"),
        ));
    }
}
