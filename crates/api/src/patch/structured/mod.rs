//! Structured merge: what a value means under its schema, field by field.
//!
//! [`Shape`] joins a type with how it merges; the modules walk values by it: [`fields_of`] lists
//! what a value sets, [`validate`] refuses what an apply configuration can't have, [`compare`]
//! tells two values apart, [`merge`] lays one over the other and [`remove`] takes fields away.
//! The rules are those of `sigs.k8s.io/structured-merge-diff/v6/typed`. Free-form parts
//! ([`Ty::Any`]) are maps that merge by entry, with lists and scalars as leaves.

mod atomics;
mod compare;
mod elements;
mod embedded;
mod fields;
mod merge;
mod remove;
mod validate;

use serde_json::{Map, Value};

pub(super) use atomics::atomics;
pub(super) use compare::{Comparison, New, compare};
pub(super) use fields::{fields_of, reconcile, with_named_fields};
pub(super) use merge::merge;
pub(super) use remove::{Emptied, remove};
pub(super) use validate::validate;

use crate::schema::{Field, ListType, Schema, Ty};

static ANY: Ty = Ty::Any;
static ATOMIC: ListType = ListType::Atomic;

/// A type, and how values of it merge in the place where it stands.
#[derive(Clone, Copy)]
pub(super) struct Shape<'s> {
    schema: &'s Schema,
    ty: &'s Ty,
    list: &'s ListType,
    atomic: bool,
}

/// A list that merges item by item.
enum Granular<'s> {
    Set,
    Keyed(&'s [Box<str>]),
}

impl<'s> Shape<'s> {
    /// The shape of a whole object.
    pub(super) fn root(schema: &'s Schema, ty: &'s Ty) -> Self {
        Self {
            schema,
            ty,
            list: &ATOMIC,
            atomic: schema.definition(ty).is_some_and(|d| d.atomic),
        }
    }

    fn plain(self, ty: &'s Ty) -> Self {
        Self::root(self.schema, ty)
    }

    fn of_field(self, field: &'s Field) -> Self {
        let plain = self.plain(&field.ty);
        Self {
            list: &field.list,
            atomic: field.atomic.unwrap_or(plain.atomic),
            ..plain
        }
    }

    /// The field of a struct, when it declares it.
    fn declared(self, name: &str) -> Option<&'s Field> {
        self.schema.field(self.ty, name)
    }

    /// The shape of a field or map entry.
    fn child(self, name: &str) -> Self {
        match self.ty {
            Ty::Struct(_) => self
                .declared(name)
                .map_or_else(|| self.plain(&ANY), |field| self.of_field(field)),
            Ty::Map(item) => self.plain(item),
            _ => self.plain(&ANY),
        }
    }

    /// The shape of a list's items.
    fn item(self) -> Self {
        match self.ty {
            Ty::List(item) => self.plain(item),
            _ => self.plain(&ANY),
        }
    }

    /// Do maps of this shape merge entry by entry?
    fn is_granular_map(self) -> bool {
        !self.atomic && matches!(self.ty, Ty::Struct(_) | Ty::Map(_) | Ty::Any)
    }

    /// How lists of this shape merge item by item, if they do.
    fn granular_list(self) -> Option<Granular<'s>> {
        match (self.ty, self.list) {
            (Ty::List(_), ListType::Set) => Some(Granular::Set),
            (Ty::List(_), ListType::Map(keys)) => Some(Granular::Keyed(keys)),
            _ => None,
        }
    }

    /// The entries of a value that merges entry by entry.
    fn entries(self, value: &Value) -> Option<&Map<String, Value>> {
        value.as_object().filter(|_| self.is_granular_map())
    }

    /// The items of a value that merges item by item.
    fn items(self, value: &Value) -> Option<&[Value]> {
        value
            .as_array()
            .filter(|_| self.granular_list().is_some())
            .map(Vec::as_slice)
    }
}

/// Equality of values, numbers by value.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || (left.is_f64() != right.is_f64() && left.as_f64() == right.as_f64())
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| equal(l, r))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(name, l)| right.get(name).is_some_and(|r| equal(l, r)))
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests;
