//! Storage classes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::deprecated_node_label;
use crate::field::{ErrorList, FieldError};
use crate::names;
use crate::object::default_field;
use crate::row::Strategy;
use crate::validation::{self, Cursor, label_name};

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 * 1024;

/// What storage classes do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct StorageClasses;

impl Strategy for StorageClasses {
    fn defaults(&self, object: &mut Value) {
        default_field(object, "reclaimPolicy", "Delete");
        default_field(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let provisioner = root.text("provisioner");
        if provisioner.is_empty() {
            out.push(FieldError::required(&root.at("provisioner"), ""));
        } else {
            for wrong in names::qualified_name(&provisioner.to_lowercase()) {
                let shown = provisioner.to_lowercase();
                out.push(FieldError::invalid(&root.at("provisioner"), shown, &wrong));
            }
        }
        parameters(&root, true, &mut out);
        // The empty text is let through, and is stored.
        if !root.text("reclaimPolicy").is_empty() {
            validation::one_of(&root, "reclaimPolicy", &["Delete", "Retain"], &mut out);
        }
        validation::one_of(
            &root,
            "volumeBindingMode",
            &["Immediate", "WaitForFirstConsumer"],
            &mut out,
        );
        topologies(&root, &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        for name in [
            "parameters",
            "provisioner",
            "reclaimPolicy",
            "volumeBindingMode",
        ] {
            validation::declared_immutable(at.raw(name), before.raw(name), &at.at(name), &mut out);
        }
        out
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        for term in Cursor::root(new).items("allowedTopologies") {
            for expression in term.items("matchLabelExpressions") {
                if let Some(told) = deprecated_node_label(expression.text("key")) {
                    out.push(format!("{}: {told}", expression.at("key")));
                }
            }
        }
        out
    }
}

/// Checks the parameters of a class.
pub(super) fn parameters(root: &Cursor<'_>, may_be_empty: bool, out: &mut ErrorList) {
    let path = root.at("parameters");
    let count = root.entries("parameters").count();
    if count > PARAMETERS_MAX {
        out.push(FieldError::too_long(&path, PARAMETERS_MAX));
        return;
    }
    let mut size = 0;
    for (key, value) in root.entries("parameters") {
        if key.is_empty() {
            out.push(FieldError::invalid(&path, "", "field can not be empty."));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > PARAMETERS_SIZE_MAX {
        out.push(FieldError::too_long(&path, PARAMETERS_SIZE_MAX));
    }
    if !may_be_empty && count == 0 {
        out.push(FieldError::required(
            &path,
            "must contain at least one key/value pair",
        ));
    }
}

fn topologies(root: &Cursor<'_>, out: &mut ErrorList) {
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for term in root.items("allowedTopologies") {
        let mut keys = BTreeMap::new();
        for expression in term.items("matchLabelExpressions") {
            let mut values = BTreeSet::new();
            if expression.list("values").is_empty() {
                out.push(FieldError::required(&expression.at("values"), ""));
            }
            for value in expression.items("values") {
                let text = value.value.as_str().unwrap_or_default();
                if !values.insert(text) {
                    out.push(FieldError::duplicate(&value.path, text));
                }
            }
            let key = expression.text("key");
            label_name(key, &expression.at("key"), out);
            if keys.insert(key, values).is_some() {
                out.push(FieldError::duplicate(&expression.at("key"), key));
            }
        }
        // An empty term equals the places that the reference has prepared for all terms.
        if keys.is_empty() || seen.contains(&keys) {
            out.push(FieldError::duplicate(&term.at("matchLabelExpressions"), ""));
        }
        seen.push(keys);
    }
}
