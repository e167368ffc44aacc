//! Where a configuration touches what is owned as one value.

use serde_json::Value;

use super::Shape;

/// The paths of all atomic maps, structs and lists that a value has.
pub(in crate::patch) fn atomics(shape: Shape<'_>, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(shape, value, "", &mut found);
    found
}

fn walk(shape: Shape<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if !shape.is_granular_map() {
                found.push(path.to_owned());
            }
            for (name, value) in map {
                if let Some(field) = shape.declared(name) {
                    walk(
                        shape.of_field(field),
                        value,
                        &format!("{path}.{name}"),
                        found,
                    );
                }
            }
        }
        Value::Array(items) => {
            if shape.granular_list().is_none() {
                found.push(path.to_owned());
            }
            for (index, item) in items.iter().enumerate() {
                walk(shape.item(), item, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}
