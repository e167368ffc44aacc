//! From OpenAPI v3 to a schema, and from names of JSON to identifiers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::{Field, Schema, Shape, UNBOUNDED};
use crate::types::Type;
use crate::value::ListKind;
use crate::words::is_no_name;

/// What fits a request, in bytes.
const MAX_REQUEST: u64 = 3 * 1024 * 1024;

/// The identifier for a property's name, if it has one: reserved words are put between `__`,
/// characters that no identifier has are spelt out.
pub fn escape(name: &str) -> Option<String> {
    let first = name.chars().next()?;
    if is_no_name(name) {
        return Some(format!("__{name}__"));
    }
    if !(first.is_ascii_alphabetic() || first == '_') {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

fn flag(schema: &Map<String, Json>, key: &str) -> bool {
    schema.get(key).and_then(Json::as_bool).unwrap_or(false)
}

fn bound(schema: &Map<String, Json>, key: &str) -> Option<u64> {
    schema
        .get(key)
        .and_then(Json::as_i64)
        .map(|n| u64::try_from(n).unwrap_or(0))
}

/// `apiVersion`, `kind`, `metadata.name` and `metadata.generateName`, whether declared or not.
fn with_meta(schema: &Map<String, Json>) -> Map<String, Json> {
    let mut schema = schema.clone();
    let text = json!({"type": "string"});
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        let is = |value: Option<&Json>, kind: &str| value.is_some_and(|v| v["type"] == kind);
        let declared = is(properties.get("kind"), "string")
            && is(properties.get("apiVersion"), "string")
            && properties.get("metadata").is_some_and(|m| {
                is(Some(m), "object")
                    && is(m.pointer("/properties/name"), "string")
                    && is(m.pointer("/properties/generateName"), "string")
            });
        if !declared {
            properties.insert("kind".into(), text.clone());
            properties.insert("apiVersion".into(), text.clone());
            let metadata =
                json!({"type": "object", "properties": {"name": text, "generateName": text}});
            properties.insert("metadata".into(), metadata);
        }
    }
    schema
}

/// Reads a schema; `None` where expressions can't see the data.
pub(super) fn schema(json: &Json, name: &str, resource: bool) -> Option<Schema> {
    let schema = json.as_object()?;
    if flag(schema, "x-kubernetes-int-or-string") {
        let max = bound(schema, "maxLength").map_or(MAX_REQUEST - 2, |n| n.saturating_mul(4));
        return Some(Schema::new(Shape::Simple(Type::Dyn), max, 1));
    }
    let extended;
    let schema = if resource {
        extended = with_meta(schema);
        &extended
    } else {
        schema
    };
    match schema.get("type").and_then(Json::as_str)? {
        "array" => array(schema, name),
        "object" => object(schema, name),
        "string" => Some(text(schema)),
        "boolean" => Some(Schema::simple(Type::Bool).with_max(0)),
        "number" => Some(Schema::simple(Type::Double).with_max(0)),
        "integer" => Some(Schema::simple(Type::Int).with_max(0)),
        _ => None,
    }
}

fn embedded(json: &Json) -> bool {
    json.get("x-kubernetes-embedded-resource")
        .and_then(Json::as_bool)
        .unwrap_or(false)
}

fn array(declared: &Map<String, Json>, name: &str) -> Option<Schema> {
    let items = declared.get("items")?;
    let item = schema(items, &format!("{name}.@idx"), embedded(items))?;
    let max = bound(declared, "maxItems").unwrap_or((MAX_REQUEST - 2) / (item.0.min_size + 1));
    let kind = match declared
        .get("x-kubernetes-list-type")
        .and_then(Json::as_str)
    {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = declared
                .get("x-kubernetes-list-map-keys")
                .and_then(Json::as_array);
            let keys = keys.into_iter().flatten().filter_map(Json::as_str);
            ListKind::Map(
                keys.map(|k| escape(k).unwrap_or_else(|| k.into()))
                    .collect::<Vec<_>>()
                    .into(),
            )
        }
        _ => ListKind::Atomic,
    };
    Some(Schema::new(Shape::List { item, kind }, max, 2))
}

fn object(declared: &Map<String, Json>, name: &str) -> Option<Schema> {
    if let Some(additional) = declared
        .get("additionalProperties")
        .filter(|a| a.is_object())
    {
        let value = schema(additional, &format!("{name}.@prop"), embedded(additional))?;
        // Two bytes for each quote of the key, a colon, a comma.
        let max =
            bound(declared, "maxProperties").unwrap_or((MAX_REQUEST - 2) / (value.0.min_size + 6));
        return Some(Schema::new(Shape::Map { value }, max, 2));
    }
    let required: Vec<&str> = declared
        .get("required")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    let mut fields = BTreeMap::new();
    let mut min_size = 2;
    for (key, property) in declared
        .get("properties")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        let escaped = escape(key);
        let full = format!("{name}.{}", escaped.as_deref().unwrap_or(key));
        let Some(field) = schema(property, &full, embedded(property)) else {
            continue;
        };
        if required.contains(&key.as_str()) && property.get("default").is_none() {
            min_size += key.len() as u64 + field.0.min_size + 4;
        }
        if let Some(escaped) = escaped {
            fields.insert(
                escaped,
                Field {
                    json: key.clone(),
                    schema: field,
                },
            );
        }
    }
    // As the reference has it: comparing objects costs what comparing nothing costs.
    Some(Schema::object_of(name, fields, min_size).with_max(0))
}

fn text(schema: &Map<String, Json>) -> Schema {
    let simple = |ty: Type, max: u64, min: u64| Schema::new(Shape::Simple(ty), max, min);
    let length = bound(schema, "maxLength");
    match schema.get("format").and_then(Json::as_str) {
        Some("byte") => simple(Type::Bytes, length.unwrap_or(MAX_REQUEST - 2), 2),
        Some("duration") => simple(Type::Duration, 32, 3),
        Some("date") => simple(Type::Timestamp, 12, 12),
        Some("date-time") => simple(Type::Timestamp, 32, 21),
        _ => {
            let max = match (length, schema.get("enum").and_then(Json::as_array)) {
                // A code point is up to four bytes.
                (Some(length), _) => length.saturating_mul(4).min(UNBOUNDED),
                (None, Some(words)) if !words.is_empty() => words
                    .iter()
                    .filter_map(Json::as_str)
                    .map(|w| w.len() as u64)
                    .max()
                    .unwrap_or(0),
                _ => MAX_REQUEST - 2,
            };
            simple(Type::String, max, 2)
        }
    }
}

/// An object's type by its schema, for constructors.
impl Schema {
    /// The declared object, if this is one.
    pub fn object_type(&self) -> Option<Arc<crate::types::ObjectType>> {
        match &self.0.shape {
            Shape::Object { ty, .. } => Some(ty.clone()),
            _ => None,
        }
    }
}
