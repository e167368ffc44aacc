//! What a claim's volume is to be made from: a snapshot, or the volume of another claim.
//!
//! Pure. The refusals are those of the field's provisioner, word for word where they name nothing
//! but objects. Data lies on one node, so a source also says where its volume is made.

use std::sync::Arc;

use evenkeel_api::local_volume::{
    FROM_SNAPSHOT, FROM_VOLUME, MADE, NODE_LABEL, PROVISIONER, SNAPSHOT_GROUP, parse_handle,
};
use evenkeel_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
};

use super::facts::{annotation, class_of, held_for, name, requested, volume_name, volume_phase};
use super::local_path::is_ours;
use super::snapshots::kinds::{Content, Snapshot};

/// Keeps a claim while its volume is copied to another one.
pub const CLONING: &str = "provisioner.storage.kubernetes.io/cloning-protection";

/// What a claim names as its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    group: String,
    /// Kind.
    pub kind: String,
    /// Name, in the claim's namespace.
    pub name: String,
}

impl Named {
    /// It is a snapshot.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.group == SNAPSHOT_GROUP && self.kind == "VolumeSnapshot"
    }

    /// It is another claim.
    #[must_use]
    pub fn is_claim(&self) -> bool {
        self.group.is_empty() && self.kind == "PersistentVolumeClaim"
    }
}

/// What a claim names, if it names something.
#[must_use]
pub fn of(spec: &PersistentVolumeClaimSpec) -> Option<Named> {
    if let Some(source) = &spec.data_source_ref {
        return Some(Named {
            group: source.api_group.clone().unwrap_or_default(),
            kind: source.kind.clone(),
            name: source.name.clone(),
        });
    }
    let source = spec.data_source.as_ref()?;
    Some(Named {
        group: source.api_group.clone().unwrap_or_default(),
        kind: source.kind.clone(),
        name: source.name.clone(),
    })
}

/// Where data comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// As the volume says it to its node.
    pub source: String,
    /// The node that has it.
    pub node: String,
}

fn node(labels: Option<&std::collections::BTreeMap<String, String>>) -> Option<String> {
    labels?.get(NODE_LABEL).cloned()
}

/// From a snapshot.
///
/// # Errors
/// Why no volume is made from it.
pub fn snapshot(
    claim: &PersistentVolumeClaim,
    wanted: &str,
    snapshot: Option<&Snapshot>,
    content: Option<&Content>,
) -> Result<From, String> {
    let Some(snapshot) = snapshot else {
        return Err(format!(
            "error getting snapshot {wanted} from api server: \
             volumesnapshots.snapshot.storage.k8s.io {wanted:?} not found"
        ));
    };
    if snapshot.metadata.deletion_timestamp.is_some() {
        return Err(format!("snapshot {wanted} is currently being deleted"));
    }
    let not_bound = || format!("snapshot {wanted} not bound");
    let status = snapshot.status.clone().unwrap_or_default();
    let content = content
        .filter(|_| status.bound_volume_snapshot_content_name.is_some())
        .ok_or_else(not_bound)?;
    let of = &content.spec.volume_snapshot_ref;
    if of.uid != snapshot.metadata.uid || content.spec.driver != PROVISIONER {
        return Err(not_bound());
    }
    if status.ready_to_use != Some(true) {
        return Err(format!("snapshot {wanted} is not Ready"));
    }
    let handle = content.status.as_ref();
    let handle = handle.and_then(|status| parse_handle(status.snapshot_handle.as_deref()?));
    let Some((node, stored)) = handle else {
        return Err(format!("snapshot handle {wanted} is not available"));
    };
    let size = status.restore_size.as_ref();
    let size: Quantity = size
        .and_then(|size| size.0.parse().ok())
        .unwrap_or_default();
    let asked = requested(claim);
    if asked.units() < size.units() {
        return Err(format!(
            "requested volume size {} is less than the size {} for the source snapshot {wanted}",
            asked.units(),
            size.units()
        ));
    }
    Ok(From {
        source: format!("{FROM_SNAPSHOT}{stored}"),
        node: node.to_owned(),
    })
}

/// From the volume of another claim.
///
/// # Errors
/// Why no volume is made from it.
pub fn clone(
    claim: &PersistentVolumeClaim,
    wanted: &str,
    source: Option<&Arc<PersistentVolumeClaim>>,
    volume: Option<&Arc<PersistentVolume>>,
) -> Result<From, String> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let Some(source) = source else {
        return Err(format!(
            "error getting PVC {wanted} (namespace {namespace:?}) from api server: \
             persistentvolumeclaim {wanted:?} not found"
        ));
    };
    let phase = super::facts::claim_phase(source);
    if phase != "Bound" {
        return Err(format!(
            "the PVC DataSource {wanted} must have a status of Bound.  Got {phase}"
        ));
    }
    if source.metadata.deletion_timestamp.is_some() {
        return Err(format!(
            "the PVC DataSource {wanted} is currently being deleted"
        ));
    }
    if class_of(source).is_empty() {
        return Err(format!(
            "the source PVC ({wanted}) storageclass cannot be empty"
        ));
    }
    let (asked, has) = (requested(claim).units(), requested(source).units());
    if asked < has {
        return Err(format!(
            "error, new PVC request must be greater than or equal in size to the specified PVC \
             data source, requested {asked} but source is {has}"
        ));
    }
    if volume_name(source).is_none() {
        return Err(format!("volume name is empty in source PVC {wanted}"));
    }
    let invalid = || "claim in dataSource not bound or invalid".to_owned();
    let volume = volume
        .filter(|volume| is_ours(volume))
        .ok_or_else(invalid)?;
    let held = held_for(volume).and_then(|(held, _)| held.uid.clone());
    if held != source.metadata.uid || volume_phase(volume) != "Bound" {
        return Err(invalid());
    }
    if annotation(&volume.metadata, MADE).is_none() {
        return Err(format!(
            "the volume {} of the PVC DataSource {wanted} has not been made by its node yet",
            name(&volume.metadata)
        ));
    }
    Ok(From {
        source: format!("{FROM_VOLUME}{}", name(&volume.metadata)),
        node: node(volume.metadata.labels.as_ref()).ok_or_else(invalid)?,
    })
}
