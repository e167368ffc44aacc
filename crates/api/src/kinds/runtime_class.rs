//! Runtime classes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod;
use super::storage::deprecated_node_label;
use crate::field::{ErrorList, FieldError};
use crate::object::child;
use crate::row::Strategy;
use crate::validation::{self, Cursor, labels};

/// What runtime classes do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    fn defaults(&self, object: &mut Value) {
        if object.get("overhead").is_some_and(Value::is_object) {
            pod::round_up(child(object, "overhead"), "podFixed");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let handler = root.text("handler");
        if handler.is_empty() {
            out.push(FieldError::required(&root.at("handler"), ""));
        } else {
            validation::dns_label(handler, &root.at("handler"), &mut out);
        }
        if let Some(overhead) = root.get("overhead") {
            // The reference checks it as the limits of a container.
            let limits = serde_json::json!({"limits": overhead.raw("podFixed")});
            let at = Cursor::new(&limits, overhead.path.clone());
            pod::validate_requirements(&at, &mut out);
        }
        let scheduling = root.child("scheduling");
        labels(
            scheduling.raw("nodeSelector"),
            &scheduling.at("nodeSelector"),
            &mut out,
        );
        pod::validate_tolerations(&scheduling, &mut out);
        let mut seen = BTreeSet::new();
        for toleration in scheduling.items("tolerations") {
            let key = ["key", "operator", "value", "effect"].map(|name| toleration.text(name));
            if !seen.insert(key) {
                out.push(FieldError::duplicate(
                    &toleration.path,
                    toleration.value.clone(),
                ));
            }
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        validation::declared_immutable(
            at.raw("handler"),
            before.raw("handler"),
            &at.at("handler"),
            &mut out,
        );
        out
    }

    /// Only handler, overhead and scheduling are there, and none of them counts generations.
    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let scheduling = Cursor::root(new).child("scheduling");
        scheduling
            .entries("nodeSelector")
            .filter_map(|(key, _)| deprecated_node_label(key))
            .map(|told| format!("scheduling.nodeSelector: {told}"))
            .collect()
    }
}
