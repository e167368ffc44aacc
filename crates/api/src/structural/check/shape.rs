//! Structurality: types everywhere, and nothing structural under the junctors.

use serde_json::Value;

use super::{is_true, is_zero, part, parts, properties, text};
use crate::field::{ErrorList, FieldError, Path};
use crate::structural::formats;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

pub(super) fn check(path: &Path, schema: &Value, out: &mut ErrorList) {
    structure(schema, Level::Root, path, out);
}

fn structure(schema: &Value, level: Level, path: &Path, out: &mut ErrorList) {
    let ty = text(schema, "type");
    let items = part(schema, "items");
    if ty == "array" && items.is_none() {
        out.push(FieldError::required(
            &path.child("items"),
            "must be specified",
        ));
    }
    if let Some(items) = items {
        structure(items, Level::Item, &path.child("items"), out);
    }
    for (name, shape) in properties(schema) {
        let at = path.child("properties").key(name);
        structure(shape, Level::Field, &at, out);
    }
    let additional = schema
        .get("additionalProperties")
        .filter(|it| !it.is_null());
    if let Some(shape) = additional {
        let at = path.child("additionalProperties");
        if level == Level::Root {
            out.push(FieldError::forbidden(&at, "must not be used at the root"));
        }
        if shape.is_object() {
            structure(shape, Level::Field, &at, out);
        }
    }
    let int_or_string = is_true(schema, "x-kubernetes-int-or-string");
    let preserve = is_true(schema, "x-kubernetes-preserve-unknown-fields");
    let embedded = is_true(schema, "x-kubernetes-embedded-resource");
    for (set, name) in [
        (preserve, "x-kubernetes-preserve-unknown-fields"),
        (embedded, "x-kubernetes-embedded-resource"),
    ] {
        if int_or_string && set {
            let wrong = "must be false if x-kubernetes-int-or-string is true";
            out.push(FieldError::invalid(&path.child(name), true, wrong));
        }
    }
    let skip_any = is_int_or_string(parts(schema, "anyOf"));
    let skip_first = parts(schema, "allOf")
        .first()
        .is_some_and(|first| is_int_or_string(parts(first, "anyOf")));
    values(schema, skip_any, skip_first, level, path, out);
    types(schema, ty, level, path, out);
    if embedded && additional.is_some() {
        out.push(FieldError::forbidden(
            &path.child("additionalProperties"),
            "must not be used if x-kubernetes-embedded-resource is set",
        ));
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        let at = path.child("type");
        out.push(FieldError::invalid(&at, ty, "must be object at the root"));
    }
    let own_metadata = level == Level::Root || embedded;
    metadata(schema, level, own_metadata, path, out);
    if embedded && !preserve && properties(schema).next().is_none() {
        out.push(FieldError::required(
            &path.child("properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without \
             x-kubernetes-preserve-unknown-fields",
        ));
    }
}

fn types(schema: &Value, ty: &str, level: Level, path: &Path, out: &mut ErrorList) {
    let at = path.child("type");
    if is_true(schema, "x-kubernetes-embedded-resource") && ty != "object" {
        let wrong = "must be object if x-kubernetes-embedded-resource is true";
        out.push(if ty.is_empty() {
            FieldError::required(&at, wrong)
        } else {
            FieldError::invalid(&at, ty, wrong)
        });
        return;
    }
    let free = is_true(schema, "x-kubernetes-int-or-string")
        || is_true(schema, "x-kubernetes-preserve-unknown-fields");
    if ty.is_empty() && !free {
        let wrong = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        out.push(FieldError::required(&at, wrong));
    }
}

/// Of an object's own identity only names may be restricted.
fn metadata(schema: &Value, level: Level, own: bool, path: &Path, out: &mut ErrorList) {
    let at = |name: &str| path.child("properties").key(name);
    for (name, shape) in properties(schema) {
        match name.as_str() {
            "kind" | "apiVersion" if own => {
                let ty = text(shape, "type");
                if ty != "string" {
                    let at = at(name).child("type");
                    out.push(FieldError::invalid(&at, ty, "must be string"));
                }
            }
            "metadata" => {
                let ty = text(shape, "type");
                if own && ty != "object" {
                    let at = at(name).child("type");
                    out.push(FieldError::invalid(&at, ty, "must be object"));
                }
                if level == Level::Root && !only_names(shape) {
                    out.push(FieldError::forbidden(
                        &at(name),
                        "must not specify anything other than name and generateName, but \
                         metadata is implicitly specified",
                    ));
                }
            }
            _ => {}
        }
    }
}

fn only_names(shape: &Value) -> bool {
    shape
        .as_object()
        .into_iter()
        .flatten()
        .all(|(field, value)| match field.as_str() {
            "type" | "default" => true,
            "properties" => value
                .as_object()
                .into_iter()
                .flatten()
                .all(|(name, _)| matches!(name.as_str(), "name" | "generateName")),
            _ => is_zero(value),
        })
}

/// `anyOf: [{type: integer}, {type: string}]`
fn is_int_or_string(branches: &[Value]) -> bool {
    let only = |branch: &Value, ty: &str| {
        branch
            .as_object()
            .is_some_and(|fields| fields.len() == 1 && fields.get("type").is_some_and(|t| t == ty))
    };
    matches!(branches, [first, second] if only(first, "integer") && only(second, "string"))
}

fn values(
    schema: &Value,
    skip_any: bool,
    skip_first: bool,
    level: Level,
    path: &Path,
    out: &mut ErrorList,
) {
    if !skip_any {
        for (index, branch) in parts(schema, "anyOf").iter().enumerate() {
            nested(branch, false, level, &path.child("anyOf").index(index), out);
        }
    }
    for (index, branch) in parts(schema, "allOf").iter().enumerate() {
        let skip = skip_first && index == 0;
        nested(branch, skip, level, &path.child("allOf").index(index), out);
    }
    for (index, branch) in parts(schema, "oneOf").iter().enumerate() {
        nested(branch, false, level, &path.child("oneOf").index(index), out);
    }
    if let Some(not) = part(schema, "not") {
        nested(not, false, level, &path.child("not"), out);
    }
    let pattern = text(schema, "pattern");
    if !pattern.is_empty()
        && let Err(error) = formats::compile(pattern)
    {
        let wrong = format!("must be a valid regular expression, but isn't: {error}");
        out.push(FieldError::invalid(&path.child("pattern"), pattern, &wrong));
    }
}

fn nested(schema: &Value, skip_any: bool, level: Level, path: &Path, out: &mut ErrorList) {
    values(schema, skip_any, false, level, path, out);
    if let Some(items) = part(schema, "items") {
        nested(items, false, level, &path.child("items"), out);
    }
    for (name, shape) in properties(schema) {
        let at = path.child("properties").key(name);
        nested(shape, false, Level::Field, &at, out);
    }
    let additional = match schema.get("additionalProperties") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(_) => true,
    };
    if additional {
        out.push(FieldError::forbidden(
            &path.child("additionalProperties"),
            "must be undefined to be structural",
        ));
    }
    for (name, wrong) in [
        ("type", "must be empty to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        (
            "x-kubernetes-preserve-unknown-fields",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-embedded-resource",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-int-or-string",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-list-map-keys",
            "must be empty to be structural",
        ),
        (
            "x-kubernetes-list-type",
            "must be undefined to be structural",
        ),
        (
            "x-kubernetes-map-type",
            "must be undefined to be structural",
        ),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let set = match schema.get(name) {
            None | Some(Value::Null) => false,
            Some(value) => name == "default" || !is_zero(value),
        };
        if set {
            out.push(FieldError::forbidden(&path.child(name), wrong));
        }
    }
    if schema
        .get("properties")
        .is_some_and(|all| all.get("metadata").is_some())
    {
        out.push(FieldError::forbidden(
            &path.child("properties").key("metadata"),
            "must not be specified in a nested context",
        ));
    }
}
