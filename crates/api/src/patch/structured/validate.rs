//! What an apply configuration can't have: unknown fields, values of the wrong type, items that
//! nothing identifies, duplicates.

use serde_json::Value;

use super::{Shape, elements};
use crate::patch::field_set::PathElement;
use crate::patch::golang;
use crate::schema::Ty;

/// Checks a configuration; the error is the reference's text, all errors in one.
pub(in crate::patch) fn validate(shape: Shape<'_>, value: &Value) -> Result<(), String> {
    let mut found = Vec::new();
    walk(shape, value, &mut String::new(), &mut found);
    match found.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(many
            .iter()
            .fold("errors:".to_owned(), |text, one| format!("{text}\n  {one}"))),
    }
}

fn report(found: &mut Vec<String>, path: &str, text: &str) {
    found.push(if path.is_empty() {
        text.to_owned()
    } else {
        format!("{path}: {text}")
    });
}

fn walk(shape: Shape<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    // Null is a value of every type.
    if value.is_null() {
        return;
    }
    let wrong = match (shape.ty, value) {
        (Ty::Any, _) => None,
        (Ty::Struct(_) | Ty::Map(_), Value::Object(_)) | (Ty::List(_), Value::Array(_)) => None,
        (Ty::Struct(_) | Ty::Map(_), _) => Some(format!("expected map, got {}", shown(value))),
        (Ty::List(_), _) => Some(format!("expected list, got {}", shown(value))),
        (Ty::Bool, Value::Bool(_)) => None,
        (Ty::Bool, _) => Some(format!("expected boolean, got {}", shown(value))),
        (Ty::Int32 | Ty::Int64 | Ty::Number, Value::Number(_)) => None,
        (Ty::Int32 | Ty::Int64 | Ty::Number, _) => Some(format!(
            "expected numeric (int or float), got {}",
            golang::type_name(value)
        )),
        (Ty::String | Ty::Bytes, Value::String(_)) => None,
        (Ty::String | Ty::Bytes, _) => Some(format!(
            "expected string, got &value.valueUnstructured{{Value:{}}}",
            golang::syntax(value)
        )),
        (Ty::Time | Ty::MicroTime | Ty::Quantity | Ty::IntOrString, _) => (value.is_object()
            || value.is_array())
        .then(|| format!("expected any scalar, got {}", shown(value))),
    };
    if let Some(text) = wrong {
        report(found, path, &text);
        return;
    }
    match value {
        Value::Object(entries) if *shape.ty != Ty::Any => {
            for (name, value) in entries {
                let mark = path.len();
                path.push('.');
                path.push_str(name);
                let unknown = shape
                    .schema
                    .definition(shape.ty)
                    .is_some_and(|definition| !definition.open)
                    && shape.declared(name).is_none();
                if unknown {
                    report(found, path, "field not declared in schema");
                    path.truncate(mark);
                    return;
                }
                walk(shape.child(name), value, path, found);
                path.truncate(mark);
            }
        }
        Value::Array(items) if *shape.ty != Ty::Any => list(shape, items, path, found),
        _ => {}
    }
}

fn list(shape: Shape<'_>, items: &[Value], path: &mut String, found: &mut Vec<String>) {
    let granular = shape.granular_list().is_some();
    let mut seen = std::collections::BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let element = if granular {
            match elements::element(shape, item) {
                Ok(element) => element,
                Err(text) => {
                    report(found, path, &format!("element {index}: {text}"));
                    return;
                }
            }
        } else {
            PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX))
        };
        let mark = path.len();
        let text = element.to_string();
        if granular && !seen.insert(element) {
            report(found, path, &format!("duplicate entries for key {text}"));
        }
        path.push_str(&text);
        walk(shape.item(), item, path, found);
        path.truncate(mark);
    }
}

/// A value as Go's `%v` shows the reference's wrapper around it.
fn shown(value: &Value) -> String {
    format!("&{{{}}}", golang::plain(value))
}
