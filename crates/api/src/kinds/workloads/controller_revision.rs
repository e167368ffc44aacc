//! Controller revisions: the history that stateful and daemon sets keep.

use serde_json::Value;

use crate::field::{ErrorList, FieldError};
use crate::row::Strategy;
use crate::validation::{self, Cursor, is_new, nonnegative};

/// What controller revisions do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        nonnegative(&root, "revision", &mut out);
        // Data of older objects is whatever it was.
        if is_new(object) && !root.raw("data").is_object() {
            let detail = if root.has("data") {
                "data must be a valid JSON object"
            } else {
                "data is mandatory"
            };
            out.push(FieldError::required(&root.at("data"), detail));
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        validation::immutable(at.raw("data"), before.raw("data"), &at.at("data"), &mut out);
        out
    }
}
