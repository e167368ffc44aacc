//! The types of custom kinds in OpenAPI, from the schemas of their definitions.
//!
//! The schema stands as the definition has it, with what every object has added. For Swagger 2.0
//! it loses what clients of that time stumble over, by the rules of
//! `apiextensions-apiserver/pkg/controller/openapi/v2`.

use serde_json::{Map, Value, json};

use super::schemas::{Form, META, REFERENCE, gvk, list, list_type};
use crate::row::{GroupVersionKind, ResourceDef};

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The types of a custom kind and of its list.
pub(super) fn definitions(row: &ResourceDef, form: Form) -> Vec<(String, Value)> {
    let schema = row.custom.as_ref().and_then(|custom| custom.schema());
    let mut object = object(schema, form);
    let kinds = |kind: &GroupVersionKind| Value::Array(vec![gvk(kind)]);
    let selectable: Vec<Value> = row
        .selectable
        .iter()
        .map(|field| json!({"fieldPath": field.path}))
        .collect();
    if let Value::Object(fields) = &mut object {
        fields.insert("x-kubernetes-group-version-kind".into(), kinds(&row.gvk));
        if !selectable.is_empty() && form == Form::V3 {
            fields.insert("x-kubernetes-selectable-fields".into(), selectable.into());
        }
    }
    let list_kind = GroupVersionKind {
        kind: row.list_kind.clone(),
        ..row.gvk.clone()
    };
    let mut all = list(row);
    all["description"] = format!("{} is a list of {}", row.list_kind, row.gvk.kind).into();
    all["properties"]["items"]["description"] = format!(
        "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
        row.plural
    )
    .into();
    all["properties"]["items"]["items"] = json!({"$ref": format!("{REFERENCE}{}", row.type_name)});
    all["properties"]["metadata"] = json!({
        "allOf": [{"$ref": format!("{REFERENCE}{META}ListMeta")}],
        "description": "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    });
    all["x-kubernetes-group-version-kind"] = kinds(&list_kind);
    vec![(row.type_name.to_string(), object), (list_type(row), all)]
}

fn is_true(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

fn object(schema: Option<Value>, form: Form) -> Value {
    let Some(Value::Object(schema)) = schema else {
        return json!({"type": "object"});
    };
    // With properties, clients of 2.0 take everything else for unknown.
    if form == Form::V2 && is_true(&schema, "x-kubernetes-preserve-unknown-fields") {
        return json!({"type": "object"});
    }
    let mut schema = match form {
        Form::V2 => reduced(schema),
        Form::V3 => schema,
    };
    embed_all(&mut schema, form);
    identity(&mut schema, API_VERSION, KIND);
    Value::Object(schema)
}

/// `apiVersion`, `kind` and `metadata` of an object.
fn identity(schema: &mut Map<String, Value>, api_version: &str, kind: &str) {
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        properties.insert(
            "apiVersion".into(),
            json!({"type": "string", "description": api_version}),
        );
        properties.insert(
            "kind".into(),
            json!({"type": "string", "description": kind}),
        );
        properties.insert(
            "metadata".into(),
            json!({
                "allOf": [{"$ref": format!("{REFERENCE}{META}ObjectMeta")}],
                "description": METADATA,
            }),
        );
    }
}

/// Embedded objects have an identity too.
fn embed_all(schema: &mut Map<String, Value>, form: Form) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            embed_all(property, form);
        }
    }
    for name in ["items", "additionalProperties"] {
        if let Some(Value::Object(inner)) = schema.get_mut(name) {
            embed_all(inner, form);
        }
    }
    let open = form == Form::V2 && is_true(schema, "x-kubernetes-preserve-unknown-fields");
    if !is_true(schema, "x-kubernetes-embedded-resource") || open {
        return;
    }
    identity(
        schema,
        "apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
        "kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    );
    let required = schema.entry("required").or_insert_with(|| json!([]));
    if let Value::Array(required) = required {
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known == name) {
                required.push(name.into());
            }
        }
    }
}

/// What of a schema clients of Swagger 2.0 can use.
fn reduced(mut schema: Map<String, Value>) -> Map<String, Value> {
    for name in ["allOf", "anyOf", "oneOf", "not"] {
        schema.remove(name);
    }
    let open = is_true(&schema, "x-kubernetes-preserve-unknown-fields");
    if schema.remove("nullable") == Some(Value::Bool(true)) {
        for name in ["type", "items", "properties"] {
            schema.remove(name);
        }
    }
    if open {
        schema.remove("items");
        schema.remove("properties");
    }
    let ty = schema
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if (ty == "array" && !schema.contains_key("items")) || (open && ty == "object") {
        schema.remove("type");
    }
    let nullable: Vec<String> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, shape)| shape.get("nullable") == Some(&Value::Bool(true)))
        .map(|(name, _)| name.clone())
        .collect();
    let loose_entries = schema
        .get("additionalProperties")
        .is_some_and(|shape| shape.get("nullable") == Some(&Value::Bool(true)));
    if loose_entries {
        schema.remove("required");
    } else if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| !nullable.iter().any(|other| name == other));
        if required.is_empty() {
            schema.remove("required");
        }
    }
    schema
        .into_iter()
        .map(|(name, value)| {
            let value = match (name.as_str(), value) {
                ("properties", Value::Object(all)) => all
                    .into_iter()
                    .map(|(name, shape)| (name, reduced_value(shape)))
                    .collect::<Map<_, _>>()
                    .into(),
                ("items" | "additionalProperties", shape) => reduced_value(shape),
                (_, value) => value,
            };
            (name, value)
        })
        .collect()
}

fn reduced_value(shape: Value) -> Value {
    match shape {
        Value::Object(schema) => Value::Object(reduced(schema)),
        other => other,
    }
}
