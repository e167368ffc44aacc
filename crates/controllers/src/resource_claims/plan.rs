//! What a pod's claims need, and what a claim does not need any more. Pure.

use std::sync::Arc;

use evenkeel_api::devices::claims::{
    FINALIZER, PodClaimName, RESERVED_MAX, allocation, claim_name, consumer, is_made_for,
    is_reserved_for, pod_claims, reserved_for,
};
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim, PodResourceClaimStatus};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimStatus, ResourceClaimTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// On a claim that was made for a pod: which of the pod's claims it is.
pub const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";

/// Longest beginning of a generated name: five characters and a hyphen follow.
const BASE_MAX: usize = 57;

/// Will the pod use its claims no more?
#[must_use]
pub fn is_done(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let spec = pod.spec.as_ref();
    let node = spec.and_then(|spec| spec.node_name.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
        || (pod.metadata.deletion_timestamp.is_some() && node.unwrap_or_default().is_empty())
}

/// What one of a pod's claims needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Need<'p> {
    /// Nothing.
    Nothing,
    /// The pod has to be told of this claim, which was made for it.
    Name(String),
    /// A claim from this template.
    Make(&'p str),
}

/// What a pod's claim needs. `known` is the claim that the pod's status names, `made` are all that
/// were made for the pod.
#[must_use]
pub fn need<'p>(
    pod: &'p Pod,
    wanted: &'p PodResourceClaim,
    known: Option<&ResourceClaim>,
    made: &[Arc<ResourceClaim>],
) -> Need<'p> {
    let Some(template) = wanted.resource_claim_template_name.as_deref() else {
        return Need::Nothing;
    };
    if claim_name(pod, wanted) == PodClaimName::NotNeeded
        || known.is_some_and(|claim| is_made_for(claim, pod).is_ok())
    {
        return Need::Nothing;
    }
    // One that was made, and the pod's status was not written: after a crash between the two.
    let is_it = |claim: &&Arc<ResourceClaim>| {
        let annotations = claim.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(POD_CLAIM_NAME)) == Some(&wanted.name)
            && claim.metadata.deletion_timestamp.is_none()
            && is_made_for(claim, pod).is_ok()
    };
    // If there are several, which one is named must not depend on the order they are listed in.
    let found = made
        .iter()
        .filter(is_it)
        .min_by_key(|claim| &claim.metadata.name);
    match found.and_then(|claim| claim.metadata.name.clone()) {
        Some(name) => Need::Name(name),
        None => Need::Make(template),
    }
}

/// The beginning of a claim's name: both parts cut in proportion when it is too long.
fn base(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= BASE_MAX {
        return whole;
    }
    let cut = |part: &str| part[..part.len() * BASE_MAX / whole.len()].to_owned();
    format!("{}-{}", cut(pod), cut(claim))
}

/// The claim that a template asks for.
#[must_use]
pub fn from_template(
    pod: &Pod,
    wanted: &PodResourceClaim,
    template: &ResourceClaimTemplate,
) -> ResourceClaim {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let template = template.spec.clone().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM_NAME.to_owned(), wanted.name.clone());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base(name, &wanted.name)),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: name.to_owned(),
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// What the pod's status says of its claims, with those that are `named` now.
#[must_use]
pub fn statuses(pod: &Pod, named: &[(String, String)]) -> Vec<PodResourceClaimStatus> {
    let status = pod.status.as_ref();
    let known = status.and_then(|status| status.resource_claim_statuses.as_ref());
    let known = known.into_iter().flatten();
    let mut all: Vec<PodResourceClaimStatus> = known
        .filter(|status| !named.iter().any(|(name, _)| *name == status.name))
        .cloned()
        .collect();
    all.extend(named.iter().map(|(name, claim)| PodResourceClaimStatus {
        name: name.clone(),
        resource_claim_name: Some(claim.clone()),
    }));
    let place = |status: &PodResourceClaimStatus| {
        let mut claims = pod_claims(pod).iter();
        claims.position(|claim| claim.name == status.name)
    };
    all.sort_by_key(place);
    all
}

/// The claim reserved for a pod that is on a node without it; `None` where nothing is to be done.
#[must_use]
pub fn reserved(pod: &Pod, claim: &ResourceClaim) -> Option<ResourceClaim> {
    let spec = pod.spec.as_ref()?;
    spec.node_name.as_deref().filter(|node| !node.is_empty())?;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    allocation(claim)?;
    if is_reserved_for(claim, uid)
        || reserved_for(claim).len() >= RESERVED_MAX
        || claim.metadata.deletion_timestamp.is_some()
    {
        return None;
    }
    let mut claim = claim.clone();
    let status = claim.status.get_or_insert_default();
    status
        .reserved_for
        .get_or_insert_default()
        .push(consumer(pod));
    Some(claim)
}

/// What is known of a pod that uses a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumer {
    /// It may run.
    Alive,
    /// It has ended, or ends without having been on a node.
    Done,
    /// It is not there any more.
    Gone,
}

impl Consumer {
    /// Of a pod.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        if is_done(pod) {
            Self::Done
        } else {
            Self::Alive
        }
    }
}

/// What is to be done with a claim, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Cleaned {
    /// Write this status.
    pub status: Option<ResourceClaimStatus>,
    /// Take the finalizer off.
    pub unprotect: bool,
    /// Delete it.
    pub remove: bool,
}

/// What a claim does not need any more. `consumers` are the pods of `reservedFor`, in its order;
/// `owner` is the pod it was made for.
#[must_use]
pub fn clean(claim: &ResourceClaim, consumers: &[Consumer], owner: Option<Consumer>) -> Cleaned {
    let reserved = reserved_for(claim);
    let valid: Vec<_> = reserved
        .iter()
        .zip(consumers)
        .filter(|(_, consumer)| **consumer == Consumer::Alive)
        .map(|(reference, _)| reference.clone())
        .collect();
    let deleting = claim.metadata.deletion_timestamp.is_some();
    let protected = is_protected(claim);
    let mut status = claim.status.clone().unwrap_or_default();
    let mut cleaned = Cleaned::default();
    // Given back by the last one that used it, not when nobody has used it yet: who allocates
    // need not reserve at once.
    let left = valid.len() < reserved.len();
    let unused = valid.is_empty();
    if left {
        status.reserved_for = (!unused).then_some(valid);
    }
    if unused && protected && (left || deleting) {
        status.allocation = None;
        cleaned.unprotect = true;
    }
    if Some(&status) != claim.status.as_ref() && claim.status.is_some() {
        cleaned.status = Some(status);
    }
    cleaned.remove = unused && !deleting && owner.is_some_and(|owner| owner != Consumer::Alive);
    if cleaned.remove && protected {
        // Nothing was reserved, so that nothing was given back above.
        cleaned.unprotect = true;
        if allocation(claim).is_some() {
            let status = cleaned
                .status
                .get_or_insert_with(|| claim.status.clone().unwrap_or_default());
            status.allocation = None;
        }
    }
    cleaned
}

fn is_protected(claim: &ResourceClaim) -> bool {
    let finalizers = claim.metadata.finalizers.iter().flatten();
    finalizers.into_iter().any(|name| name == FINALIZER)
}

/// The claim without its finalizer, if it has it and is not allocated.
#[must_use]
pub fn unprotected(claim: &ResourceClaim) -> Option<ResourceClaim> {
    if !is_protected(claim) || allocation(claim).is_some() {
        return None;
    }
    let mut claim = claim.clone();
    let finalizers = claim.metadata.finalizers.get_or_insert_default();
    finalizers.retain(|name| name != FINALIZER);
    Some(claim)
}
