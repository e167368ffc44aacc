//! Completeness: what is validated under a junctor is also part of the structure.

use serde_json::Value;

use super::{part, parts, properties};
use crate::field::{ErrorList, FieldError, Path};

pub(super) fn check(path: &Path, schema: &Value, out: &mut ErrorList) {
    branches(schema, Some(schema), path, path, out);
}

fn branches(
    values: &Value,
    shape: Option<&Value>,
    shape_path: &Path,
    path: &Path,
    out: &mut ErrorList,
) {
    if let Some(not) = part(values, "not") {
        nested(not, shape, shape_path, &path.child("not"), out);
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (index, branch) in parts(values, junctor).iter().enumerate() {
            let at = path.child(junctor).index(index);
            nested(branch, shape, shape_path, &at, out);
        }
    }
}

fn nested(
    values: &Value,
    shape: Option<&Value>,
    shape_path: &Path,
    path: &Path,
    out: &mut ErrorList,
) {
    let missing = |at: &Path, because: &Path| {
        FieldError::required(at, &format!("because it is defined in {because}"))
    };
    let Some(shape) = shape else {
        out.push(missing(shape_path, path));
        return;
    };
    branches(values, Some(shape), shape_path, path, out);
    if let Some(items) = part(values, "items") {
        let at = shape_path.child("items");
        nested(items, part(shape, "items"), &at, &path.child("items"), out);
    }
    for (name, inner) in properties(values) {
        let at = shape_path.child("properties").key(name);
        let because = path.child("properties").key(name);
        match shape.get("properties").and_then(|all| all.get(name)) {
            Some(found) => nested(inner, Some(found), &at, &because, out),
            None => out.push(missing(&at, &because)),
        }
    }
}
