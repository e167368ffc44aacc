//! A value without some of its fields.

use serde_json::{Map, Value};

use super::{Shape, elements};
use crate::patch::field_set::{FieldSet, PathElement};

/// What becomes of a map or list that lost all it had.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::patch) enum Emptied {
    /// It stays as null, so that a set made of the outcome still has it.
    Null,
    /// It goes as well.
    Gone,
}

/// Takes the members of `set`, with all below them, from an object.
pub(in crate::patch) fn remove(
    shape: Shape<'_>,
    value: &Value,
    set: &FieldSet,
    emptied: Emptied,
) -> Value {
    walk(shape, value, set, emptied).unwrap_or_else(|| Value::Object(Map::new()))
}

fn walk(shape: Shape<'_>, value: &Value, set: &FieldSet, emptied: Emptied) -> Option<Value> {
    if let Some(entries) = shape.entries(value) {
        let mut out = Map::new();
        for (name, value) in entries {
            match set.node(&PathElement::field(name)) {
                Some(node) if node.member => {}
                Some(node) => match walk(shape.child(name), value, &node.children, emptied) {
                    None if emptied == Emptied::Gone => {}
                    rest => {
                        out.insert(name.clone(), rest.unwrap_or_default());
                    }
                },
                None => {
                    out.insert(name.clone(), value.clone());
                }
            }
        }
        return (!out.is_empty()).then_some(Value::Object(out));
    }
    if let Some(items) = shape.items(value) {
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let node = elements::element(shape, item)
                .ok()
                .and_then(|element| set.node(&element));
            match node {
                Some(node) if node.member => {}
                Some(node) => {
                    out.extend(walk(shape.item(), item, &node.children, emptied));
                }
                None => out.push(item.clone()),
            }
        }
        return (!out.is_empty()).then_some(Value::Array(out));
    }
    // What is atomic has no parts that could be taken.
    (!value.is_object() && !value.is_array()).then(|| value.clone())
}
