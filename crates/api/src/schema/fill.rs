//! What Go writes though nobody gave it: `status: {}`, `resources: {}`, `lastProbeTime: null`.
//!
//! Go's structs hold some fields by value and leave out only what is marked so, which is why every
//! object of the reference has them. Clients notice: a JSON patch that replaces `/status`, a
//! webhook that expects `resources`, an owner listed for `f:strategy`. Custom kinds are kept as
//! they were sent, there as here, and have no such fields.

use serde_json::{Map, Value};

use super::{Field, Schema, Ty};

impl Schema {
    /// Adds what a typed object of the reference would have.
    pub fn fill(&self, ty: &Ty, value: &mut Value) {
        match (ty, value) {
            (Ty::Struct(index), Value::Object(fields)) => {
                let definition = self.get(*index);
                for (name, zero) in &definition.held {
                    if !fields.contains_key(&**name) {
                        fields.insert(name.to_string(), zero.clone());
                    }
                }
                for (name, value) in fields.iter_mut() {
                    // Most values are scalars, and have nothing to fill.
                    if !matches!(value, Value::Object(_) | Value::Array(_)) {
                        continue;
                    }
                    if let Some(field) = definition.fields.get(name.as_str()) {
                        self.fill(&field.ty, value);
                    }
                }
            }
            (Ty::List(item), Value::Array(items)) if is_deep(item) => {
                for item_value in items {
                    self.fill(item, item_value);
                }
            }
            (Ty::Map(item), Value::Object(entries)) if is_deep(item) => {
                for entry in entries.values_mut() {
                    self.fill(item, entry);
                }
            }
            _ => {}
        }
    }

    /// Notes for every struct what it holds. To be called when all fields have their facts.
    pub(super) fn hold(&mut self) {
        for definition in &mut self.types {
            definition.held = definition
                .fields
                .iter()
                .filter(|(_, field)| field.always)
                .map(|(name, field)| (name.clone(), zero(field)))
                .collect();
        }
    }
}

fn is_deep(ty: &Ty) -> bool {
    matches!(ty, Ty::Struct(_) | Ty::List(_) | Ty::Map(_))
}

/// What Go writes for a field that was not set.
fn zero(field: &Field) -> Value {
    match &field.ty {
        _ if field.pointer => Value::Null,
        Ty::Bool => Value::Bool(false),
        Ty::Int32 | Ty::Int64 | Ty::Number | Ty::IntOrString => Value::from(0),
        Ty::String => Value::String(String::new()),
        Ty::Quantity => Value::String("0".to_owned()),
        Ty::Struct(_) => Value::Object(Map::new()),
        Ty::Bytes | Ty::Time | Ty::MicroTime | Ty::Any | Ty::List(_) | Ty::Map(_) => Value::Null,
    }
}
