//! What becomes of an object, from what is known of its owners: pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::graph::{FOREGROUND, ORPHAN};

/// What is known of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// There, and staying or going without waiting.
    Solid,
    /// Verified absent, or where it cannot own this object.
    Absent,
    /// Waits for its dependents.
    Waiting,
}

/// How to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Dependents follow later.
    Background,
    /// Dependents go first.
    Foreground,
    /// Dependents stay.
    Orphan,
}

/// What to do with an object.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Leave it.
    Keep,
    /// Some owners stay: drop the references to the others.
    Disown(Vec<OwnerReference>),
    /// It goes. With `unblock` its own dependents wait for it in a circle: its reference must
    /// stop blocking first.
    Delete {
        /// How.
        policy: Policy,
        /// Break the circle.
        unblock: bool,
    },
}

/// Decides from the live metadata of an object and the state of each of its owners.
/// `has_dependents` and `circle` (a dependent of it waits itself) come from the graph.
#[must_use]
pub fn judge(
    meta: &ObjectMeta,
    state: impl Fn(&OwnerReference) -> Owner,
    has_dependents: bool,
    circle: bool,
) -> Verdict {
    let owners = meta.owner_references.clone().unwrap_or_default();
    if owners.is_empty() {
        return Verdict::Keep;
    }
    let solid: Vec<_> = owners
        .iter()
        .filter(|owner| state(owner) == Owner::Solid)
        .cloned()
        .collect();
    if !solid.is_empty() {
        if solid.len() == owners.len() {
            return Verdict::Keep;
        }
        return Verdict::Disown(solid);
    }
    let waiting = owners.iter().any(|owner| state(owner) == Owner::Waiting);
    if waiting && has_dependents {
        return Verdict::Delete {
            policy: Policy::Foreground,
            unblock: circle,
        };
    }
    let has = |name: &str| meta.finalizers.iter().flatten().any(|found| found == name);
    let policy = if has(ORPHAN) {
        Policy::Orphan
    } else if has(FOREGROUND) {
        Policy::Foreground
    } else {
        Policy::Background
    };
    Verdict::Delete {
        policy,
        unblock: false,
    }
}
