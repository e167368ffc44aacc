//! Fields that a request can't set, because the kind's strategy resets them before storing.
//! Nobody comes to own them by such a request, and they are no ground for a conflict.

use crate::patch::field_set::{FieldSet, PathElement};
use crate::schema::{Schema, Ty};

/// What of a set counts.
pub(super) enum Filter {
    /// All of it.
    All,
    /// All but these fields and what is below them.
    Without(FieldSet),
    /// What is at or below one of these paths; `*` stands for any step.
    Only(&'static [&'static [&'static str]]),
}

impl Filter {
    /// The filter of a request, by the subresource that it goes to:
    ///
    /// * none: without `status`, when the kind has one;
    /// * `status`: without `spec`, and the metadata that the kind's status strategy keeps;
    /// * `ephemeralcontainers` and `resize`: only what they are about;
    /// * any other: as with none.
    ///
    /// `custom` says for a custom kind whether it has a status of its own path; its objects' parts
    /// are not told by type.
    pub(super) fn of(schema: &Schema, ty: &Ty, subresource: &str, custom: Option<bool>) -> Self {
        let kind = schema.definition(ty).map_or("", |d| d.short_name());
        let paths: &[&[&str]] = match (subresource, kind) {
            ("status", _) if custom.is_some() => &[&["metadata"], &["spec"]],
            _ if custom == Some(true) => &[&["status"]],
            _ if custom == Some(false) => return Self::All,
            ("status", "Pod") => &[
                &["spec"],
                &["metadata", "deletionTimestamp"],
                &["metadata", "ownerReferences"],
            ],
            ("status", "Deployment") => &[&["spec"], &["metadata", "labels"]],
            ("status", _) => &[&["spec"]],
            ("ephemeralcontainers", _) => return Self::Only(&[&["spec", "ephemeralContainers"]]),
            ("resize", _) => {
                return Self::Only(&[
                    &["spec", "containers", "*", "resources"],
                    &["spec", "containers", "*", "resizePolicy"],
                    &["spec", "initContainers", "*", "resources"],
                    &["spec", "initContainers", "*", "resizePolicy"],
                    &["spec", "resources"],
                ]);
            }
            _ if matches!(
                schema.field(ty, "status").map(|field| &field.ty),
                Some(Ty::Struct(_) | Ty::Any)
            ) =>
            {
                &[&["status"]]
            }
            _ => return Self::All,
        };
        let mut set = FieldSet::default();
        for path in paths {
            let path: Vec<PathElement> = path.iter().map(|name| PathElement::field(name)).collect();
            set.insert(&path);
        }
        Self::Without(set)
    }

    pub(super) fn apply(&self, set: FieldSet) -> FieldSet {
        match self {
            Self::All => set,
            _ if set.is_empty() => set,
            Self::Without(reset) => set.difference_with_children(reset),
            Self::Only(paths) => only(&set, paths),
        }
    }
}

fn only(set: &FieldSet, paths: &[&[&str]]) -> FieldSet {
    let mut out = FieldSet::default();
    for node in &set.nodes {
        let matching: Vec<&[&str]> = paths
            .iter()
            .filter_map(|path| {
                let (first, rest) = path.split_first()?;
                let same = *first == "*"
                    || matches!(&node.element, PathElement::Field(name) if &**name == *first);
                same.then_some(rest)
            })
            .collect();
        if matching.is_empty() {
            continue;
        }
        let children = if matching.iter().any(|rest| rest.is_empty()) {
            node.children.clone()
        } else {
            only(&node.children, &matching)
        };
        out.push(node.element.clone(), node.member, children);
    }
    out
}
