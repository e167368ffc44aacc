//! Who owns the claims of a StatefulSet: its claim retention policy, carried out by owner
//! references (KEP-1847). The garbage collector deletes what is owned.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;

use super::identity;

/// Whether claims go with their set, and with their pod when the set shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    deleted: bool,
    scaled: bool,
}

fn policy(set: &StatefulSet) -> Policy {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let is_delete = |value: Option<&String>| value.map(String::as_str) == Some("Delete");
    Policy {
        deleted: is_delete(policy.and_then(|it| it.when_deleted.as_ref())),
        scaled: is_delete(policy.and_then(|it| it.when_scaled.as_ref())),
    }
}

fn owners(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    claim
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default()
}

fn reference(set: &StatefulSet) -> OwnerReference {
    crate::claim::reference_to(set)
}

fn pod_reference(pod: &Pod) -> OwnerReference {
    OwnerReference {
        controller: Some(true),
        block_owner_deletion: Some(true),
        ..pod.owner_ref(&()).unwrap_or_else(|| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: identity::name(&pod.metadata).to_owned(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        })
    }
}

/// Of the same name and kind, whatever the uid.
fn names(reference: &OwnerReference, api_version: &str, kind: &str, meta: &ObjectMeta) -> bool {
    reference.api_version == api_version
        && reference.kind == kind
        && reference.name == identity::name(meta)
}

fn names_set(reference: &OwnerReference, set: &StatefulSet) -> bool {
    names(reference, "apps/v1", "StatefulSet", &set.metadata)
}

fn names_pod(reference: &OwnerReference, pod: &Pod) -> bool {
    names(reference, "v1", "Pod", &pod.metadata)
}

fn is_uid(reference: &OwnerReference, meta: &ObjectMeta) -> bool {
    meta.uid.as_deref() == Some(reference.uid.as_str())
}

/// The claim belongs to a former pod of the same name: it goes, and a new pod must wait until it
/// has gone.
#[must_use]
pub fn is_stale(set: &StatefulSet, claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let first = owners(claim).iter().find(|owner| names_pod(owner, pod));
    policy(set).scaled && first.is_some_and(|owner| !is_uid(owner, &pod.metadata))
}

/// Somebody else controls the claim, and the policy would have us own it.
#[must_use]
pub fn is_contested(set: &StatefulSet, claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let policy = policy(set);
    if !policy.deleted && !policy.scaled {
        return false;
    }
    owners(claim).iter().any(|owner| {
        if names_set(owner, set) {
            !is_uid(owner, &set.metadata)
        } else if names_pod(owner, pod) {
            !is_uid(owner, &pod.metadata)
        } else {
            owner.controller == Some(true)
        }
    })
}

/// The owner references the claim should have, where it has others; `None`: it is fine, or in a
/// state that is better left alone.
#[must_use]
pub fn wanted_owners(
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    pod: &Pod,
) -> Option<Vec<OwnerReference>> {
    let found = owners(claim);
    let stale = found.iter().any(|owner| {
        (names_set(owner, set) && !is_uid(owner, &set.metadata))
            || (names_pod(owner, pod) && !is_uid(owner, &pod.metadata))
    });
    if stale {
        // Managed by a former set or pod of the same name: the garbage collector's to clean up.
        return None;
    }
    let mut wanted: Vec<OwnerReference> = found
        .iter()
        .filter(|owner| !names_set(owner, set) && !names_pod(owner, pod))
        .cloned()
        .collect();
    if !is_contested(set, claim, pod) {
        let policy = policy(set);
        let scaled_down = !identity::in_range(set, pod);
        if policy.scaled && scaled_down {
            wanted.push(pod_reference(pod));
        } else if policy.deleted {
            wanted.push(reference(set));
        }
    }
    let ours = |owners: &[OwnerReference]| -> Vec<(String, bool)> {
        let mut uids: Vec<_> = owners
            .iter()
            .map(|owner| (owner.uid.clone(), owner.controller == Some(true)))
            .collect();
        uids.sort();
        uids
    };
    (ours(found) != ours(&wanted)).then_some(wanted)
}
