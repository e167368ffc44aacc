//! The `FieldsV1` format: a JSON object whose names are path elements (`f:`, `k:`, `v:`, `i:`) and
//! where `"."` says that the place itself is in the set.

use serde_json::{Map, Value};

use super::{FieldSet, PathElement};

pub(super) fn write(set: &FieldSet) -> Value {
    Value::Object(members(set, false))
}

fn members(set: &FieldSet, itself: bool) -> Map<String, Value> {
    let mut out = Map::new();
    if itself && !set.nodes.is_empty() {
        out.insert(".".to_owned(), Value::Object(Map::new()));
    }
    for node in &set.nodes {
        out.insert(
            name(&node.element),
            Value::Object(members(&node.children, node.member)),
        );
    }
    out
}

fn name(element: &PathElement) -> String {
    match element {
        PathElement::Field(name) => {
            let mut out = String::with_capacity(name.len() + 2);
            out.push_str("f:");
            out.push_str(name);
            out
        }
        PathElement::Key(keys) => {
            let mut out = String::from("k:{");
            for (index, (name, value)) in keys.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_json(&mut out, &Value::String(name.to_string()));
                out.push(':');
                push_json(&mut out, value);
            }
            out.push('}');
            out
        }
        PathElement::Value(value) => {
            let mut out = String::from("v:");
            push_json(&mut out, value);
            out
        }
        PathElement::Index(index) => format!("i:{index}"),
    }
}

/// JSON as Go writes it: safe to stand in HTML.
fn push_json(out: &mut String, value: &Value) {
    let text = match value {
        Value::Number(number) if number.is_f64() => whole(value).to_string(),
        other => other.to_string(),
    };
    if text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        for c in text.chars() {
            match c {
                '<' => out.push_str("\\u003c"),
                '>' => out.push_str("\\u003e"),
                '&' => out.push_str("\\u0026"),
                '\u{2028}' => out.push_str("\\u2028"),
                '\u{2029}' => out.push_str("\\u2029"),
                c => out.push(c),
            }
        }
    } else {
        out.push_str(&text);
    }
}

/// A float without a fraction as an integer, since Go writes both alike.
fn whole(value: &Value) -> Value {
    let exact = value.as_f64().map(|float| format!("{float}"));
    exact
        .and_then(|text| text.parse::<i64>().ok())
        .map_or_else(|| value.clone(), Value::from)
}

/// Has a written set anything at or below a member of `set`? It says yes too often rather than too
/// seldom, and reads nothing for it.
pub(super) fn touched(fields: &Value, set: &FieldSet) -> bool {
    let Value::Object(fields) = fields else {
        // Itself a member, or unreadable.
        return true;
    };
    set.nodes.iter().any(|node| {
        fields
            .get(&name(&node.element))
            .is_some_and(|below| node.member || touched(below, &node.children))
    })
}

pub(super) fn read(fields: &Value) -> Result<FieldSet, String> {
    read_node(fields).map(|(_, set)| set)
}

/// Answers whether the place itself is a member, and what is below it.
fn read_node(fields: &Value) -> Result<(bool, FieldSet), String> {
    let fields = match fields {
        Value::Null => return Ok((true, FieldSet::default())),
        Value::Object(fields) => fields,
        other => {
            return Err(format!(
                "managedFields parsing: expect an object, got {other}"
            ));
        }
    };
    let mut set = FieldSet::default();
    let mut member = false;
    for (name, below) in fields {
        if name == "." {
            member = true;
            continue;
        }
        let Some(element) = element(name)? else {
            continue;
        };
        let (itself, children) = read_node(below)?;
        set.push(element, itself, children);
    }
    Ok((member || set.is_empty(), set))
}

/// Reads a path element; `None` for a type that a later version may know.
fn element(name: &str) -> Result<Option<PathElement>, String> {
    let bytes = name.as_bytes();
    if bytes.len() < 2 {
        return Err("key must be 2 characters long:".to_owned());
    }
    if bytes[1] != b':' {
        return Err(format!("missing colon: {name}"));
    }
    let parse = |text: &str| {
        serde_json::from_str::<Value>(text)
            .map_err(|error| format!("managedFields parsing: {error}"))
    };
    let rest = &name[2..];
    Ok(Some(match bytes[0] {
        b'f' => PathElement::field(rest),
        b'v' => PathElement::Value(parse(rest)?),
        b'k' => match parse(rest)? {
            Value::Object(keys) => PathElement::key(
                keys.into_iter()
                    .map(|(name, value)| (name.into_boxed_str(), value))
                    .collect(),
            ),
            other => {
                return Err(format!(
                    "managedFields parsing: expect an object, got {other}"
                ));
            }
        },
        b'i' => PathElement::Index(
            rest.parse()
                .map_err(|_| format!("strconv.Atoi: parsing {rest:?}: invalid syntax"))?,
        ),
        _ => return Ok(None),
    }))
}
