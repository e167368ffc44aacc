//! Strategic merge patch: a merge patch that knows which lists merge, and by what.
//!
//! The semantics are those of `k8s.io/apimachinery/pkg/util/strategicpatch`, error texts
//! included. Go visits the fields of a patch in random order; here they go in the order of their
//! names, so that one patch has one outcome. Free-form parts ([`Ty::Any`]) merge as maps do, and
//! their lists are replaced.

mod lists;

use serde_json::{Map, Value};

use super::{PatchError, golang};
use crate::schema::{PatchFacts, Schema, Ty};

const MARKER: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

type Fields = Map<String, Value>;

static NO_FACTS: PatchFacts = PatchFacts {
    merge: false,
    retain_keys: false,
    replace: false,
    key: None,
};

static ANY: Ty = Ty::Any;

/// Applies a strategic merge patch to an object of type `ty`.
///
/// # Errors
/// [`PatchError::Invalid`] when the patch or one of its directives is malformed, and what the
/// reference reports as an internal error: an unknown `$patch`, an item without its merge key, a
/// field that the type does not have.
pub fn strategic_merge_patch(
    schema: &Schema,
    ty: &Ty,
    object: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let patch = match patch {
        Value::Object(fields) => fields.clone(),
        Value::Null => Fields::new(),
        Value::Array(_) => return Err(not_an_object("array")),
        Value::String(_) => return Err(not_an_object("string")),
        Value::Number(_) => return Err(not_an_object("number")),
        Value::Bool(_) => return Err(not_an_object("bool")),
    };
    let original = object.as_object().cloned().unwrap_or_default();
    merge_map(original, patch, Meta { schema, ty }).map(Value::Object)
}

fn not_an_object(found: &str) -> PatchError {
    PatchError::Invalid(format!(
        "json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
    ))
}

/// Where in the schema a map stands.
#[derive(Clone, Copy)]
struct Meta<'s> {
    schema: &'s Schema,
    ty: &'s Ty,
}

impl<'s> Meta<'s> {
    fn with(self, ty: &'s Ty) -> Self {
        Meta { ty, ..self }
    }

    /// The type of a field and how it merges.
    fn lookup(self, name: &str) -> Result<(Self, &'s PatchFacts), PatchError> {
        match self.ty {
            Ty::Struct(_) => match self.schema.field(self.ty, name) {
                Some(field) => Ok((self.with(&field.ty), &field.patch)),
                None => Err(PatchError::Internal(format!(
                    "unable to find api field in struct {} for the json field {}",
                    self.schema
                        .definition(self.ty)
                        .map_or("", |d| d.short_name()),
                    golang::quoted(name)
                ))),
            },
            Ty::Map(item) => Ok((self.with(item), &NO_FACTS)),
            _ => Ok((self.with(&ANY), &NO_FACTS)),
        }
    }

    /// The type of the items of a list field, and how the list merges.
    fn lookup_list(self, name: &str) -> Result<(Self, &'s PatchFacts), PatchError> {
        let (meta, facts) = self.lookup(name)?;
        match meta.ty {
            Ty::List(item) => Ok((meta.with(item), facts)),
            Ty::Any => Ok((meta, facts)),
            _ => Err(PatchError::Internal(
                "expected slice or array type, but got: struct".to_owned(),
            )),
        }
    }
}

fn bad_type(wanted: &str, found: &Value) -> PatchError {
    let found = match found {
        Value::Null => "%!s(<nil>)",
        other => golang::type_name(other),
    };
    PatchError::Internal(format!("expected a {wanted}, but received a {found}"))
}

fn unknown_directive(directive: &Value, patch: &Fields) -> PatchError {
    PatchError::Internal(format!(
        "unknown patch type: {} in map: {}",
        golang::plain(directive),
        golang::plain(&Value::Object(patch.clone()))
    ))
}

fn bad_primitive_list() -> PatchError {
    PatchError::Invalid("invalid patch format of primitive list".to_owned())
}

fn bad_element_order() -> PatchError {
    PatchError::Invalid("invalid patch format of setElementOrder list".to_owned())
}

fn bad_retain_keys() -> PatchError {
    PatchError::Invalid("invalid patch format of retainKeys".to_owned())
}

fn merge_map(
    mut original: Fields,
    mut patch: Fields,
    meta: Meta<'_>,
) -> Result<Fields, PatchError> {
    if let Some(directive) = patch.get(MARKER) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(MARKER);
                Ok(patch)
            }
            Some("delete") => Ok(Fields::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order_elements(&mut original, &mut patch, meta)?;

    for (name, value) in patch {
        let (name, deletes) = if name.starts_with(DELETE_FROM) {
            (
                list_name(&name, DELETE_FROM)
                    .ok_or_else(bad_primitive_list)?
                    .to_owned(),
                true,
            )
        } else {
            (name, false)
        };
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let merged = match (original.remove(&name), value) {
            (None, _) if deletes => continue,
            (Some(Value::Object(old)), Value::Object(new)) => {
                let (inner, facts) = meta.lookup(&name)?;
                Some(Value::Object(if facts.replace {
                    new
                } else {
                    merge_map(old, new, inner)?
                }))
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let (item, facts) = meta.lookup_list(&name)?;
                Some(Value::Array(lists::merge_field(
                    old, new, item, facts, deletes,
                )?))
            }
            (Some(old), _) if deletes => Some(old),
            (_, mut value) => {
                discard_nulls(&mut value);
                without_directives(value)
            }
        };
        if let Some(merged) = merged {
            original.insert(name, merged);
        }
    }
    Ok(original)
}

/// `ports` of `$setElementOrder/ports`.
fn list_name<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    name.strip_prefix(prefix)?.strip_prefix('/')
}

/// `$retainKeys`: fields of the original that the list does not name go.
fn retain_keys(original: &mut Fields, patch: &mut Fields) -> Result<(), PatchError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retained) = retained else {
        return Err(bad_retain_keys());
    };
    let listed = |name: &str| retained.iter().any(|item| item.as_str() == Some(name));
    let stray = patch.iter().any(|(name, value)| {
        !value.is_null()
            && !name.starts_with(DELETE_FROM)
            && !name.starts_with(SET_ORDER)
            && !listed(name)
    });
    if stray {
        return Err(bad_retain_keys());
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

/// `$setElementOrder/x`: merges the list `x` here, in the order asked for.
fn order_elements(
    original: &mut Fields,
    patch: &mut Fields,
    meta: Meta<'_>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|name| name.starts_with(SET_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            Some(other) => return Err(bad_type("[]interface {}", &other)),
            None => continue,
        };
        let name = list_name(&directive, SET_ORDER).ok_or_else(bad_element_order)?;
        let old = take_list(original.get(name))?;
        let new = take_list(patch.get(name))?;
        let (item, facts) = meta.lookup_list(name)?;
        let key = facts.key.as_deref().unwrap_or_default();
        lists::check_order(new.as_deref().unwrap_or_default(), &order, key)?;
        let merged = match (&old, new.clone()) {
            (None, None) => continue,
            (Some(old), None) => old.clone(),
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (Some(old), Some(new)) => lists::merge_field(old.clone(), new, item, facts, false)?,
        };
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        let ordered = lists::order(merged, &order, &old, key, lists::kind(&old, &new)?)?;
        original.insert(name.to_owned(), Value::Array(ordered));
        patch.remove(name);
    }
    Ok(())
}

fn take_list(value: Option<&Value>) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items.clone())),
        Some(other) => Err(bad_type("[]interface {}", other)),
    }
}

/// Drops null fields at every depth: there is nothing that they could delete.
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// Drops every map that carries a directive; `None` when the value itself is one.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(MARKER) => None,
        Value::Object(fields) => Some(
            fields
                .into_iter()
                .filter_map(|(name, value)| Some((name, without_directives(value)?)))
                .collect(),
        ),
        Value::Array(items) => Some(items.into_iter().filter_map(without_directives).collect()),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests;
