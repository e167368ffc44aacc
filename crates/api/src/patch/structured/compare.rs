//! What differs between two values.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Shape, elements, embedded, equal};
use crate::patch::field_set::{FieldSet, PathElement};

/// The fields in which two objects differ; none stands in two of the sets.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::patch) struct Comparison {
    /// Only in the old one.
    pub(in crate::patch) removed: FieldSet,
    /// In both, with different values.
    pub(in crate::patch) modified: FieldSet,
    /// Only in the new one.
    pub(in crate::patch) added: FieldSet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Same,
    Removed,
    Modified,
    Added,
}

/// What the new side of a comparison is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::patch) enum New {
    /// An object of the kind: its structs have the fields that Go holds by value, written or not.
    Object,
    /// What somebody wrote: it has what it says.
    Configuration,
}

/// Compares two objects; `None` is the empty object of the type.
pub(in crate::patch) fn compare(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    kind: New,
) -> Comparison {
    let empty = &*embedded::EMPTY;
    let (old, new) = (old.unwrap_or(empty), new.unwrap_or(empty));
    Walk { kind }.value(shape, Some(old), Some(new)).1
}

impl Comparison {
    fn push(&mut self, element: &PathElement, mark: Mark, below: Self) {
        if mark == Mark::Removed || !below.removed.is_empty() {
            self.removed
                .push(element.clone(), mark == Mark::Removed, below.removed);
        }
        if mark == Mark::Modified || !below.modified.is_empty() {
            self.modified
                .push(element.clone(), mark == Mark::Modified, below.modified);
        }
        if mark == Mark::Added || !below.added.is_empty() {
            self.added
                .push(element.clone(), mark == Mark::Added, below.added);
        }
    }
}

fn presence(old: Option<&Value>, new: Option<&Value>) -> Mark {
    match (old, new) {
        (None, Some(_)) => Mark::Added,
        (Some(_), None) => Mark::Removed,
        _ => Mark::Same,
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Mark {
    match (old, new) {
        (Some(old), Some(new)) if !equal(old, new) => Mark::Modified,
        _ => presence(old, new),
    }
}

fn has_fields(shape: Shape<'_>, map: &Map<String, Value>, kind: New) -> bool {
    !map.is_empty() || (kind == New::Object && embedded::all(shape).next().is_some())
}

#[derive(Clone, Copy)]
struct Walk {
    kind: New,
}

impl Walk {
    fn value(
        self,
        shape: Shape<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> (Mark, Comparison) {
        let maps = (
            old.and_then(|value| shape.entries(value)),
            new.and_then(|value| shape.entries(value)),
        );
        if maps
            .0
            .is_some_and(|map| has_fields(shape, map, New::Object))
            || maps.1.is_some_and(|map| has_fields(shape, map, self.kind))
        {
            let mixed = old.is_some_and(|value| maps.0.is_none() && !value.is_null())
                || new.is_some_and(|value| maps.1.is_none() && !value.is_null());
            let mark = if mixed {
                leaf(old, new)
            } else {
                presence(old, new)
            };
            return (mark, self.entries(shape, maps.0, maps.1));
        }
        let lists = (
            old.and_then(|value| shape.items(value)),
            new.and_then(|value| shape.items(value)),
        );
        if lists.0.is_some_and(|list| !list.is_empty())
            || lists.1.is_some_and(|list| !list.is_empty())
        {
            let below = self.items(
                shape,
                lists.0.unwrap_or_default(),
                lists.1.unwrap_or_default(),
            );
            return (presence(old, new), below);
        }
        (leaf(old, new), Comparison::default())
    }

    fn entries(
        self,
        shape: Shape<'_>,
        old: Option<&Map<String, Value>>,
        new: Option<&Map<String, Value>>,
    ) -> Comparison {
        let mut out = Comparison::default();
        let present = |map: Option<&Map<String, Value>>, name: &str| {
            map.and_then(|_| embedded::absent(shape, name))
        };
        let mut visit = |name: &str, old: Option<&Value>, new: Option<&Value>| {
            let (mark, below) = self.value(shape.child(name), old, new);
            let same = Comparison::default();
            if mark != Mark::Same || below != same {
                out.push(&PathElement::field(name), mark, below);
            }
        };
        for (name, value) in old.into_iter().flatten() {
            let other = new
                .and_then(|map| map.get(name))
                .or_else(|| present(new, name));
            // Most of an object does not change, and what is the same differs in nothing below.
            if other.is_some_and(|other| std::ptr::eq(other, value) || other == value) {
                continue;
            }
            visit(name, Some(value), other);
        }
        for (name, value) in new.into_iter().flatten() {
            if old.is_none_or(|map| !map.contains_key(name)) {
                visit(name, present(old, name), Some(value));
            }
        }
        // A struct that comes or goes does so with the fields that JSON leaves out.
        if let (Some(only), None) | (None, Some(only)) = (old, new)
            && (new.is_none() || self.kind == New::Object)
        {
            for (name, value) in embedded::all(shape) {
                if !only.contains_key(name) {
                    let value = Some(value);
                    let sides = if new.is_none() {
                        (value, None)
                    } else {
                        (None, value)
                    };
                    visit(name, sides.0, sides.1);
                }
            }
        }
        out
    }

    fn items(self, shape: Shape<'_>, old: &[Value], new: &[Value]) -> Comparison {
        let mut pairs: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for item in old {
            if let Ok(element) = elements::element(shape, item) {
                pairs.entry(element).or_default().0.push(item);
            }
        }
        for item in new {
            if let Ok(element) = elements::element(shape, item) {
                pairs.entry(element).or_default().1.push(item);
            }
        }
        let mut out = Comparison::default();
        let one = |list: &[&Value]| list.first().copied().cloned();
        for (element, (old, new)) in &pairs {
            match (old.as_slice(), new.as_slice()) {
                (old @ ([] | [_]), new @ ([] | [_])) => {
                    let (mark, below) =
                        self.value(shape.item(), old.first().copied(), new.first().copied());
                    out.push(element, mark, below);
                }
                // Duplicates are compared as one value.
                ([_, _, ..], [_, _, ..]) => {
                    let same =
                        old.len() == new.len() && old.iter().zip(new).all(|(l, r)| equal(l, r));
                    let mark = if same { Mark::Same } else { Mark::Modified };
                    out.push(element, mark, Comparison::default());
                }
                ([_, _, ..], new) => {
                    let (_, below) = self.value(shape.item(), None, one(new).as_ref());
                    let mark = if new.is_empty() {
                        Mark::Same
                    } else {
                        Mark::Added
                    };
                    out.push(element, mark, below);
                    out.push(element, Mark::Removed, Comparison::default());
                }
                (old, _) => {
                    let (_, below) = self.value(shape.item(), one(old).as_ref(), None);
                    let mark = if old.is_empty() {
                        Mark::Same
                    } else {
                        Mark::Removed
                    };
                    out.push(element, mark, below);
                    out.push(element, Mark::Added, Comparison::default());
                }
            }
        }
        out
    }
}
