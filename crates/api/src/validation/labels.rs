//! Labels, annotations and selectors of specs.

use serde_json::Value;

use super::Cursor;
use crate::field::{ErrorList, FieldError, Path};
use crate::names;

/// All annotations of an object together: 256 KiB.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Checks a label's key.
pub fn label_name(value: &str, path: &Path, out: &mut ErrorList) {
    super::named(names::qualified_name, value, path, out);
}

/// Checks a qualified name.
pub fn qualified_name(value: &str, path: &Path, out: &mut ErrorList) {
    super::named(names::qualified_name, value, path, out);
}

/// Checks a map of labels. As in the reference, the path is that of the map.
pub fn labels(map: &Value, path: &Path, out: &mut ErrorList) {
    for (key, value) in map.as_object().into_iter().flatten() {
        label_name(key, path, out);
        super::named(
            names::label_value,
            value.as_str().unwrap_or_default(),
            path,
            out,
        );
    }
}

/// Checks a map of annotations: keys in any case, and the total size.
pub fn annotations(map: &Value, path: &Path, out: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in map.as_object().into_iter().flatten() {
        for wrong in names::qualified_name(&key.to_lowercase()) {
            out.push(FieldError::invalid(path, key.as_str(), &wrong));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        out.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
}

/// Checks a `metav1.LabelSelector`; a missing one is good.
pub fn label_selector(at: &Cursor<'_>, out: &mut ErrorList) {
    if at.value.is_null() {
        return;
    }
    labels(at.raw("matchLabels"), &at.at("matchLabels"), out);
    for expression in at.items("matchExpressions") {
        let values = expression.list("values");
        match expression.text("operator") {
            "In" | "NotIn" if values.is_empty() => out.push(FieldError::required(
                &expression.at("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => out.push(FieldError::forbidden(
                &expression.at("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => out.push(FieldError::invalid(
                &expression.at("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        label_name(expression.text("key"), &expression.at("key"), out);
        for value in expression.items("values") {
            super::named(
                names::label_value,
                value.value.as_str().unwrap_or_default(),
                &value.path,
                out,
            );
        }
    }
}

/// Does a `metav1.LabelSelector` match a map of labels? `None` when an operator is unknown.
/// The empty selector matches everything, a missing one nothing.
#[must_use]
pub fn selects(selector: &Value, labels: &Value) -> Option<bool> {
    if selector.is_null() {
        return Some(false);
    }
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let mut all = labels_match(selector.get("matchLabels").unwrap_or(&Value::Null), labels);
    let at = Cursor::root(selector);
    for expression in at.items("matchExpressions") {
        let found = label(expression.text("key"));
        let listed = found.is_some_and(|found| expression.texts("values").any(|v| v == found));
        all &= match expression.text("operator") {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => return None,
        };
    }
    Some(all)
}

/// Does a map of labels hold all the wanted ones?
#[must_use]
pub fn labels_match(wanted: &Value, labels: &Value) -> bool {
    wanted
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value))
}
