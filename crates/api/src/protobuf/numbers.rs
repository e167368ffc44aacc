//! The field numbers of every published type.
//!
//! `numbers.tsv` has one line for a type: its name (`core.v1.Volume`), then its fields by their
//! JSON names. A path of numbers (`emptyDir:2.2`) is a field that JSON shows inline but protobuf
//! holds in an embedded message. A number with a word (`items:24/array`) is a field that is an object
//! of its owner's type, or what the word says. It restates the tags of the Kubernetes 1.37 API types.

use std::collections::HashMap;
use std::sync::LazyLock;

const TEXT: &str = include_str!("numbers.tsv");

/// What a field number means.
#[derive(Debug)]
pub(super) enum Slot {
    /// The field with this JSON name.
    Field(&'static str),
    /// A message whose fields stand among those of the outer one in JSON.
    Inline(Node),
    /// The field with this JSON name is an object of the type that has it, or something else. The
    /// message around it says which.
    Either(&'static str, Else),
}

/// What a field is that is no object of the type that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Else {
    /// A list of such objects.
    Array,
    /// Yes or no.
    Bool,
    /// A list of texts; and the field is a map of such values.
    Texts,
}

/// The fields of a message, by number, ascending.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) slots: Vec<(u32, Slot)>,
}

impl Node {
    pub(super) fn slot(&self, number: u32) -> Option<&Slot> {
        let found = self
            .slots
            .binary_search_by_key(&number, |slot| slot.0)
            .ok()?;
        Some(&self.slots[found].1)
    }

    fn add(&mut self, path: &str, name: &'static str) {
        let (first, rest) = path
            .split_once('.')
            .map_or((path, None), |(a, b)| (a, Some(b)));
        let (first, other) = first
            .split_once('/')
            .map_or((first, None), |(a, b)| (a, Some(b)));
        let Ok(number) = first.parse() else { return };
        let at = self.slots.binary_search_by_key(&number, |slot| slot.0);
        let Some(rest) = rest else {
            if let Err(at) = at {
                let slot = match other {
                    Some("array") => Slot::Either(name, Else::Array),
                    Some("bool") => Slot::Either(name, Else::Bool),
                    Some("texts") => Slot::Either(name, Else::Texts),
                    _ => Slot::Field(name),
                };
                self.slots.insert(at, (number, slot));
            }
            return;
        };
        let at = at.unwrap_or_else(|at| {
            self.slots
                .insert(at, (number, Slot::Inline(Node::default())));
            at
        });
        if let Slot::Inline(node) = &mut self.slots[at].1 {
            node.add(rest, name);
        }
    }
}

/// Parsed at first use: a server that nobody speaks protobuf to does not hold it.
static TABLE: LazyLock<HashMap<&'static str, Node>> = LazyLock::new(|| {
    TEXT.lines()
        .filter_map(|line| {
            let (name, fields) = line.split_once('\t')?;
            let mut node = Node::default();
            for (field, path) in fields.split(',').filter_map(|field| field.split_once(':')) {
                node.add(path, field);
            }
            Some((name, node))
        })
        .collect()
});

/// The numbers of a type by its full name, `io.k8s.api.core.v1.Pod`.
pub(super) fn of(type_name: &str) -> Option<&'static Node> {
    let short = type_name
        .strip_prefix("io.k8s.api.")
        .or_else(|| type_name.strip_prefix("io.k8s.apimachinery.pkg.apis."))
        .or_else(|| type_name.strip_prefix("io.k8s.apiextensions-apiserver.pkg.apis."))
        .or_else(|| type_name.strip_prefix("io.k8s.kube-aggregator.pkg.apis."))?;
    TABLE.get(short)
}
