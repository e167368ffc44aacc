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
                for (name, ty) in &definition.holders {
                    if let Some(value) = fields.get_mut(&**name) {
                        self.fill(ty, value);
                    }
                }
            }
            (Ty::List(item), Value::Array(items)) => {
                for item_value in items {
                    self.fill(item, item_value);
                }
            }
            (Ty::Map(item), Value::Object(entries)) => {
                for entry in entries.values_mut() {
                    self.fill(item, entry);
                }
            }
            _ => {}
        }
    }

    /// Notes for every struct what it holds, and which of its fields have structs below them that hold
    /// something: most of an object has nothing to fill. To be called when all fields have their facts.
    pub(super) fn hold(&mut self) {
        for definition in &mut self.types {
            definition.held = definition
                .fields
                .iter()
                .filter(|(_, field)| field.always)
                .map(|(name, field)| (name.clone(), zero(field)))
                .collect();
        }
        let mut holds: Vec<bool> = self.types.iter().map(|it| !it.held.is_empty()).collect();
        let below = |holds: &[bool], ty: &Ty| struct_of(ty).is_some_and(|at| holds[at]);
        // Structs refer to each other in any order, and in circles.
        loop {
            let before = holds.clone();
            for (definition, holds) in self.types.iter().zip(&mut holds) {
                let mut fields = definition.fields.values();
                *holds |= fields.any(|field| below(&before, &field.ty));
            }
            if holds == before {
                break;
            }
        }
        for definition in &mut self.types {
            let fields = definition.fields.iter();
            definition.holders = fields
                .filter(|(_, field)| below(&holds, &field.ty))
                .map(|(name, field)| (name.clone(), field.ty.clone()))
                .collect();
        }
    }
}

/// The struct that a type is, or has as its items.
fn struct_of(ty: &Ty) -> Option<usize> {
    match ty {
        Ty::Struct(index) => Some(*index),
        Ty::List(item) | Ty::Map(item) => struct_of(item),
        _ => None,
    }
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
