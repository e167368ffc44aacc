//! What pods and claims of devices say of each other: small questions that the scheduler, the loops
//! and the nodes ask alike.

use k8s_openapi::api::core::v1::{Pod, PodExtendedResourceClaimStatus, PodResourceClaim};
use k8s_openapi::api::resource::v1::{
    AllocationResult, ResourceClaim, ResourceClaimConsumerReference,
};

/// Most consumers of one claim.
pub const RESERVED_MAX: usize = 256;
/// Most devices of one claim.
pub const RESULTS_MAX: usize = 32;
/// On a claim that was made for the extended resources of a pod (KEP-5004): `true`.
pub const FOR_EXTENDED_RESOURCES: &str = "resource.kubernetes.io/extended-resource-claim";
/// Before the name of a class: the extended resource that its devices are, whatever else they are
/// called.
pub const BY_CLASS: &str = "deviceclass.resource.kubernetes.io/";
/// On a claim: it is allocated, so that it is not removed before somebody gives it back.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// The allocation of a claim.
#[must_use]
pub fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

/// Who uses a claim.
#[must_use]
pub fn reserved_for(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    let status = claim.status.as_ref();
    status
        .and_then(|status| status.reserved_for.as_deref())
        .unwrap_or_default()
}

/// Is the claim reserved for the pod of this uid?
#[must_use]
pub fn is_reserved_for(claim: &ResourceClaim, uid: &str) -> bool {
    reserved_for(claim)
        .iter()
        .any(|consumer| consumer.uid == uid)
}

/// A pod as a consumer of claims.
#[must_use]
pub fn consumer(pod: &Pod) -> ResourceClaimConsumerReference {
    ResourceClaimConsumerReference {
        resource: "pods".to_owned(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        api_group: None,
    }
}

/// What a pod says of one of its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodClaimName<'p> {
    /// This claim of the pod's namespace.
    Named(&'p str),
    /// This one, which was made for the pod from a template.
    Generated(&'p str),
    /// Whoever makes claims from templates has found that none is needed.
    NotNeeded,
    /// It is to be made from a template and has not been.
    NotYet,
}

/// Which claim a pod means (`resourceclaim.Name` of the reference).
#[must_use]
pub fn claim_name<'p>(pod: &'p Pod, wanted: &'p PodResourceClaim) -> PodClaimName<'p> {
    if let Some(name) = &wanted.resource_claim_name {
        return PodClaimName::Named(name);
    }
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.resource_claim_statuses.as_ref());
    let mut statuses = statuses.into_iter().flatten();
    match statuses.find(|status| status.name == wanted.name) {
        Some(status) => match &status.resource_claim_name {
            Some(name) => PodClaimName::Generated(name),
            None => PodClaimName::NotNeeded,
        },
        None => PodClaimName::NotYet,
    }
}

/// The claims that a pod lists.
#[must_use]
pub fn pod_claims(pod: &Pod) -> &[PodResourceClaim] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.resource_claims.as_deref())
        .unwrap_or_default()
}

/// The claim that was made for the extended resources of a pod, as its status says.
#[must_use]
pub fn extended_claim(pod: &Pod) -> Option<&PodExtendedResourceClaimStatus> {
    pod.status.as_ref()?.extended_resource_claim_status.as_ref()
}

/// Was the claim made for the extended resources of a pod?
#[must_use]
pub fn is_for_extended_resources(claim: &ResourceClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    let value = annotations.and_then(|all| all.get(FOR_EXTENDED_RESOURCES));
    value.is_some_and(|value| value == "true")
}

/// May devices of a class stand behind a resource of this name?
#[must_use]
pub fn may_be_devices(resource: &str) -> bool {
    resource.starts_with(BY_CLASS) || crate::kinds::is_extended_resource(resource)
}

/// The names of the claims that a pod uses, as far as it knows them by now: those that it lists, and
/// the one for its extended resources.
pub fn claim_names(pod: &Pod) -> impl Iterator<Item = &str> {
    let made = extended_claim(pod).map(|made| made.resource_claim_name.as_str());
    listed_claim_names(pod).chain(made)
}

/// The names of the claims that a pod lists, as far as it knows them by now.
pub fn listed_claim_names(pod: &Pod) -> impl Iterator<Item = &str> {
    pod_claims(pod)
        .iter()
        .filter_map(|wanted| match claim_name(pod, wanted) {
            PodClaimName::Named(name) | PodClaimName::Generated(name) => Some(name),
            PodClaimName::NotNeeded | PodClaimName::NotYet => None,
        })
}

/// The name and uid of the pod for which a claim was made.
#[must_use]
pub fn made_for(claim: &ResourceClaim) -> Option<(&str, &str)> {
    let owners = claim.metadata.owner_references.iter().flatten();
    let mut owners = owners.filter(|owner| {
        owner.controller == Some(true) && owner.kind == "Pod" && owner.api_version == "v1"
    });
    owners
        .next()
        .map(|owner| (owner.name.as_str(), owner.uid.as_str()))
}

/// Was the claim made for the pod (`resourceclaim.IsForPod`)?
///
/// # Errors
/// That it was not, in the reference's words.
pub fn is_made_for(claim: &ResourceClaim, pod: &Pod) -> Result<(), String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if made_for(claim).is_some_and(|(_, owner)| owner == uid) {
        return Ok(());
    }
    let key = |namespace: &Option<String>, name: &Option<String>| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}/{}", text(namespace), text(name))
    };
    Err(format!(
        "ResourceClaim {} was not created for pod {} (pod is not owner)",
        key(&claim.metadata.namespace, &claim.metadata.name),
        key(&pod.metadata.namespace, &pod.metadata.name)
    ))
}
