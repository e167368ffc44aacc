//! A configuration laid over an object without anybody owning anything: how an admission policy
//! changes objects.

use serde_json::Value;

use super::structured::{self, Shape};
use crate::schema::{Schema, Ty};

/// Merges a configuration into an object, field by field under the type.
///
/// # Errors
/// The configuration does not fit the type, or touches something that is owned as one value; in
/// the reference's words.
pub fn lay_over(schema: &Schema, ty: &Ty, live: &Value, config: &Value) -> Result<Value, String> {
    let shape = Shape::root(schema, ty);
    structured::validate(shape, config)
        .map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let atomics = structured::atomics(shape, config);
    if !atomics.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomics.join(", ")
        ));
    }
    Ok(structured::merge(shape, live, config))
}
