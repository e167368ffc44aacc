//! What Go writes though nobody gave it: `status: {}`, `resources: {}`, `lastProbeTime: null`.
//!
//! Go's structs hold some fields by value and leave out only what is marked so, which is why every
//! object of the reference has them. Clients notice: a JSON patch that replaces `/status`, a
//! webhook that expects `resources`, an owner listed for `f:strategy`. Custom kinds are kept as
//! they were sent, there as here, and have no such fields.

use serde_json::{Map, Value};

use super::{Field, Schema, Ty, TypeDef};

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

    /// Notes for every struct what it holds and what of it is off, and which of its fields have structs
    /// below them with such: most of an object has nothing to fill and nothing to drop. To be called
    /// when all fields have their facts.
    pub(super) fn hold(&mut self) {
        for definition in &mut self.types {
            definition.held = definition
                .fields
                .iter()
                .filter(|(_, field)| field.always)
                .map(|(name, field)| (name.clone(), zero(field)))
                .collect();
        }
        for definition in &mut self.types {
            let off = definition.fields.iter().filter(|(_, field)| field.off);
            definition.off = off.map(|(name, _)| name.clone()).collect();
        }
        let holds = self.above(|definition| !definition.held.is_empty());
        let drops = self.above(|definition| !definition.off.is_empty());
        for definition in &mut self.types {
            definition.holders = over(definition, &holds);
            definition.over_off = over(definition, &drops);
        }
    }

    /// Which structs are such, or have such below them.
    fn above(&self, is: impl Fn(&TypeDef) -> bool) -> Vec<bool> {
        let mut found: Vec<bool> = self.types.iter().map(is).collect();
        // Structs refer to each other in any order, and in circles.
        loop {
            let before = found.clone();
            for (definition, found) in self.types.iter().zip(&mut found) {
                let mut fields = definition.fields.values();
                *found |= fields.any(|field| struct_of(&field.ty).is_some_and(|at| before[at]));
            }
            if found == before {
                return found;
            }
        }
    }
}

/// The fields whose structs are among these.
fn over(definition: &TypeDef, which: &[bool]) -> Vec<(Box<str>, Ty)> {
    let fields = definition.fields.iter();
    fields
        .filter(|(_, field)| struct_of(&field.ty).is_some_and(|at| which[at]))
        .map(|(name, field)| (name.clone(), field.ty.clone()))
        .collect()
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
