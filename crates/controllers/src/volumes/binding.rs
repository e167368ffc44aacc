//! What binding writes, on either side: each function gives the changed object, or `None` when it
//! is so already.
//!
//! Pure. A binding is four writes (volume, its phase, claim, its phase), each of which may be the
//! last before a crash; done again, only those are made that are missing.

use std::collections::BTreeMap;

use evenkeel_client::ObjectKey;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};

use super::facts::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, annotate, annotation, claim_phase, held_for, is_held_for,
    name, storage, volume_name, volume_phase, volume_spec,
};

/// On a volume: what it had before it grew, until its node has made the file system larger.
const PRE_RESIZE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// The reference to a claim that its volume keeps.
#[must_use]
pub fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// The volume, held for the claim.
#[must_use]
pub fn hold(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let chosen_here = !is_held_for(volume, claim);
    let complete = held_for(volume)
        .is_some_and(|(held, key)| key == ObjectKey::of(claim) && held.uid == claim.metadata.uid);
    let noted = annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some();
    if complete && (noted || !chosen_here) {
        return None;
    }
    let mut wanted = volume.clone();
    if !complete {
        wanted.spec.get_or_insert_default().claim_ref = Some(reference(claim));
    }
    if chosen_here && !noted {
        annotate(&mut wanted.metadata, BOUND_BY_CONTROLLER, "yes");
    }
    Some(wanted)
}

/// The volume, held for nobody any more; one that a person held for a claim stays held by name.
#[must_use]
pub fn release(volume: &PersistentVolume) -> Option<PersistentVolume> {
    let mut wanted = volume.clone();
    let spec = wanted.spec.as_mut()?;
    if annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some() {
        spec.claim_ref = None;
        if let Some(annotations) = &mut wanted.metadata.annotations {
            annotations.remove(BOUND_BY_CONTROLLER);
        }
    } else if let Some(held) = &mut spec.claim_ref {
        held.uid = None;
        held.resource_version = None;
    }
    Some(wanted)
}

/// The volume in another phase.
#[must_use]
pub fn phase(volume: &PersistentVolume, phase: &str, message: &str) -> Option<PersistentVolume> {
    let written = volume.status.as_ref().and_then(|it| it.phase.as_deref());
    if volume_phase(volume) == phase && written.is_some() {
        return None;
    }
    let mut wanted = volume.clone();
    let status = wanted.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    status.message = Some(message.to_owned()).filter(|text| !text.is_empty());
    Some(wanted)
}

/// The claim, bound to the volume.
#[must_use]
pub fn bind(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let named = volume_name(claim) == Some(name(&volume.metadata));
    let completed = annotation(&claim.metadata, BIND_COMPLETED).is_some();
    if named && completed {
        return None;
    }
    let mut wanted = claim.clone();
    if !named {
        let spec = wanted.spec.get_or_insert_default();
        spec.volume_name.clone_from(&volume.metadata.name);
        if annotation(&claim.metadata, BOUND_BY_CONTROLLER).is_none() {
            annotate(&mut wanted.metadata, BOUND_BY_CONTROLLER, "yes");
        }
    }
    if !completed {
        annotate(&mut wanted.metadata, BIND_COMPLETED, "yes");
    }
    Some(wanted)
}

/// The claim in another phase, with what its volume has; without one it has nothing.
#[must_use]
pub fn claim_status(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaim> {
    let mut wanted = claim.clone();
    let becomes = claim_phase(claim) != phase;
    let status = wanted.status.get_or_insert_default();
    if becomes || status.phase.is_none() {
        status.phase = Some(phase.to_owned());
    }
    match volume {
        None => {
            status.access_modes = None;
            status.capacity = None;
            status.current_volume_attributes_class_name = None;
        }
        Some(volume) => {
            let spec = volume_spec(volume);
            status.access_modes.clone_from(&spec.access_modes);
            // Only when it becomes bound: later a difference means that the file system is not
            // as large as the volume yet.
            if becomes {
                let before = annotation(&volume.metadata, PRE_RESIZE)
                    .filter(|text| text.parse::<evenkeel_api::quantity::Quantity>().is_ok());
                if let Some(before) = before {
                    let before =
                        k8s_openapi::apimachinery::pkg::api::resource::Quantity(before.to_owned());
                    let capacity = status.capacity.get_or_insert_with(BTreeMap::new);
                    capacity.insert("storage".to_owned(), before);
                } else if storage(status.capacity.as_ref()) != storage(spec.capacity.as_ref()) {
                    status.capacity.clone_from(&spec.capacity);
                }
                if claim_phase(claim) == "Pending" && phase == "Bound" {
                    let class = spec.volume_attributes_class_name.clone();
                    status.current_volume_attributes_class_name = class;
                }
            }
        }
    }
    (wanted.status != claim.status).then_some(wanted)
}
