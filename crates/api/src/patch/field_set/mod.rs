//! Sets of fields: who owns what, and what changed.
//!
//! A set is a tree of path elements; a node of the tree may be a member itself, have members
//! below it, or both. Nodes that are neither don't exist, so an empty set has no nodes. The tree
//! keeps its nodes sorted, which makes the algebra a merge of sorted lists. Semantics and wire
//! format are those of `sigs.k8s.io/structured-merge-diff`.

mod path;
mod wire;

use serde_json::Value;

pub use path::PathElement;

use super::structured::{self, Shape};
use crate::schema::{Schema, Ty};

/// A set of fields of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    pub(super) nodes: Vec<Node>,
}

/// A place in a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) element: PathElement,
    /// Is the place itself in the set?
    pub(super) member: bool,
    pub(super) children: FieldSet,
}

impl Node {
    fn is_nothing(&self) -> bool {
        !self.member && self.children.nodes.is_empty()
    }
}

impl FieldSet {
    /// The set that an applier of `value` owns: every leaf, every list item, every map entry.
    #[must_use]
    pub fn from_value(schema: &Schema, ty: &Ty, value: &Value) -> Self {
        structured::fields_of(Shape::root(schema, ty), value)
    }

    /// Reads the `fieldsV1` of a managed fields entry.
    ///
    /// # Errors
    /// Text for people, when it is not in the format.
    pub fn from_fields_v1(fields: &Value) -> Result<Self, String> {
        wire::read(fields)
    }

    /// The `fieldsV1` of a managed fields entry.
    #[must_use]
    pub fn to_fields_v1(&self) -> Value {
        wire::write(self)
    }

    /// Would anything of a set in the `FieldsV1` format be lost by taking this one from it? Sometimes
    /// yes where nothing would.
    #[must_use]
    pub(super) fn touches(&self, fields: &Value) -> bool {
        !self.is_empty() && wire::touched(fields, self)
    }

    /// Has it no members?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds the place that a path names; an empty path names the whole object, which nobody owns.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let at = match self.position(first) {
            Ok(at) => at,
            Err(at) => {
                let node = Node {
                    element: first.clone(),
                    member: false,
                    children: Self::default(),
                };
                self.nodes.insert(at, node);
                at
            }
        };
        if rest.is_empty() {
            self.nodes[at].member = true;
        } else {
            self.nodes[at].children.insert(rest);
        }
    }

    /// Is the place that a path names in the set?
    #[must_use]
    pub fn has(&self, path: &[PathElement]) -> bool {
        let Some((first, rest)) = path.split_first() else {
            return false;
        };
        self.node(first).is_some_and(|node| {
            if rest.is_empty() {
                node.member
            } else {
                node.children.has(rest)
            }
        })
    }

    fn position(&self, element: &PathElement) -> Result<usize, usize> {
        self.nodes
            .binary_search_by(|node| node.element.cmp(element))
    }

    pub(super) fn node(&self, element: &PathElement) -> Option<&Node> {
        self.position(element).ok().map(|at| &self.nodes[at])
    }

    /// Adds a subtree; appending in order is cheap.
    pub(super) fn push(&mut self, element: PathElement, member: bool, children: Self) {
        let node = Node {
            element,
            member,
            children,
        };
        if node.is_nothing() {
            return;
        }
        if self
            .nodes
            .last()
            .is_none_or(|last| last.element < node.element)
        {
            self.nodes.push(node);
            return;
        }
        match self.position(&node.element) {
            Ok(at) => {
                let found = &mut self.nodes[at];
                found.member |= node.member;
                if found.children.is_empty() {
                    found.children = node.children;
                } else {
                    found.children = found.children.union(&node.children);
                }
            }
            Err(at) => self.nodes.insert(at, node),
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        for (left, right) in zip(self, other) {
            nodes.push(match (left, right) {
                (Some(left), Some(right)) => Node {
                    element: left.element.clone(),
                    member: left.member || right.member,
                    children: left.children.union(&right.children),
                },
                (Some(one), None) | (None, Some(one)) => one.clone(),
                (None, None) => continue,
            });
        }
        Self { nodes }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut nodes = Vec::new();
        for pair in zip(self, other) {
            let (Some(left), Some(right)) = pair else {
                continue;
            };
            let node = Node {
                element: left.element.clone(),
                member: left.member && right.member,
                children: left.children.intersection(&right.children),
            };
            if !node.is_nothing() {
                nodes.push(node);
            }
        }
        Self { nodes }
    }

    /// What is here and not in `other`. A member there takes nothing from what is below it here.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for pair in zip(self, other) {
            match pair {
                (Some(left), None) => nodes.push(left.clone()),
                (Some(left), Some(right)) => {
                    let node = Node {
                        element: left.element.clone(),
                        member: left.member && !right.member,
                        children: left.children.difference(&right.children),
                    };
                    if !node.is_nothing() {
                        nodes.push(node);
                    }
                }
                (None, _) => {}
            }
        }
        Self { nodes }
    }

    /// What is here, without the members of `other` and everything below them.
    #[must_use]
    pub fn difference_with_children(&self, other: &Self) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for pair in zip(self, other) {
            match pair {
                (Some(left), None) => nodes.push(left.clone()),
                (Some(left), Some(right)) if !right.member => {
                    let node = Node {
                        element: left.element.clone(),
                        member: left.member,
                        children: left.children.difference_with_children(&right.children),
                    };
                    if !node.is_nothing() {
                        nodes.push(node);
                    }
                }
                _ => {}
            }
        }
        Self { nodes }
    }

    /// Calls `visit` with the path of every member: those of a level first, then those below.
    pub fn for_each<'s>(&'s self, visit: &mut dyn FnMut(&[&'s PathElement])) {
        self.walk(&mut Vec::new(), visit);
    }

    fn walk<'s>(
        &'s self,
        path: &mut Vec<&'s PathElement>,
        visit: &mut dyn FnMut(&[&'s PathElement]),
    ) {
        for node in self.nodes.iter().filter(|node| node.member) {
            path.push(&node.element);
            visit(path);
            path.pop();
        }
        for node in &self.nodes {
            path.push(&node.element);
            node.children.walk(path, visit);
            path.pop();
        }
    }

    /// The paths of all members as people read them: `.spec.containers[name="web"].image`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.for_each(&mut |path| {
            let mut text = String::new();
            for element in path {
                element.write(&mut text);
            }
            paths.push(text);
        });
        paths
    }

    /// Removes subtrees that a caller emptied by hand.
    pub(super) fn tidy(&mut self) {
        self.nodes.retain(|node| !node.is_nothing());
    }
}

/// Walks two sets side by side, in order.
fn zip<'s>(
    left: &'s FieldSet,
    right: &'s FieldSet,
) -> impl Iterator<Item = (Option<&'s Node>, Option<&'s Node>)> {
    let mut left = left.nodes.iter().peekable();
    let mut right = right.nodes.iter().peekable();
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (None, None) => None,
        (Some(l), Some(r)) => Some(match l.element.cmp(&r.element) {
            std::cmp::Ordering::Less => (left.next(), None),
            std::cmp::Ordering::Equal => (left.next(), right.next()),
            std::cmp::Ordering::Greater => (None, right.next()),
        }),
        (Some(_), None) => Some((left.next(), None)),
        (None, Some(_)) => Some((None, right.next())),
    })
}

#[cfg(test)]
mod tests;
