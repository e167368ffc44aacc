//! Defaults must themselves be values of the schema, with nothing that would be pruned.

use super::super::{Structural, validate};
use crate::field::{ErrorList, FieldError, Path};
use crate::schema::Schema;

pub(super) fn check(path: &Path, schema: &Structural, builtin: &Schema, out: &mut ErrorList) {
    walk(path, schema, builtin, false, true, out);
}

fn walk(
    path: &Path,
    schema: &Structural,
    builtin: &Schema,
    inside_metadata: bool,
    root: bool,
    out: &mut ErrorList,
) {
    let inside_metadata = inside_metadata && !schema.embedded;
    if let Some(default) = &schema.default {
        let at = path.child("default");
        let mut pruned = (**default).clone();
        if !inside_metadata && !schema.prune(&mut pruned).is_empty() {
            out.push(FieldError::invalid(
                &at,
                (**default).clone(),
                "must not have unknown fields",
            ));
        }
        let mut settled = (**default).clone();
        match schema.settle_embedded(builtin, &at, &mut settled) {
            Err(wrong) => out.push(wrong),
            Ok(_) => {
                let wrong = schema.check_embedded(&at, default);
                if wrong.is_empty() {
                    out.extend(validate(schema, &at, default, None));
                } else {
                    out.extend(wrong);
                }
            }
        }
    }
    if let Some(items) = &schema.items {
        let at = path.child("items");
        walk(&at, items, builtin, inside_metadata, false, out);
    }
    for (name, property) in &schema.properties {
        let own =
            (root || schema.embedded) && matches!(&**name, "apiVersion" | "kind" | "metadata");
        let at = path.child("properties").key(name);
        walk(&at, property, builtin, inside_metadata || own, false, out);
    }
}
