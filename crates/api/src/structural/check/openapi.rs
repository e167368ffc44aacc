//! What of OpenAPI a definition may use, and the rules of the extensions.

use serde_json::Value;

use super::{is_true, part, parts, properties, text};
use crate::field::{ErrorList, FieldError, Path};
use crate::structural::{Structural, field_at};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];

/// Where a schema stands.
#[derive(Clone, Copy, Default)]
struct Place {
    root: bool,
    /// Inside `metadata`, `kind` or `apiVersion` of the object or of an embedded one.
    meta: bool,
    /// Why there may be no default.
    no_default: Option<&'static str>,
}

pub(super) fn check(path: &Path, schema: &Value, out: &mut ErrorList) {
    let place = Place {
        root: true,
        ..Place::default()
    };
    walk(schema, path, place, out);
}

fn walk(schema: &Value, path: &Path, place: Place, out: &mut ErrorList) {
    standard(schema, path, place, out);
    if is_true(schema, "uniqueItems") {
        out.push(FieldError::forbidden(
            &path.child("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    let inner = Place {
        root: false,
        ..place
    };
    let additional = schema
        .get("additionalProperties")
        .filter(|it| !it.is_null());
    if let Some(shape) = additional {
        let at = path.child("additionalProperties");
        let has_properties = properties(schema).next().is_some();
        if has_properties && *shape != Value::Bool(true) {
            out.push(FieldError::forbidden(
                &at,
                "additionalProperties and properties are mutual exclusive",
            ));
        }
        if shape.is_object() {
            let place = if place.meta {
                Place {
                    no_default: Some("inside additionalProperties applying to object metadata"),
                    ..inner
                }
            } else {
                inner
            };
            walk(shape, &at, place, out);
        }
    }
    let embedded = is_true(schema, "x-kubernetes-embedded-resource");
    for (name, shape) in properties(schema) {
        let mut below = inner;
        let own = match name.as_str() {
            "metadata" => Some("in top-level metadata"),
            "kind" => Some("in top-level kind"),
            "apiVersion" => Some("in top-level apiVersion"),
            _ => None,
        };
        if own.is_some() && (place.root || embedded) {
            below.meta = true;
            if place.root {
                below.no_default = own;
            }
        }
        walk(shape, &path.child("properties").key(name), below, out);
    }
    if let Some(not) = part(schema, "not") {
        walk(not, &path.child("not"), inner, out);
    }
    for junctor in ["allOf", "oneOf", "anyOf"] {
        for (index, branch) in parts(schema, junctor).iter().enumerate() {
            walk(branch, &path.child(junctor).index(index), inner, out);
        }
    }
    if let Some(items) = part(schema, "items") {
        walk(items, &path.child("items"), inner, out);
    }
    extensions(schema, path, out);
    rules(schema, path, out);
}

fn standard(schema: &Value, path: &Path, place: Place, out: &mut ErrorList) {
    let ty = text(schema, "type");
    if !ty.is_empty() && !TYPES.contains(&ty) {
        out.push(FieldError::not_supported(&path.child("type"), ty, &TYPES));
    }
    let given = |name: &str| schema.get(name).is_some_and(|value| !value.is_null());
    if given("default")
        && let Some(why) = place.no_default
    {
        let wrong = format!("must not be set {why}");
        out.push(FieldError::forbidden(&path.child("default"), &wrong));
    }
    for name in [
        "id",
        "additionalItems",
        "patternProperties",
        "definitions",
        "dependencies",
        "$ref",
    ] {
        if given(name) && schema.get(name).is_none_or(|value| value != "") {
            let wrong = format!("{name} is not supported");
            out.push(FieldError::forbidden(&path.child(name), &wrong));
        }
    }
    if ty == "null" {
        out.push(FieldError::forbidden(
            &path.child("type"),
            "type cannot be set to null, use nullable as an alternative",
        ));
    }
    if schema.get("items").is_some_and(Value::is_array) {
        out.push(FieldError::forbidden(
            &path.child("items"),
            "items must be a schema object and not an array",
        ));
    }
    if place.meta && is_true(schema, "x-kubernetes-embedded-resource") {
        out.push(FieldError::forbidden(
            &path.child("x-kubernetes-embedded-resource"),
            "must not be used inside of resource meta",
        ));
    }
}

/// The type must be `wanted` because of an extension.
fn needs_type(schema: &Value, wanted: &str, because: &str, path: &Path, out: &mut ErrorList) {
    let ty = text(schema, "type");
    if ty == wanted {
        return;
    }
    let at = path.child("type");
    let wrong = format!("must be {wanted} if {because} is specified");
    out.push(if ty.is_empty() {
        FieldError::required(&at, &wrong)
    } else {
        FieldError::invalid(&at, ty, &wrong)
    });
}

fn extensions(schema: &Value, path: &Path, out: &mut ErrorList) {
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let at = path.child("x-kubernetes-preserve-unknown-fields");
        out.push(FieldError::invalid(&at, false, "must be true or undefined"));
    }
    if let Some(kind) = schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
        needs_type(schema, "object", "x-kubernetes-map-type", path, out);
        if !matches!(kind, "atomic" | "granular") {
            let at = path.child("x-kubernetes-map-type");
            out.push(FieldError::not_supported(
                &at,
                kind,
                &["atomic", "granular"],
            ));
        }
    }
    let kind = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    let list_at = path.child("x-kubernetes-list-type");
    if let Some(kind) = kind {
        needs_type(schema, "array", "x-kubernetes-list-type", path, out);
        if text(schema, "type") == "array" && kind == "set" {
            set_items(schema, path, out);
        }
        if !matches!(kind, "atomic" | "set" | "map") {
            out.push(FieldError::not_supported(
                &list_at,
                kind,
                &["atomic", "set", "map"],
            ));
        }
    }
    let keys = parts(schema, "x-kubernetes-list-map-keys");
    if !keys.is_empty() && kind != Some("map") {
        let wrong = "must be map if x-kubernetes-list-map-keys is non-empty";
        out.push(match kind {
            None => FieldError::required(&list_at, wrong),
            Some(kind) => FieldError::invalid(&list_at, kind, wrong),
        });
    }
    if kind == Some("map") {
        map_list(schema, keys, path, out);
    }
    if let (Some(kind @ ("set" | "map")), Some(items)) = (kind, part(schema, "items")) {
        keyed_items(kind, items, keys, &path.child("items"), out);
    }
}

fn set_items(schema: &Value, path: &Path, out: &mut ErrorList) {
    let Some(items) = part(schema, "items") else {
        return;
    };
    let wrong = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let list = items.get("x-kubernetes-list-type").and_then(Value::as_str);
    let at = path.child("items");
    match text(items, "type") {
        "array" if list.is_some_and(|list| list != "atomic") => {
            let at = at.child("x-kubernetes-list-type");
            out.push(FieldError::invalid(&at, list, wrong));
        }
        "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
            let at = at.child("x-kubernetes-map-type");
            out.push(FieldError::invalid(&at, list, wrong));
        }
        _ => {}
    }
}

fn map_list(schema: &Value, keys: &[Value], path: &Path, out: &mut ErrorList) {
    let keys_at = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        let wrong = "must not be empty if x-kubernetes-list-type is map";
        out.push(FieldError::required(&keys_at, wrong));
    }
    let Some(items) = part(schema, "items") else {
        if schema.get("items").is_none_or(Value::is_null) {
            let wrong = "must have a schema if x-kubernetes-list-type is map";
            out.push(FieldError::required(&path.child("items"), wrong));
        }
        return;
    };
    let ty = text(items, "type");
    if ty != "object" {
        let wrong = "must be object if parent array's x-kubernetes-list-type is map";
        let at = path.child("items").child("type");
        out.push(FieldError::invalid(&at, ty, wrong));
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for key in keys.iter().filter_map(Value::as_str) {
        match items.get("properties").and_then(|all| all.get(key)) {
            Some(property) if matches!(text(property, "type"), "array" | "object") => {
                let at = path
                    .child("items")
                    .child("properties")
                    .key(key)
                    .child("type");
                let wrong = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                out.push(FieldError::invalid(&at, ty, wrong));
            }
            Some(_) => {}
            None => out.push(FieldError::invalid(
                &keys_at,
                Value::from(keys.to_vec()),
                "entries must all be names of item properties",
            )),
        }
        if seen.contains(&key) {
            out.push(FieldError::invalid(
                &keys_at,
                Value::from(keys.to_vec()),
                "must not contain duplicate entries",
            ));
        }
        seen.push(key);
    }
}

/// Items of sets and keyed lists are never null, and keys are always there.
fn keyed_items(kind: &str, items: &Value, keys: &[Value], path: &Path, out: &mut ErrorList) {
    if is_true(items, "nullable") {
        let wrong = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        out.push(FieldError::forbidden(&path.child("nullable"), &wrong));
    }
    if kind != "map" {
        return;
    }
    let required = parts(items, "required");
    for key in keys.iter().filter_map(Value::as_str) {
        let Some(property) = items.get("properties").and_then(|all| all.get(key)) else {
            continue;
        };
        let at = path.child("properties").key(key);
        if !required.iter().any(|name| name == key)
            && property.get("default").is_none_or(Value::is_null)
        {
            out.push(FieldError::required(
                &at.child("default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be \
                 a required property",
            ));
        }
        if is_true(property, "nullable") {
            out.push(FieldError::forbidden(
                &at.child("nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            ));
        }
    }
}

/// The texts of rules; the expressions themselves are checked where they are compiled.
fn rules(schema: &Value, path: &Path, out: &mut ErrorList) {
    let lines = |text: &str| text.contains(['\n', '\r']);
    for (index, rule) in parts(schema, "x-kubernetes-validations").iter().enumerate() {
        let at = path.child("x-kubernetes-validations").index(index);
        let [expression, message, by_expression, field] =
            ["rule", "message", "messageExpression", "fieldPath"].map(|name| text(rule, name));
        let trimmed = message.trim();
        if expression.trim().is_empty() {
            out.push(FieldError::required(
                &at.child("rule"),
                "rule is not specified",
            ));
        } else if !message.is_empty() && trimmed.is_empty() {
            let wrong = "must be non-empty if specified";
            out.push(FieldError::invalid(&at.child("message"), message, wrong));
        } else if lines(trimmed) {
            let wrong = "must not contain line breaks";
            out.push(FieldError::invalid(&at.child("message"), message, wrong));
        } else if lines(expression.trim()) && trimmed.is_empty() {
            out.push(FieldError::required(
                &at.child("message"),
                "message must be specified if rule contains line breaks",
            ));
        }
        if !by_expression.is_empty() && by_expression.trim().is_empty() {
            out.push(FieldError::required(
                &at.child("messageExpression"),
                "messageExpression must be non-empty if specified",
            ));
        }
        if let Some(reason) = rule.get("reason").and_then(Value::as_str)
            && !REASONS.contains(&reason)
        {
            let at = at.child("reason");
            out.push(FieldError::not_supported(&at, reason, &REASONS));
        }
        if field.is_empty() {
            continue;
        }
        let at = at.child("fieldPath");
        if field.trim().is_empty() {
            let wrong = "must be non-empty if specified";
            out.push(FieldError::invalid(&at, field, wrong));
        }
        if lines(field) {
            let wrong = "must not contain line breaks";
            out.push(FieldError::invalid(&at, field, wrong));
        }
        if let Ok(structural) = Structural::read(schema)
            && field_at(&structural, field, true).is_err()
        {
            out.push(FieldError::invalid(&at, field, "must be a valid path"));
        }
    }
}
