//! From the JSON of a definition to [`Structural`].

use serde_json::Value;

use super::{Additional, Checks, ListKind, Rule, Structural, Type, formats};

impl Structural {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What makes a schema unusable altogether, in the reference's words. Everything else that
    /// can be wrong with it is found by [`super::check`].
    pub fn read(schema: &Value) -> Result<Self, String> {
        unsupported(schema)?;
        let flag = |name: &str| schema.get(name) == Some(&Value::Bool(true));
        let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            return Err(
                "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined"
                    .to_owned(),
            );
        }
        let ty = match text("type") {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => Type::None,
        };
        let mut properties = Vec::new();
        for (name, shape) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            properties.push((name.as_str().into(), Self::read(shape)?));
        }
        properties.sort_by(|a: &(Box<str>, Self), b| a.0.cmp(&b.0));
        let additional = match schema.get("additionalProperties") {
            None | Some(Value::Null) => Additional::None,
            Some(Value::Bool(allowed)) => Additional::Bool(*allowed),
            Some(shape) => Additional::Schema(Box::new(Self::read(shape)?)),
        };
        let items = match schema.get("items") {
            None | Some(Value::Null) => None,
            Some(Value::Array(_)) => {
                return Err("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
            }
            Some(shape) => Some(Box::new(Self::read(shape)?)),
        };
        Ok(Self {
            ty,
            nullable: flag("nullable"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            list: match text("x-kubernetes-list-type") {
                "set" => ListKind::Set,
                "map" => ListKind::Map,
                _ => ListKind::Atomic,
            },
            list_keys: texts(schema, "x-kubernetes-list-map-keys"),
            default: schema
                .get("default")
                .filter(|value| !value.is_null())
                .map(|value| Box::new(value.clone())),
            items,
            properties: properties.into(),
            additional,
            checks: checks(schema, ty)?.map(Box::new),
            rules: rules(schema),
        })
    }
}

fn texts(schema: &Value, name: &str) -> Box<[Box<str>]> {
    schema
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect()
}

fn rules(schema: &Value) -> Box<[Rule]> {
    schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|rule| {
            let text = |name: &str| {
                let found = rule.get(name).and_then(Value::as_str);
                Box::from(found.unwrap_or_default())
            };
            Rule {
                rule: text("rule"),
                message: text("message"),
                message_expression: text("messageExpression"),
                reason: text("reason"),
                field_path: text("fieldPath"),
                optional_old_self: rule.get("optionalOldSelf") == Some(&Value::Bool(true)),
            }
        })
        .collect()
}

fn checks(schema: &Value, ty: Type) -> Result<Option<Checks>, String> {
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let integer = |name: &str| schema.get(name).and_then(Value::as_i64);
    let flag = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    let all = |name: &str| -> Result<Box<[Structural]>, String> {
        schema
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(Structural::read)
            .collect()
    };
    let format = schema
        .get("format")
        .and_then(Value::as_str)
        .filter(|format| formats::is_known(ty, format));
    let pattern = schema
        .get("pattern")
        .and_then(Value::as_str)
        .filter(|pattern| !pattern.is_empty());
    let checks = Checks {
        format: format.map(Into::into),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        multiple_of: number("multipleOf"),
        max_length: integer("maxLength"),
        min_length: integer("minLength"),
        pattern: pattern.map(formats::Pattern::new),
        max_items: integer("maxItems"),
        min_items: integer("minItems"),
        max_properties: integer("maxProperties"),
        min_properties: integer("minProperties"),
        one_of_values: schema
            .get("enum")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
            .into(),
        required: texts(schema, "required"),
        all_of: all("allOf")?,
        any_of: all("anyOf")?,
        one_of: all("oneOf")?,
        not: match schema.get("not") {
            None | Some(Value::Null) => None,
            Some(not) => Some(Box::new(Structural::read(not)?)),
        },
    };
    Ok((!checks.is_empty()).then_some(checks))
}

impl Checks {
    fn is_empty(&self) -> bool {
        self.format.is_none()
            && self.maximum.is_none()
            && self.minimum.is_none()
            && self.multiple_of.is_none()
            && self.max_length.is_none()
            && self.min_length.is_none()
            && self.pattern.is_none()
            && self.max_items.is_none()
            && self.min_items.is_none()
            && self.max_properties.is_none()
            && self.min_properties.is_none()
            && self.one_of_values.is_empty()
            && self.required.is_empty()
            && self.all_of.is_empty()
            && self.any_of.is_empty()
            && self.one_of.is_empty()
            && self.not.is_none()
    }
}

/// Parts of JSON schema that structural schemas do not have.
fn unsupported(schema: &Value) -> Result<(), String> {
    for name in [
        "id",
        "$schema",
        "$ref",
        "patternProperties",
        "dependencies",
        "additionalItems",
        "definitions",
    ] {
        let given = match schema.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Object(map)) => !map.is_empty() || name == "additionalItems",
            Some(_) => true,
        };
        if given {
            let name = name.trim_start_matches(if name == "$schema" { "$" } else { "" });
            return Err(format!("OpenAPIV3Schema '{name}' is not supported"));
        }
    }
    Ok(())
}
