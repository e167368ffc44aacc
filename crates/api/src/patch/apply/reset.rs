//! Fields that a request can't set, because the kind's strategy resets them before storing.
//! Nobody comes to own them by such a request, and they are no ground for a conflict.

use crate::patch::field_set::{FieldSet, PathElement};
use crate::schema::{Schema, Ty};

/// Kinds of whose metadata a status takes nothing.
const STATUS_ALONE: [&str; 10] = [
    "DeviceTaintRule",
    "FlowSchema",
    "PodCertificateRequest",
    "PodGroup",
    "PriorityLevelConfiguration",
    "ResourceClaim",
    "ServiceCIDR",
    "StorageVersionMigration",
    "ValidatingAdmissionPolicy",
    "VolumeAttachment",
];

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
    /// * any of a certificate request: without `spec`, and what of the status has another path;
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
            // What a request asks for does not change, and answers have paths of their own.
            ("status", "CertificateSigningRequest") => &[&["spec"], &["status", "conditions"]],
            ("approval", "CertificateSigningRequest") => &[&["spec"], &["status", "certificate"]],
            (_, "CertificateSigningRequest") => &[&["spec"], &["status"]],
            ("status", kind) if STATUS_ALONE.contains(&kind) => &[&["metadata"], &["spec"]],
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Filter, STATUS_ALONE};
    use crate::Rows;
    use crate::patch::field_set::FieldSet;

    /// What of a set, in the form of managed fields, counts of a request.
    fn kept(kind: &str, subresource: &str, set: &serde_json::Value) -> serde_json::Value {
        let rows = Rows::builtin();
        let row = rows.iter().find(|row| row.gvk.kind == kind).expect("a row");
        let set = FieldSet::from_fields_v1(set).expect("a set");
        let filter = Filter::of(rows.schema(), &rows.ty(row), subresource, None);
        filter.apply(set).to_fields_v1()
    }

    #[test]
    fn what_a_certificate_request_asks_for_has_no_owner() {
        let set = json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:request": {}},
            "f:status": {"f:certificate": {}, "f:conditions": {}},
        });
        let of = |subresource: &str| kept("CertificateSigningRequest", subresource, &set);
        let labels = json!({"f:labels": {".": {}, "f:a": {}}});
        assert_eq!(of(""), json!({"f:metadata": labels}));
        assert_eq!(
            of("status"),
            json!({"f:metadata": labels, "f:status": {"f:certificate": {}}})
        );
        assert_eq!(
            of("approval"),
            json!({"f:metadata": labels, "f:status": {"f:conditions": {}}})
        );
    }

    #[test]
    fn of_some_kinds_a_status_takes_no_metadata() {
        let set = json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:status": {"f:x": {}}});
        for kind in STATUS_ALONE {
            assert_eq!(
                kept(kind, "status", &set),
                json!({"f:status": {"f:x": {}}}),
                "{kind}"
            );
        }
        assert_eq!(kept("Ingress", "status", &set), set);
    }
}
