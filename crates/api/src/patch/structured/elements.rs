//! What identifies the items of a list that merges item by item.

use serde_json::Value;

use super::{Granular, Shape};
use crate::patch::field_set::PathElement;

/// The path element of an item; the error is the reference's text.
pub(super) fn element(shape: Shape<'_>, item: &Value) -> Result<PathElement, String> {
    match shape.granular_list() {
        None => Err("invalid indexing of non-associative list".to_owned()),
        Some(Granular::Set) => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => {
                Err("not supported: associative list with lists as elements".to_owned())
            }
            Value::Null => Err(
                "associative list without keys has an element that's an explicit null".to_owned(),
            ),
            scalar => Ok(PathElement::Value(scalar.clone())),
        },
        Some(Granular::Keyed(keys)) => keyed(shape, keys, item),
    }
}

fn keyed(shape: Shape<'_>, keys: &[Box<str>], item: &Value) -> Result<PathElement, String> {
    let Value::Object(fields) = item else {
        return Err(if item.is_null() {
            "associative list with keys may not have a null element".to_owned()
        } else {
            "associative list with keys may not have non-map elements".to_owned()
        });
    };
    let items = shape.item();
    let found: Vec<(Box<str>, Value)> = keys
        .iter()
        .filter_map(|key| {
            // An item without the key is the item with the key's default.
            let value = fields
                .get(&**key)
                .or_else(|| items.declared(key)?.default.as_ref())?;
            Some((key.clone(), value.clone()))
        })
        .collect();
    if found.is_empty() {
        let names: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and \
             doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    Ok(PathElement::key(found))
}
