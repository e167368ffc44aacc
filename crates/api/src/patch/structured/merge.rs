//! One value laid over another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Shape, elements};
use crate::patch::field_set::PathElement;

/// Lays an apply configuration over a live object. Nothing is removed by this.
pub(in crate::patch) fn merge(shape: Shape<'_>, live: &Value, config: &Value) -> Value {
    walk(shape, Some(live), Some(config)).unwrap_or_else(|| Value::Object(Map::new()))
}

fn walk(shape: Shape<'_>, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let leaf = || config.or(live).cloned();
    // A null in the configuration keeps the map or list that is there.
    if config.is_some_and(|value| !value.is_null() && !value.is_object() && !value.is_array()) {
        return leaf();
    }
    let maps = (
        live.and_then(|value| shape.entries(value)),
        config.and_then(|value| shape.entries(value)),
    );
    if maps.0.is_some_and(|map| !map.is_empty()) || maps.1.is_some_and(|map| !map.is_empty()) {
        if config.is_some_and(Value::is_array) {
            return leaf();
        }
        return entries(shape, maps.0, maps.1);
    }
    let lists = (
        live.and_then(|value| shape.items(value)),
        config.and_then(|value| shape.items(value)),
    );
    if lists.0.is_some_and(|list| !list.is_empty()) || lists.1.is_some_and(|list| !list.is_empty())
    {
        return Some(Value::Array(items(
            shape,
            lists.0.unwrap_or_default(),
            lists.1.unwrap_or_default(),
        )));
    }
    leaf()
}

fn entries(
    shape: Shape<'_>,
    live: Option<&Map<String, Value>>,
    config: Option<&Map<String, Value>>,
) -> Option<Value> {
    let mut out = Map::new();
    for (name, value) in live.into_iter().flatten() {
        let over = config.and_then(|map| map.get(name));
        let merged = match over {
            None => Some(value.clone()),
            over => walk(shape.child(name), Some(value), over),
        };
        if let Some(merged) = merged {
            out.insert(name.clone(), merged);
        }
    }
    for (name, value) in config.into_iter().flatten() {
        if live.is_none_or(|map| !map.contains_key(name)) {
            out.insert(name.clone(), value.clone());
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// Merges two lists: items that both have in the order of the configuration, items of the live
/// object alone where they stood.
fn items(shape: Shape<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let named = |list: &[Value]| -> Vec<(PathElement, Value)> {
        list.iter()
            .filter_map(|item| Some((elements::element(shape, item).ok()?, item.clone())))
            .collect()
    };
    let (live, config) = (named(live), named(config));
    let mut lives: BTreeMap<&PathElement, Option<&Value>> = BTreeMap::new();
    for (element, item) in &live {
        // Duplicates are not merged with.
        lives
            .entry(element)
            .and_modify(|found| *found = None)
            .or_insert(Some(item));
    }
    let configured: BTreeSet<&PathElement> = config.iter().map(|(element, _)| element).collect();
    let mut shared = config
        .iter()
        .map(|(element, _)| element)
        .filter(|element| lives.contains_key(element));
    let mut next = shared.next();
    let mut merged: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let overlay = |element: &PathElement, item: &Value| {
        walk(
            shape.item(),
            lives.get(element).copied().flatten(),
            Some(item),
        )
    };
    let (mut left, mut right) = (live.iter().peekable(), config.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (None, None) => return out,
            (Some((l, _)), Some((r, item))) if l == r => {
                merged.insert(r);
                out.extend(overlay(r, item));
                left.next();
                right.next();
                next = shared.next();
                continue;
            }
            (Some((l, _)), Some(_)) if configured.contains(l) && next.is_some_and(|n| n != l) => {
                // It is shared, but its turn comes later.
                left.next();
                continue;
            }
            _ => {}
        }
        if let Some((l, item)) = left.peek() {
            if !configured.contains(l) {
                out.push(item.clone());
                left.next();
                continue;
            }
            if merged.contains(l) {
                left.next();
            }
        }
        if let Some((r, item)) = right.next() {
            merged.insert(r);
            out.extend(overlay(r, item));
            if next == Some(r) {
                next = shared.next();
            }
        }
    }
}
