//! Storage-version migrations (`storagemigration.k8s.io/v1`): which resource is to be written again
//! in the form in which it would be stored now, as `pkg/apis/storagemigration` of the reference.

use serde_json::Value;

use crate::field::{ErrorList, FieldError};
use crate::names;
use crate::object;
use crate::row::Strategy;
use crate::validation::{self, Cursor, conditions};

/// What migrations do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct StorageVersionMigrations;

fn is(status: &Cursor<'_>, condition: &str) -> bool {
    let mut all = status.items("conditions");
    all.any(|it| it.text("type") == condition && it.text("status") == "True")
}

/// Checks a name by a rule and tells everything that is wrong with it at once.
fn joined(at: &Cursor<'_>, name: &str, rule: names::NameRule, out: &mut ErrorList) {
    let wrong = rule(at.text(name)).join(",");
    if !wrong.is_empty() {
        out.push(FieldError::invalid(&at.at(name), at.text(name), &wrong));
    }
}

impl Strategy for StorageVersionMigrations {
    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let resource = Cursor::root(object).child("spec").child("resource");
        if resource.text("resource").is_empty() {
            out.push(FieldError::required(
                &resource.at("resource"),
                "resource is required to be set",
            ));
        } else {
            joined(&resource, "resource", names::dns1035_label, &mut out);
        }
        if !resource.text("group").is_empty() {
            joined(&resource, "group", names::dns1123_subdomain, &mut out);
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (new, old) = (Cursor::root(new), Cursor::root(old));
        let path = new.at("spec");
        validation::immutable(new.raw("spec"), old.raw("spec"), &path, &mut out);
        out
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let status = Cursor::root(new).child("status");
        let before = Cursor::root(old).child("status");
        let (version, path) = (status.text("resourceVersion"), status.at("resourceVersion"));
        let digits = version.bytes().all(|byte| byte.is_ascii_digit());
        if !version.is_empty() && (!digits || version.starts_with('0')) {
            let why = format!("resource version is not well formed: {version}");
            out.push(FieldError::invalid(&path, version, &why));
        }
        conditions(&status, &mut out);
        let known = before.text("resourceVersion");
        if !known.is_empty() && known != version {
            out.push(FieldError::invalid(&path, version, validation::IMMUTABLE));
        }
        let list = status.raw("conditions").clone();
        let mut wrong = |why: &str| {
            let path = status.at("conditions");
            out.push(FieldError::invalid(&path, list.clone(), why));
        };
        if is(&status, "Succeeded") && is(&status, "Failed") {
            wrong("Both success and failed conditions cannot be true at the same time");
        }
        if is(&before, "Succeeded") && !is(&status, "Succeeded") {
            wrong("Success condition cannot be set to false once it is true");
        }
        if is(&before, "Failed") && !is(&status, "Failed") {
            wrong("Failed condition cannot be set to false once it is true");
        }
        out
    }
}
