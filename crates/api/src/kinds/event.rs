//! Events: stored in the form of the core group, with `events.k8s.io` as another form of them.
//!
//! For the core group only the older, lenient rules hold in the reference; what is written through
//! `events.k8s.io` must be complete and does not change.

use serde_json::Value;

use crate::field::{ErrorList, FieldError, Path};
use crate::object::fields;
use crate::row::{Strategy, View};
use crate::validation::{self, Cursor};

const TEXT_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

/// The fields whose names differ, of the core group and of `events.k8s.io`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// The form of events in `events.k8s.io`.
pub const VIEW: View = View {
    group: "",
    plural: "events",
    to_stored: |event| {
        fields(event).insert("apiVersion".to_owned(), "v1".into());
        for (core, new) in NAMES {
            rename(event, new, core);
        }
    },
    from_stored: |event| {
        fields(event).insert("apiVersion".to_owned(), "events.k8s.io/v1".into());
        for (core, new) in NAMES {
            rename(event, core, new);
        }
    },
};

fn rename(event: &mut Value, from: &str, to: &str) {
    if let Some(value) = fields(event).remove(from) {
        fields(event).insert(to.to_owned(), value);
    }
}

/// What events of the core group do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Events;

/// What events written through `events.k8s.io` do beyond their row, in their stored form.
#[derive(Debug, Clone, Copy, Default)]
pub struct StrictEvents;

impl Strategy for Events {
    fn validate(&self, object: &Value) -> ErrorList {
        lenient(object, "reportingComponent")
    }
}

impl Strategy for StrictEvents {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = lenient(object, "reportingController");
        let root = Cursor::root(object);
        series(&root, &mut out);
        if root.text("eventTime").is_empty() {
            out.push(FieldError::required(&root.at("eventTime"), ""));
        }
        let kind = root.text("type");
        if !matches!(kind, "Normal" | "Warning") {
            out.push(FieldError::invalid(
                &root.at("type"),
                "",
                &format!("has invalid value: {kind}"),
            ));
        }
        let source = root.child("source");
        let old = [
            ("firstTimestamp", !root.text("firstTimestamp").is_empty()),
            ("lastTimestamp", !root.text("lastTimestamp").is_empty()),
            ("count", root.number("count") != 0),
            (
                "source",
                !source.text("component").is_empty() || !source.text("host").is_empty(),
            ),
        ];
        for (name, _) in old.into_iter().filter(|(_, given)| *given) {
            out.push(FieldError::invalid(&root.at(name), "", "needs to be unset"));
        }
        out
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = lenient(new, "reportingController");
        let (new, old) = (Cursor::root(new), Cursor::root(old));
        if new.raw("series") != old.raw("series") {
            series(&new, &mut out);
        }
        for name in [
            "involvedObject",
            "reason",
            "message",
            "source",
            "firstTimestamp",
            "lastTimestamp",
            "count",
            "type",
            "eventTime",
            "action",
            "related",
        ] {
            if matches!(name, "reason" | "message" | "type" | "action") {
                validation::immutable_text(new.text(name), old.text(name), &new.at(name), &mut out);
            } else {
                validation::immutable(new.raw(name), old.raw(name), &new.at(name), &mut out);
            }
        }
        for (name, shown) in [
            ("reportingComponent", "reportingController"),
            ("reportingInstance", "reportingInstance"),
        ] {
            validation::immutable_text(new.text(name), old.text(name), &new.at(shown), &mut out);
        }
        out
    }
}

fn series(root: &Cursor<'_>, out: &mut ErrorList) {
    let Some(series) = root.get("series") else {
        return;
    };
    if series.number("count") < 2 {
        out.push(FieldError::invalid(
            &Path::new("series.count"),
            "",
            "should be at least 2",
        ));
    }
    if series.text("lastObservedTime").is_empty() {
        out.push(FieldError::required(
            &Path::new("series.lastObservedTime"),
            "",
        ));
    }
}

/// The rules for all events; `controller` is what the form calls the reporting controller.
fn lenient(object: &Value, controller: &str) -> ErrorList {
    let mut out = ErrorList::new();
    let root = Cursor::root(object);
    let namespace = root.child("metadata").text("namespace");
    let involved = root.child("involvedObject");
    let of = involved.text("namespace");
    let is_new = !root.text("eventTime").is_empty();
    let agrees = match (is_new, of) {
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
    if is_new {
        new_style(&root, controller, &mut out);
    }
    out
}

fn new_style(root: &Cursor<'_>, shown: &str, out: &mut ErrorList) {
    let controller = root.text("reportingComponent");
    let path = root.at(shown);
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
