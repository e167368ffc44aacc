//! Rules of device taints: an administrator taints devices that are not his to publish (KEP-5055).

use serde_json::Value;

use super::claim::pool_name;
use super::taint;
use crate::field::{ErrorList, FieldError};
use crate::kinds::storage::csi_driver;
use crate::object::{self, default_field, fields};
use crate::row::Strategy;
use crate::validation::{self, Cursor, conditions};

const CONDITIONS_MAX: usize = 8;

/// What rules of device taints do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceTaintRules;

/// Notes since when a taint has its effect. A client that says nothing of the time keeps it, and one
/// that changes the effect need not.
pub(super) fn since(taint: &mut Value, old: Option<&Value>, now: &str) {
    let part = |value: &Value, name: &str| value.get(name).cloned().unwrap_or_default();
    if let Some(old) = old {
        let time = part(old, "timeAdded");
        if part(taint, "effect") == part(old, "effect") {
            default_field(taint, "timeAdded", time);
        } else if part(taint, "timeAdded") == time {
            fields(taint).remove("timeAdded");
        }
    }
    default_field(taint, "timeAdded", now);
}

impl Strategy for DeviceTaintRules {
    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object::keep_metadata_of_status(new, old);
    }

    fn prepare_at(&self, new: &mut Value, old: Option<&Value>, now: &str) {
        let before = old.and_then(|old| object::at(old, &["spec", "taint"]));
        if let Some(taint) = new.get_mut("spec").and_then(|spec| spec.get_mut("taint")) {
            since(taint, before, now);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        if let Some(selector) = spec.get("deviceSelector") {
            if selector.has("driver") {
                csi_driver(selector.text("driver"), &selector.at("driver"), &mut out);
            }
            if selector.has("pool") {
                pool_name(&selector, "pool", &mut out);
            }
            if selector.has("device") {
                validation::dns_label(selector.text("device"), &selector.at("device"), &mut out);
            }
        }
        taint(&spec.child("taint"), &mut out);
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let status = Cursor::root(new).child("status");
        conditions(&status, &mut out);
        let count = status.list("conditions").len();
        if count > CONDITIONS_MAX {
            let path = status.at("conditions");
            out.push(FieldError::too_many(&path, count, CONDITIONS_MAX));
        }
        out
    }
}
