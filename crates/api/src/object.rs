//! Metadata of an object held as JSON: short names for the places that every kind has.

use serde_json::{Map, Value};

/// A JSON object's fields.
pub type Fields = Map<String, Value>;

/// Follows field names down; `None` when one is missing.
#[must_use]
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

/// The string at a path; empty when missing or not a string.
#[must_use]
pub fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a path.
#[must_use]
pub fn integer(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// The list at a path; empty when missing.
#[must_use]
pub fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// `metadata.name`.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.namespace`.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// `metadata.uid`.
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// `metadata.resourceVersion`.
#[must_use]
pub fn resource_version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

/// `metadata.deletionTimestamp`, when the object is being deleted.
#[must_use]
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    at(object, &["metadata", "deletionTimestamp"]).and_then(Value::as_str)
}

/// `metadata.finalizers`.
#[must_use]
pub fn finalizers(object: &Value) -> Vec<&str> {
    list(object, &["metadata", "finalizers"])
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

/// `metadata.labels[key]`.
#[must_use]
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "labels", key]).and_then(Value::as_str)
}

/// `metadata.annotations[key]`.
#[must_use]
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "annotations", key]).and_then(Value::as_str)
}

/// The fields of `value`, made an object first if it is something else.
pub fn fields(value: &mut Value) -> &mut Fields {
    if !value.is_object() {
        *value = Value::Object(Fields::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

/// The object at field `name` of `value`, made if missing.
pub fn child<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    let child = fields(value).entry(name).or_insert(Value::Null);
    fields(child);
    child
}

/// `metadata`, made if missing.
pub fn metadata(object: &mut Value) -> &mut Fields {
    fields(child(object, "metadata"))
}

/// Sets the field `name` of `value` unless it is there and not null.
pub fn default_field(value: &mut Value, name: &str, default: impl Into<Value>) {
    let slot = fields(value).entry(name).or_insert(Value::Null);
    if slot.is_null() {
        *slot = default.into();
    }
}

/// Empties the status of an object that is new: whoever makes it has nothing to say there.
pub fn clear_status(object: &mut Value) {
    fields(object).insert("status".to_owned(), Value::Object(Fields::new()));
}

/// Keeps the status that is stored: an update of the object itself does not write it.
pub fn keep_status(new: &mut Value, old: &Value) {
    set_or_remove(fields(new), "status", old.get("status").cloned());
}

/// Keeps what a status update may not write: metadata beyond what the system itself sets.
pub fn keep_metadata_of_status(new: &mut Value, old: &Value) {
    for name in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let before = at(old, &["metadata", name]).cloned();
        set_or_remove(metadata(new), name, before);
    }
}

/// The items of the list in field `name`; none when it is missing.
pub fn list_mut<'a>(
    value: &'a mut Value,
    name: &str,
) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    value
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Sets the field `name`, or removes it when there is no value.
pub fn set_or_remove(fields: &mut Fields, name: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            fields.insert(name.to_owned(), value);
        }
        None => {
            fields.remove(name);
        }
    }
}
