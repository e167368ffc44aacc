//! Is a schema one that a definition may have?
//!
//! Works on the JSON of `openAPIV3Schema`, because errors name what was written. The rules are
//! those of `apiextensions/validation` and of `ValidateStructural`; a definition is accepted only
//! with a structural schema, as the reference accepts new ones.

mod complete;
mod defaults;
mod openapi;
mod rules;
mod shape;

use serde_json::Value;

use super::Structural;
use crate::field::{ErrorList, FieldError, Path};
use crate::schema::Schema;

/// What may stand at the root of a schema whose status is written through its own path.
const ROOT_FIELDS: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    (
        "XPreserveUnknownFields",
        "x-kubernetes-preserve-unknown-fields",
    ),
    ("XValidations", "x-kubernetes-validations"),
];

/// Everything that is wrong with the schema at `path`. `has_status` says whether the version has
/// a status subresource, `unchanged` that the version had this schema before; `builtin` lends the
/// type of metadata.
#[must_use]
pub fn check(
    path: &Path,
    schema: &Value,
    has_status: bool,
    unchanged: bool,
    builtin: &Schema,
) -> ErrorList {
    let mut out = ErrorList::new();
    if has_status {
        root_fields(path, schema, &mut out);
    }
    if is_true(schema, "nullable") {
        let at = Path::new(&format!("{path}.nullable"));
        out.push(FieldError::forbidden(
            &at,
            "nullable cannot be true at the root",
        ));
    }
    let mut unreadable = None;
    match Structural::read(schema) {
        Err(wrong) => unreadable = Some(FieldError::invalid(path, "", &wrong)),
        Ok(structural) => {
            let mut wrong = ErrorList::new();
            shape::check(path, schema, &mut wrong);
            complete::check(path, schema, &mut wrong);
            wrong.sort_by_cached_key(ToString::to_string);
            if wrong.is_empty() {
                defaults::check(path, &structural, builtin, &mut out);
            }
            out.extend(wrong);
        }
    }
    openapi::check(path, schema, &mut out);
    if out.is_empty() {
        out.extend(unreadable);
    }
    // Rules are read by types, which only a sound schema has.
    if out.is_empty() {
        rules::check(path, schema, unchanged, &mut out);
    }
    out
}

/// Is the schema structural? What is wrong, in the order of the reference's condition.
pub fn violations(path: &Path, schema: &Value) -> Result<ErrorList, String> {
    Structural::read(schema)?;
    let mut wrong = ErrorList::new();
    shape::check(path, schema, &mut wrong);
    complete::check(path, schema, &mut wrong);
    wrong.sort_by_cached_key(ToString::to_string);
    Ok(wrong)
}

fn root_fields(path: &Path, schema: &Value, out: &mut ErrorList) {
    for (name, value) in schema.as_object().into_iter().flatten() {
        if is_zero(value) {
            continue;
        }
        if name == "type" && value != "object" {
            let at = Path::new(&format!("{path}.type"));
            let wrong = "only \"object\" is allowed as the type at the root of the schema if the \
                         status subresource is enabled";
            out.push(FieldError::invalid(&at, value.clone(), wrong));
            return;
        }
        if !ROOT_FIELDS.iter().any(|(_, known)| known == name) {
            let names: Vec<&str> = ROOT_FIELDS.iter().map(|(go, _)| *go).collect();
            let wrong = format!(
                "only [{}] fields are allowed at the root of the schema if the status \
                 subresource is enabled",
                names.join(" ")
            );
            out.push(FieldError::invalid(path, schema.clone(), &wrong));
            return;
        }
    }
}

/// What Go would not see as set.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn text<'v>(schema: &'v Value, name: &str) -> &'v str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn is_true(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

/// The schema of a part, when it is one.
fn part<'v>(schema: &'v Value, name: &str) -> Option<&'v Value> {
    schema.get(name).filter(|part| part.is_object())
}

fn parts<'v>(schema: &'v Value, name: &str) -> &'v [Value] {
    schema
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}
