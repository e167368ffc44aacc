//! From published JSON schemas to [`Schema`].

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use serde_json::Value;

use super::{Field, ListType, PatchFacts, Schema, Ty, TypeDef, facts};

/// Adds a type and all it refers to to a generator.
pub type SchemaSource = fn(&mut SchemaGenerator);

impl Schema {
    /// Builds the schema of built-in kinds from their published schemas and the table of facts.
    #[must_use]
    pub fn from_sources(sources: &[SchemaSource]) -> Self {
        let mut generator = SchemaGenerator::default();
        for source in sources {
            source(&mut generator);
        }
        let definitions = generator.take_definitions(false);
        let mut schema = Self::default();
        for name in definitions.keys() {
            schema.add(TypeDef {
                name: name.clone(),
                ..TypeDef::default()
            });
        }
        for (name, definition) in &definitions {
            let Some(properties) = definition.get("properties").and_then(Value::as_object) else {
                continue;
            };
            let fields: BTreeMap<Box<str>, Field> = properties
                .iter()
                .map(|(field, shape)| (field.as_str().into(), new_field(schema.ty(shape))))
                .collect();
            if let Some(Ty::Struct(index)) = schema.named(name) {
                schema.types[index].fields = fields;
            }
        }
        facts::join(&mut schema);
        schema.hold();
        schema
    }

    fn ty(&self, shape: &Value) -> Ty {
        if let Some(reference) = reference(shape) {
            return match reference.rsplit('.').next().unwrap_or_default() {
                "Quantity" => Ty::Quantity,
                "IntOrString" => Ty::IntOrString,
                "Time" => Ty::Time,
                "MicroTime" => Ty::MicroTime,
                "RawExtension"
                | "FieldsV1"
                | "JSON"
                | "JSONSchemaPropsOrBool"
                | "JSONSchemaPropsOrStringArray" => Ty::Any,
                // Lists of schemas are refused with a definition, so this is one schema.
                "JSONSchemaPropsOrArray" => {
                    let one = reference.trim_end_matches("OrArray");
                    self.named(one).unwrap_or(Ty::Any)
                }
                _ => self.named(reference).unwrap_or(Ty::Any),
            };
        }
        match shape.get("type").and_then(Value::as_str) {
            Some("boolean") => Ty::Bool,
            Some("integer") => match shape.get("format").and_then(Value::as_str) {
                Some("int64") => Ty::Int64,
                _ => Ty::Int32,
            },
            Some("number") => Ty::Number,
            Some("string") => match shape.get("format").and_then(Value::as_str) {
                Some("byte") => Ty::Bytes,
                Some("date-time") => Ty::Time,
                _ => Ty::String,
            },
            Some("array") => Ty::List(Box::new(
                shape.get("items").map_or(Ty::Any, |items| self.ty(items)),
            )),
            Some("object") => shape
                .get("additionalProperties")
                .filter(|values| values.is_object())
                .map_or(Ty::Any, |values| Ty::Map(Box::new(self.ty(values)))),
            _ if shape.get("x-kubernetes-int-or-string").is_some() => Ty::IntOrString,
            _ => Ty::Any,
        }
    }
}

fn reference(shape: &Value) -> Option<&str> {
    shape
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|text| text.rsplit('/').next())
}

fn new_field(ty: Ty) -> Field {
    Field {
        ty,
        list: ListType::Atomic,
        patch: PatchFacts::default(),
        atomic: None,
        off: false,
        gate: None,
        schema_or_bool: false,
        values: Box::default(),
        default: None,
        always: false,
        pointer: false,
    }
}
