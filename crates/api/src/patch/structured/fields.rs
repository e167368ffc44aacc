//! The fields that a value sets, and repairs of field sets by the schema.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Shape, elements};
use crate::patch::field_set::{FieldSet, PathElement};

/// Every leaf, list item and map entry of a value.
pub(in crate::patch) fn fields_of(shape: Shape<'_>, value: &Value) -> FieldSet {
    below(shape, value).1
}

/// Is the value a leaf, and what does it set below itself?
fn below(shape: Shape<'_>, value: &Value) -> (bool, FieldSet) {
    let mut set = FieldSet::default();
    if let Some(entries) = shape.entries(value) {
        for (name, value) in entries {
            let (leaf, children) = below(shape.child(name), value);
            let hollow = value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
            let member = leaf || hollow || shape.declared(name).is_none();
            set.push(PathElement::field(name), member, children);
        }
        return (false, set);
    }
    if let Some(items) = shape.items(value) {
        let mut seen = BTreeSet::new();
        let mut twice = BTreeSet::new();
        let elements: Vec<Option<PathElement>> = items
            .iter()
            .map(|item| elements::element(shape, item).ok())
            .collect();
        for element in elements.iter().flatten() {
            if !seen.insert(element) {
                twice.insert(element);
            }
        }
        for (element, item) in elements.iter().zip(items) {
            let Some(element) = element else { continue };
            // Items that stand more than once are owned as one.
            let children = if twice.contains(element) {
                FieldSet::default()
            } else {
                below(shape.item(), item).1
            };
            set.push(element.clone(), true, children);
        }
        return (false, set);
    }
    (true, set)
}

/// Adds the struct fields on the way to each member. Entries of maps are not added.
pub(in crate::patch) fn with_named_fields(shape: Shape<'_>, set: &FieldSet) -> FieldSet {
    let mut out = set.clone();
    name_fields(shape, &mut out);
    out
}

fn name_fields(shape: Shape<'_>, set: &mut FieldSet) {
    for node in &mut set.nodes {
        let inner = match &node.element {
            PathElement::Field(name) => {
                if !node.children.is_empty() && shape.declared(name).is_some() {
                    node.member = true;
                }
                shape.child(name)
            }
            _ => shape.item(),
        };
        name_fields(inner, &mut node.children);
    }
}

/// Brings a set that was written under an older schema up to this one: who owned parts of what
/// is atomic now owns the whole.
pub(in crate::patch) fn reconcile(shape: Shape<'_>, set: &mut FieldSet) {
    for node in &mut set.nodes {
        if node.children.is_empty() {
            continue;
        }
        let inner = match &node.element {
            PathElement::Field(name) => shape.child(name),
            _ => shape.item(),
        };
        if inner.is_granular_map() || inner.granular_list().is_some() {
            reconcile(inner, &mut node.children);
        } else if inner.atomic || matches!(inner.ty, crate::schema::Ty::List(_)) {
            node.member = true;
            node.children = FieldSet::default();
        }
    }
}
