//! Which volume serves a claim: `FindMatchingVolume` and the order of the reference's index.

use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::facts::{
    capacity, claim_spec, class_of, class_of_volume, is_held_for, offers_modes, requested,
    same_attributes, same_mode, volume_phase, volume_spec,
};

/// The best volume for a claim: one that is held for it, else (unless a scheduler chooses, when
/// `delayed`) the free one with the fewest access modes and the least capacity beyond what is
/// asked.
pub fn best<'v>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'v Arc<PersistentVolume>>,
    delayed: bool,
) -> Option<&'v Arc<PersistentVolume>> {
    let asked = requested(claim);
    let selector = claim_spec(claim).selector.as_ref();
    let selector = selector.map(|selector| LabelSelector::from_spec(Some(selector)));
    let selects = |volume: &PersistentVolume| match &selector {
        None => true,
        Some(Ok(selector)) => selector.matches(crate::claim::labels(&volume.metadata)),
        // A selector that can't be read selects nothing.
        Some(Err(_)) => false,
    };
    let mut found: Option<(bool, usize, &Arc<PersistentVolume>)> = None;
    for volume in volumes {
        let held = is_held_for(volume, claim);
        let other = volume_spec(volume).claim_ref.is_some() && !held;
        if other
            || volume.metadata.deletion_timestamp.is_some()
            || capacity(volume) < asked
            || !same_mode(claim, volume)
            || !same_attributes(claim, volume)
            || !offers_modes(claim, volume)
        {
            continue;
        }
        let free = || {
            !delayed
                && volume_phase(volume) == "Available"
                && selects(volume)
                && class_of_volume(volume) == class_of(claim)
        };
        if !held && !free() {
            continue;
        }
        let modes = volume_spec(volume).access_modes.iter().flatten().count();
        let better = found.is_none_or(|(best_held, best_modes, best)| {
            let key = (!held, modes, capacity(volume), &volume.metadata.name);
            key < (!best_held, best_modes, capacity(best), &best.metadata.name)
        });
        if better {
            found = Some((held, modes, volume));
        }
    }
    found.map(|(_, _, volume)| volume)
}

/// Why a volume that a claim names can't serve it; in the reference's words.
///
/// # Errors
/// The first thing that does not fit.
pub fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    if volume.metadata.deletion_timestamp.is_some() {
        let name = super::facts::name(&volume.metadata);
        return Err(format!("the volume is marked for deletion {name:?}"));
    }
    let wrong = if capacity(volume) < requested(claim) {
        "requested PV is too small"
    } else if class_of_volume(volume) != class_of(claim) {
        "storageClassName does not match"
    } else if !same_attributes(claim, volume) {
        "volumeAttributesClassName does not match"
    } else if !same_mode(claim, volume) {
        "incompatible volumeMode"
    } else if !offers_modes(claim, volume) {
        "incompatible accessMode"
    } else {
        return Ok(());
    };
    Err(wrong.to_owned())
}
