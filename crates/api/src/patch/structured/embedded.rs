//! Fields that are there even when the JSON lacks them.
//!
//! Go holds some structs by value and writes some fields even when they are empty. The reference
//! compares such structs, so a field of theirs that JSON leaves out is not a field that was
//! added later. That decides whether `f:spec` itself shows up in managed fields, so it is kept
//! here, for built-in types.

use serde_json::Value;

use super::Shape;
use crate::schema::TypeDef;

/// `{}`
pub(super) static EMPTY: std::sync::LazyLock<Value> =
    std::sync::LazyLock::new(|| Value::Object(serde_json::Map::new()));

/// What a present struct holds in a field that its JSON lacks.
pub(super) fn absent<'v>(shape: Shape<'v>, name: &str) -> Option<&'v Value> {
    let held = &go_struct(shape)?.held;
    let found = held.iter().find(|(field, _)| **field == *name)?;
    Some(&found.1)
}

/// All fields that a present struct holds whether or not its JSON has them.
pub(super) fn all<'s>(shape: Shape<'s>) -> impl Iterator<Item = (&'s str, &'s Value)> {
    go_struct(shape)
        .into_iter()
        .flat_map(|definition| &definition.held)
        .map(|(name, zero)| (&**name, zero))
}

fn go_struct(shape: Shape<'_>) -> Option<&TypeDef> {
    shape
        .schema
        .definition(shape.ty)
        .filter(|definition| definition.name.starts_with("io.k8s."))
}
