//! Conflicts, in the words of the reference.

use crate::patch::golang;
use crate::status::{Status, StatusCause, StatusDetails};

/// A field that an applier wants to change and somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: String,
    /// How they came to own it: `Apply` or `Update`.
    pub operation: String,
    /// The API version of their update; empty for appliers.
    pub api_version: String,
    /// The subresource that they wrote to; empty for the object itself.
    pub subresource: String,
    /// The field: `.spec.replicas`.
    pub path: String,
}

impl Conflict {
    /// `"kubectl-client-side-apply" using apps/v1`
    fn owner(&self) -> String {
        let mut text = golang::quoted(&self.manager);
        if !self.subresource.is_empty() {
            text.push_str(" with subresource ");
            text.push_str(&golang::quoted(&self.subresource));
        }
        if self.operation == "Update" {
            text.push_str(" using ");
            text.push_str(&self.api_version);
        }
        text
    }
}

/// The text of all conflicts.
pub(in crate::patch) fn message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.owner(),
            one.path
        );
    }
    let mut text = format!("Apply failed with {} conflicts: ", conflicts.len());
    let mut last: Option<String> = None;
    for conflict in conflicts {
        let owner = conflict.owner();
        if last.as_ref() != Some(&owner) {
            if last.is_some() {
                text.push('\n');
            }
            text.push_str("conflicts with ");
            text.push_str(&owner);
            text.push(':');
            last = Some(owner);
        }
        text.push_str("\n- ");
        text.push_str(&conflict.path);
    }
    text
}

/// The 409 that tells a client about its conflicts.
#[must_use]
pub fn conflicts_status(conflicts: &[Conflict]) -> Status {
    let causes = conflicts
        .iter()
        .map(|conflict| StatusCause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", conflict.owner()),
            field: conflict.path.clone(),
        })
        .collect();
    let mut status = Status::failure(409, "Conflict", message(conflicts));
    status.details = Some(Box::new(StatusDetails {
        causes,
        ..StatusDetails::default()
    }));
    status
}
