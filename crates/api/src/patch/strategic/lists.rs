//! Lists in a strategic merge patch: merging by key or by value, deleting, and the order of the
//! outcome.
//!
//! Precedence of order: what `$setElementOrder` says, then the order in the patch, then the order
//! in the live object; items that only the server knows are woven in where they stood.

use serde_json::Value;

use super::{MARKER, Meta, bad_type, golang, merge_map, unknown_directive};
use crate::patch::PatchError;
use crate::schema::PatchFacts;

/// What a list holds: maps, or scalars of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Map,
    Scalar,
}

/// What the items of lists are; all must be of one type.
pub(super) fn kind(old: &[Value], new: &[Value]) -> Result<Kind, PatchError> {
    let mut first: Option<&Value> = None;
    for item in old.iter().chain(new) {
        match first {
            None if item.is_array() => {
                return Err(PatchError::Unprocessable(
                    "lists of lists are not supported".to_owned(),
                ));
            }
            None => first = Some(item),
            Some(first) if golang::type_name(first) == golang::type_name(item) => {}
            Some(_) => {
                return Err(PatchError::Internal(format!(
                    "list element types are not identical: [{} {}]",
                    golang::plain_list(old),
                    golang::plain_list(new)
                )));
            }
        }
    }
    match first {
        Some(Value::Object(_)) => Ok(Kind::Map),
        Some(_) => Ok(Kind::Scalar),
        None => Err(PatchError::Internal(
            "no elements in any of the given slices".to_owned(),
        )),
    }
}

/// Merges a list field, or replaces it when its type does not merge.
pub(super) fn merge_field(
    old: Vec<Value>,
    new: Vec<Value>,
    item: Meta<'_>,
    facts: &PatchFacts,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if facts.merge || deletes {
        merge(
            old,
            new,
            item,
            facts.key.as_deref().unwrap_or_default(),
            deletes,
        )
    } else {
        Ok(new)
    }
}

fn merge(
    old: Vec<Value>,
    new: Vec<Value>,
    item: Meta<'_>,
    key: &str,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    let kind = kind(&old, &new)?;
    let (merged, new, old) = match kind {
        Kind::Scalar if deletes => {
            return Ok(old.into_iter().filter(|item| !new.contains(item)).collect());
        }
        Kind::Scalar => {
            let both: Vec<Value> = old.iter().chain(&new).cloned().collect();
            (distinct(both), new, old)
        }
        Kind::Map if key.is_empty() => {
            return Err(PatchError::Internal(
                "cannot merge lists without merge key for struct".to_owned(),
            ));
        }
        Kind::Map => {
            let (old, new) = special_items(old, new, key)?;
            let merged = plain_items(old.clone(), &new, item, key)?;
            (merged, new, old)
        }
    };
    order(merged, &new, &old, key, kind)
}

/// Removes duplicates the way the reference does: the last item moves into the gap.
fn distinct(mut items: Vec<Value>) -> Vec<Value> {
    let mut at = 0;
    while at < items.len() {
        let mut other = at + 1;
        while other < items.len() {
            if items[at] == items[other] {
                items.swap_remove(other);
            } else {
                other += 1;
            }
        }
        at += 1;
    }
    items
}

/// Carries out the items with a `$patch`, and answers what is left of both lists.
fn special_items(
    mut old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(new.len());
    let mut replace = false;
    for item in new {
        let Value::Object(fields) = &item else {
            return Err(bad_type("map[string]interface {}", &item));
        };
        let Some(directive) = fields.get(MARKER) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let wanted = fields.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                old.retain(|item| item.get(key) != Some(wanted));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Internal(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            _ => return Err(unknown_directive(directive, fields)),
        }
    }
    Ok(if replace {
        (plain, Vec::new())
    } else {
        (old, plain)
    })
}

fn plain_items(
    mut old: Vec<Value>,
    new: &[Value],
    item: Meta<'_>,
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    for value in new {
        let wanted = value.get(key).ok_or_else(|| no_merge_key(value, key))?;
        match old.iter_mut().find(|item| item.get(key) == Some(wanted)) {
            Some(found) => {
                let (Value::Object(before), Value::Object(patch)) = (found.take(), value) else {
                    return Err(bad_type("map[string]interface {}", value));
                };
                *found = Value::Object(merge_map(before, patch.clone(), item)?);
            }
            None => old.push(value.clone()),
        }
    }
    Ok(old)
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Internal(format!(
        "map: {} does not contain declared merge key: {key}",
        golang::plain(item)
    ))
}

/// What identifies an item in its list.
fn identity<'v>(item: &'v Value, key: &str, kind: Kind) -> Option<&'v Value> {
    match kind {
        Kind::Map => item.get(key),
        Kind::Scalar => Some(item),
    }
}

fn place(order: &[Value], item: &Value, key: &str, kind: Kind) -> Option<usize> {
    let wanted = identity(item, key, kind);
    order
        .iter()
        .position(|other| identity(other, key, kind) == wanted)
}

/// Puts `items` in order: those named by `wanted` in its order, the others in that of `live`,
/// woven together by `live`.
pub(super) fn order(
    items: Vec<Value>,
    wanted: &[Value],
    live: &[Value],
    key: &str,
    kind: Kind,
) -> Result<Vec<Value>, PatchError> {
    if kind == Kind::Map {
        for item in items.iter().chain(wanted).chain(live) {
            if !item.is_object() {
                return Err(bad_type("map[string]interface {}", item));
            }
            if item.get(key).is_none() {
                return Err(no_merge_key(item, key));
            }
        }
    }
    let (mut ours, mut theirs): (Vec<Value>, Vec<Value>) = items
        .into_iter()
        .partition(|item| place(wanted, item, key, kind).is_some());
    ours.sort_by_key(|item| place(wanted, item, key, kind).unwrap_or(usize::MAX));
    theirs.sort_by_key(|item| place(live, item, key, kind).unwrap_or(usize::MAX));

    let mut out = Vec::with_capacity(ours.len() + theirs.len());
    let mut ours = ours.into_iter().peekable();
    let mut theirs = theirs.into_iter().peekable();
    while let (Some(left), Some(right)) = (theirs.peek(), ours.peek()) {
        let before = match (place(live, left, key, kind), place(live, right, key, kind)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        out.extend(if before { theirs.next() } else { ours.next() });
    }
    out.extend(ours);
    out.extend(theirs);
    Ok(out)
}

/// The items of a patch must stand in the order list, and in its order.
pub(super) fn check_order(new: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    if new.is_empty() || order.is_empty() {
        return Ok(());
    }
    let same = |left: &Value, right: &Value| -> Result<bool, PatchError> {
        if key.is_empty() {
            return Ok(left == right);
        }
        for item in [left, right] {
            if !item.is_object() {
                return Err(bad_type("map[string]interface {}", item));
            }
        }
        let left = left.get(key).ok_or_else(|| no_merge_key(left, key))?;
        let right = right.get(key).ok_or_else(|| no_merge_key(right, key))?;
        Ok(left == right)
    };
    let deleted = |item: &Value| item.get(MARKER).and_then(Value::as_str) == Some("delete");
    let mut items = Vec::with_capacity(new.len());
    for item in new {
        if !key.is_empty() && !item.is_object() {
            return Err(bad_type("map[string]interface {}", item));
        }
        if key.is_empty() || !deleted(item) {
            items.push(item);
        }
    }
    let (mut at, mut place) = (0, 0);
    while at < items.len() && place < order.len() {
        if items[at].get(MARKER).is_some() {
            at += 1;
            continue;
        }
        if same(items[at], &order[place])? {
            at += 1;
        }
        place += 1;
    }
    if at < items.len() {
        return Err(PatchError::Internal(format!(
            "The order in patch list:\n{}\n doesn't match {} list:\n{}\n",
            golang::plain_list(new),
            super::SET_ORDER,
            golang::plain_list(order)
        )));
    }
    Ok(())
}
