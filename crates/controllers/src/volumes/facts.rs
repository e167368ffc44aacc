//! What claims, volumes and classes say: the reference's words for them, and small questions.
//!
//! Pure. The annotations are those of `k8s.io/component-helpers/storage/volume`.

use std::collections::BTreeMap;

use evenkeel_api::quantity::Quantity;
use evenkeel_client::ObjectKey;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeSpec, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// On a claim: its binding is complete on both sides.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On either: the loop chose the other one, not a person.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: the node for which its volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make its volume.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The older name of [`PROVISIONER`]; both are written, as there.
pub const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The older form of `spec.storageClassName`.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// What makes a class the default one.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_CLASS_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";

/// An annotation.
#[must_use]
pub fn annotation<'m>(meta: &'m ObjectMeta, name: &str) -> Option<&'m str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Writes an annotation.
pub fn annotate(meta: &mut ObjectMeta, name: &str, value: &str) {
    meta.annotations
        .get_or_insert_default()
        .insert(name.to_owned(), value.to_owned());
}

/// The name of an object.
#[must_use]
pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The spec of a claim; an empty one where there is none.
pub fn claim_spec(claim: &PersistentVolumeClaim) -> &PersistentVolumeClaimSpec {
    static NONE: std::sync::LazyLock<PersistentVolumeClaimSpec> =
        std::sync::LazyLock::new(PersistentVolumeClaimSpec::default);
    claim.spec.as_ref().unwrap_or(&NONE)
}

/// The spec of a volume; an empty one where there is none.
pub fn volume_spec(volume: &PersistentVolume) -> &PersistentVolumeSpec {
    static NONE: std::sync::LazyLock<PersistentVolumeSpec> =
        std::sync::LazyLock::new(PersistentVolumeSpec::default);
    volume.spec.as_ref().unwrap_or(&NONE)
}

/// The class of a claim; empty for none.
#[must_use]
pub fn class_of(claim: &PersistentVolumeClaim) -> &str {
    annotation(&claim.metadata, CLASS)
        .or_else(|| claim_spec(claim).storage_class_name.as_deref())
        .unwrap_or_default()
}

/// Did somebody say which class the claim is of, be it the empty one?
#[must_use]
pub fn has_class(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, CLASS).is_some() || claim_spec(claim).storage_class_name.is_some()
}

/// The class of a volume; empty for none.
#[must_use]
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    annotation(&volume.metadata, CLASS)
        .or_else(|| volume_spec(volume).storage_class_name.as_deref())
        .unwrap_or_default()
}

/// The volume that a claim names; `None` when it names none.
#[must_use]
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim_spec(claim).volume_name.as_deref();
    name.filter(|name| !name.is_empty())
}

/// The phase of a claim.
#[must_use]
pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status
        .and_then(|it| it.phase.as_deref())
        .unwrap_or("Pending")
}

/// The phase of a volume.
#[must_use]
pub fn volume_phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status
        .and_then(|it| it.phase.as_deref())
        .unwrap_or("Pending")
}

/// Reads the amount of storage in a list of resources.
#[must_use]
pub fn storage(list: Option<&BTreeMap<String, Written>>) -> Option<Quantity> {
    list?.get("storage")?.0.parse().ok()
}

/// What a claim asks for.
#[must_use]
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim_spec(claim).resources.as_ref();
    storage(resources.and_then(|all| all.requests.as_ref())).unwrap_or_default()
}

/// What a volume has.
#[must_use]
pub fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume_spec(volume).capacity.as_ref()).unwrap_or_default()
}

/// `Filesystem` or `Block`.
fn mode(mode: Option<&str>) -> &str {
    mode.unwrap_or("Filesystem")
}

/// Are they of one volume mode?
#[must_use]
pub fn same_mode(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    mode(claim_spec(claim).volume_mode.as_deref())
        == mode(volume_spec(volume).volume_mode.as_deref())
}

/// Does the volume offer every access mode that the claim asks for?
#[must_use]
pub fn offers_modes(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let offered = volume_spec(volume)
        .access_modes
        .as_deref()
        .unwrap_or_default();
    let mut asked = claim_spec(claim).access_modes.iter().flatten();
    asked.all(|mode| offered.contains(mode))
}

/// Are they of one class of attributes?
#[must_use]
pub fn same_attributes(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let asked = claim_spec(claim).volume_attributes_class_name.as_deref();
    let has = volume_spec(volume).volume_attributes_class_name.as_deref();
    asked.unwrap_or_default() == has.unwrap_or_default()
}

/// The claim that a volume is held for.
#[must_use]
pub fn held_for(volume: &PersistentVolume) -> Option<(&ObjectReference, ObjectKey)> {
    let held = volume_spec(volume).claim_ref.as_ref()?;
    let key = ObjectKey::new(
        held.namespace.clone().unwrap_or_default(),
        held.name.clone().unwrap_or_default(),
    );
    Some((held, key))
}

/// The uid in a reference; empty when a person wrote only the name.
#[must_use]
pub fn held_uid(held: &ObjectReference) -> &str {
    held.uid.as_deref().unwrap_or_default()
}

/// Is the volume held for this claim, by name and, where it is known, by uid?
#[must_use]
pub fn is_held_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    held_for(volume).is_some_and(|(held, key)| {
        let uid = held_uid(held);
        key == ObjectKey::of(claim)
            && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}

/// The default class: the newest of those that say so, by name where they are of one age.
pub fn default_class<'c>(
    classes: impl IntoIterator<Item = &'c std::sync::Arc<StorageClass>>,
) -> Option<&'c std::sync::Arc<StorageClass>> {
    let says = |class: &StorageClass, name: &str| annotation(&class.metadata, name) == Some("true");
    let defaults = classes
        .into_iter()
        .filter(|class| says(class, DEFAULT_CLASS) || says(class, DEFAULT_CLASS_BETA));
    defaults.min_by(|a, b| {
        let age = |class: &StorageClass| class.metadata.creation_timestamp.clone().map(|at| at.0);
        age(b)
            .cmp(&age(a))
            .then_with(|| a.metadata.name.cmp(&b.metadata.name))
    })
}

/// The claims that a pod uses, by name, and whether each is made for the pod.
pub fn pod_claims(pod: &Pod) -> impl Iterator<Item = (String, bool)> + '_ {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten().filter_map(|volume| {
        if let Some(source) = &volume.persistent_volume_claim {
            return Some((source.claim_name.clone(), false));
        }
        let of = name(&pod.metadata);
        let ephemeral = volume.ephemeral.as_ref();
        ephemeral.map(|_| (format!("{of}-{}", volume.name), true))
    })
}

/// Was the claim made for this pod?
#[must_use]
pub fn is_made_for(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let owner = crate::claim::controller_of(&claim.metadata);
    owner.is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}

/// Index of pods by the claims they use (`NAMESPACE/NAME`).
pub const BY_CLAIM: &str = "claim";

/// The index function of [`BY_CLAIM`].
#[must_use]
pub fn by_claim(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let claims = pod_claims(pod).map(|(claim, _)| format!("{namespace}/{claim}"));
    claims.collect()
}
