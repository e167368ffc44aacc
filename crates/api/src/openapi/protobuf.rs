//! Swagger 2.0 as `openapi.v2.Document` of gnostic's `OpenAPIv2.proto`.
//!
//! Only the messages and fields that our documents use are written, and those that are common in
//! documents of other servers; bounds of values are not. Extensions are YAML text,
//! as the reference writes them and kubectl reads them.

use serde_json::Value;

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        loop {
            let low = u8::try_from(value & 0x7f).unwrap_or(0);
            value >>= 7;
            if value == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn bool(&mut self, field: u64, value: bool) {
        if value {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, field: u64, inner: &Self) {
        self.bytes(field, &inner.0);
    }

    /// Text, when it is there.
    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, value: &Value) {
        for text in value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            self.bytes(field, text.as_bytes());
        }
    }

    /// `Named*`: a name and a message.
    fn named(&mut self, field: u64, name: &str, value: &Self) {
        let mut entry = Self::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, value);
        self.message(field, &entry);
    }

    /// All `x-` fields as `NamedAny`.
    fn extensions(&mut self, field: u64, of: &Value) {
        for (name, value) in of.as_object().into_iter().flatten() {
            if name.starts_with("x-") {
                let mut any = Self::default();
                any.bytes(2, yaml(value).as_bytes());
                self.named(field, name, &any);
            }
        }
    }
}

/// A document under construction.
pub(super) struct Document {
    head: Message,
    paths: Message,
    definitions: Message,
}

impl Document {
    pub(super) fn begin(info: &Value) -> Self {
        let mut head = Message::default();
        head.bytes(1, b"2.0");
        let mut message = Message::default();
        message.text(1, &info["title"]);
        message.text(2, &info["version"]);
        head.message(2, &message);
        Self {
            head,
            paths: Message::default(),
            definitions: Message::default(),
        }
    }

    pub(super) fn path(&mut self, path: &str, item: &Value) {
        self.paths.named(2, path, &path_item(item));
    }

    pub(super) fn definition(&mut self, name: &str, definition: &Value) {
        self.definitions.named(1, name, &schema(definition));
    }

    pub(super) fn end(mut self, security: &Value) -> Vec<u8> {
        self.head.message(8, &self.paths);
        self.paths = Message::default();
        self.head.message(9, &self.definitions);
        self.definitions = Message::default();
        let mut definitions = Message::default();
        for (name, found) in security.as_object().into_iter().flatten() {
            let mut requirement = Message::default();
            requirement.named(1, name, &Message::default());
            self.head.message(12, &requirement);
            let mut key = Message::default();
            for (field, part) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
                key.text(field, &found[part]);
            }
            let mut item = Message::default();
            item.message(2, &key);
            definitions.named(1, name, &item);
        }
        self.head.message(13, &definitions);
        self.head.0
    }
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    for (field, method) in [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (6, "options"),
        (7, "head"),
        (8, "patch"),
    ] {
        if let Some(found) = item.get(method) {
            message.message(field, &operation(found));
        }
    }
    parameters(&mut message, 9, item);
    message
}

fn operation(operation: &Value) -> Message {
    let mut message = Message::default();
    message.texts(1, &operation["tags"]);
    message.text(3, &operation["description"]);
    message.text(5, &operation["operationId"]);
    message.texts(6, &operation["produces"]);
    message.texts(7, &operation["consumes"]);
    parameters(&mut message, 8, operation);
    let mut responses = Message::default();
    for (code, found) in operation["responses"].as_object().into_iter().flatten() {
        let mut response = Message::default();
        response.text(1, &found["description"]);
        if let Some(found) = found.get("schema") {
            let mut item = Message::default();
            item.message(1, &schema(found));
            response.message(2, &item);
        }
        let mut value = Message::default();
        value.message(1, &response);
        responses.named(1, code, &value);
    }
    message.message(9, &responses);
    message.texts(10, &operation["schemes"]);
    message.extensions(13, operation);
    message
}

fn parameters(message: &mut Message, field: u64, of: &Value) {
    for found in of["parameters"].as_array().into_iter().flatten() {
        let mut item = Message::default();
        item.message(1, &parameter(found));
        message.message(field, &item);
    }
}

fn parameter(parameter: &Value) -> Message {
    let mut message = Message::default();
    let required = parameter["required"] == true;
    let place = parameter["in"].as_str().unwrap_or_default();
    if place == "body" {
        let mut body = Message::default();
        body.text(1, &parameter["description"]);
        body.text(2, &parameter["name"]);
        body.text(3, &parameter["in"]);
        body.bool(4, required);
        body.message(5, &schema(&parameter["schema"]));
        message.message(1, &body);
        return message;
    }
    // All of them have the same fields; numbers differ from `type` on.
    let (kind, shift) = match place {
        "header" => (1, 0),
        "formData" => (2, 1),
        "query" => (3, 1),
        _ => (4, 0),
    };
    let mut plain = Message::default();
    plain.bool(1, required);
    plain.text(2, &parameter["in"]);
    plain.text(3, &parameter["description"]);
    plain.text(4, &parameter["name"]);
    plain.text(5 + shift, &parameter["type"]);
    plain.text(6 + shift, &parameter["format"]);
    plain.bool(19 + shift, parameter["uniqueItems"] == true);
    let mut other = Message::default();
    other.message(kind, &plain);
    message.message(2, &other);
    message
}

fn schema(schema: &Value) -> Message {
    let mut message = Message::default();
    let Some(fields) = schema.as_object() else {
        return message;
    };
    for (field, name) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description")] {
        if let Some(value) = fields.get(name) {
            message.text(field, value);
        }
    }
    if let Some(required) = fields.get("required") {
        message.texts(19, required);
    }
    if let Some(pattern) = fields.get("pattern") {
        message.text(13, pattern);
    }
    for value in fields
        .get("enum")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let mut any = Message::default();
        any.bytes(2, yaml(value).as_bytes());
        message.message(20, &any);
    }
    if let Some(found) = fields.get("additionalProperties") {
        let mut item = Message::default();
        match found {
            Value::Bool(allowed) => item.bool(2, *allowed),
            found => item.message(1, &self::schema(found)),
        }
        message.message(21, &item);
    }
    if let Some(ty) = fields.get("type") {
        let mut item = Message::default();
        item.text(1, ty);
        message.message(22, &item);
    }
    if let Some(items) = fields.get("items") {
        let mut item = Message::default();
        item.message(1, &self::schema(items));
        message.message(23, &item);
    }
    for one in fields
        .get("allOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        message.message(24, &self::schema(one));
    }
    if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
        let mut all = Message::default();
        for (name, property) in properties {
            all.named(1, name, &self::schema(property));
        }
        message.message(25, &all);
    }
    message.extensions(31, schema);
    message
}

/// YAML of what extensions hold: scalars, lists and flat maps.
fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Array(items) => {
            for item in items {
                out.push_str("- ");
                out.push_str(&yaml(item).trim_end_matches('\n').replace('\n', "\n  "));
                out.push('\n');
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                out.push_str(&format!("{name}: {}\n", scalar(value)));
            }
        }
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ','))
                && !matches!(
                    text.as_str(),
                    "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
                );
            // JSON text in double quotes is YAML, too.
            if plain {
                text.clone()
            } else {
                value.to_string()
            }
        }
        other => other.to_string(),
    }
}
