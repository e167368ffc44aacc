//! Paths of Swagger 2.0 in the form of OpenAPI 3.0.

use serde_json::{Map, Value, json};

/// Translates a path item: bodies move out of the parameters, media types into the contents.
pub(super) fn path_item(item: Value) -> Value {
    let Value::Object(fields) = item else {
        return item;
    };
    let fields: Map<String, Value> = fields
        .into_iter()
        .map(|(name, value)| {
            let value = match (name.as_str(), value) {
                ("parameters", Value::Array(all)) => all.into_iter().map(parameter).collect(),
                (_, value) => operation(value),
            };
            (name, value)
        })
        .collect();
    Value::Object(fields)
}

fn operation(operation: Value) -> Value {
    let Value::Object(mut fields) = operation else {
        return operation;
    };
    let media = |fields: &mut Map<String, Value>, name: &str| -> Vec<String> {
        let listed = fields.remove(name).unwrap_or_default();
        listed
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let consumes = media(&mut fields, "consumes");
    let produces = media(&mut fields, "produces");
    fields.remove("schemes");
    if let Some(Value::Array(all)) = fields.remove("parameters") {
        let (bodies, others): (Vec<Value>, Vec<Value>) = all
            .into_iter()
            .partition(|parameter| parameter["in"] == "body");
        if !others.is_empty() {
            fields.insert(
                "parameters".into(),
                others.into_iter().map(parameter).collect(),
            );
        }
        if let Some(body) = bodies.into_iter().next() {
            let mut request = json!({"content": content(&body["schema"], &consumes)});
            if body["required"] == true {
                request["required"] = true.into();
            }
            fields.insert("requestBody".into(), request);
        }
    }
    if let Some(Value::Object(responses)) = fields.get_mut("responses") {
        for response in responses.values_mut() {
            let Some(response) = response.as_object_mut() else {
                continue;
            };
            if let Some(schema) = response.remove("schema") {
                response.insert("content".into(), content(&schema, &produces));
            }
        }
    }
    Value::Object(fields)
}

fn content(schema: &Value, media: &[String]) -> Value {
    let mut schema = schema.clone();
    if let Some(Value::String(target)) = schema.get_mut("$ref") {
        *target = target.replace("#/definitions/", "#/components/schemas/");
    }
    let content: Map<String, Value> = media
        .iter()
        .map(|media| (media.clone(), json!({"schema": schema})))
        .collect();
    Value::Object(content)
}

fn parameter(parameter: Value) -> Value {
    let Value::Object(mut fields) = parameter else {
        return parameter;
    };
    let mut schema = Map::new();
    for name in ["type", "uniqueItems", "format"] {
        if let Some(value) = fields.remove(name) {
            schema.insert(name.to_owned(), value);
        }
    }
    fields.insert("schema".into(), schema.into());
    Value::Object(fields)
}
