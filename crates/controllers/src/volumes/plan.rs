//! Decides what becomes of a claim and of a volume: `syncClaim` and `syncVolume` of the
//! reference's persistent volume controller, without their writes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::facts::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, SELECTED_NODE, annotation, class_of,
    has_class, held_for, held_uid, is_held_for, name, same_mode, volume_name, volume_phase,
    volume_spec,
};
use super::matching;

/// Something to tell about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// A warning, or part of the ordinary course?
    pub warning: bool,
    /// Reason.
    pub reason: &'static str,
    /// Message.
    pub message: String,
}

impl Told {
    pub(super) fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: false,
            reason,
            message: message.into(),
        }
    }

    pub(super) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            reason,
            message: message.into(),
        }
    }
}

/// What is to be done about a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimStep {
    /// Bind it to the volume.
    Bind(Arc<PersistentVolume>),
    /// It waits; what is told says for what. `None`: that has been told, or is nobody's business.
    Wait(Option<Told>),
    /// It has lost its volume; told when that is new.
    Lose(Told),
    /// It gets the default class.
    Class(String),
    /// The provisioner of this name is asked for a volume, by an annotation.
    Provision(String, Told),
    /// It is bound to a volume that is somebody else's, which nobody can have done rightly.
    Misbound(Told),
}

/// What a claim's plan looks at.
#[derive(Debug, Default)]
pub struct Seen {
    /// Volumes that are free or held for the claim.
    pub volumes: Vec<Arc<PersistentVolume>>,
    /// The volume that the claim names.
    pub named: Option<Arc<PersistentVolume>>,
    /// Its class.
    pub class: Option<Arc<StorageClass>>,
    /// The default class.
    pub default: Option<Arc<StorageClass>>,
    /// Pods that use it and have no node yet.
    pub waiting_pods: Vec<String>,
}

/// Decides about a claim.
#[must_use]
pub fn claim(claim: &PersistentVolumeClaim, seen: &Seen) -> ClaimStep {
    if annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        return bound_claim(claim, seen);
    }
    match volume_name(claim) {
        Some(wanted) => claim_of_a_volume(claim, wanted, seen.named.as_ref()),
        None => unbound_claim(claim, seen),
    }
}

fn bound_claim(claim: &PersistentVolumeClaim, seen: &Seen) -> ClaimStep {
    if volume_name(claim).is_none() {
        return ClaimStep::Lose(Told::warning(
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        ));
    }
    let Some(volume) = &seen.named else {
        return ClaimStep::Lose(Told::warning(
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        ));
    };
    match held_for(volume) {
        Some((held, _)) if held.uid != claim.metadata.uid => ClaimStep::Lose(Told::warning(
            "ClaimMisbound",
            "Two claims are bound to the same volume, this one is bound incorrectly",
        )),
        _ => ClaimStep::Bind(Arc::clone(volume)),
    }
}

/// A person has asked for a certain volume.
fn claim_of_a_volume(
    claim: &PersistentVolumeClaim,
    wanted: &str,
    volume: Option<&Arc<PersistentVolume>>,
) -> ClaimStep {
    let Some(volume) = volume else {
        // The reference waits without a word; a claim that waits forever should say for what.
        return ClaimStep::Wait(Some(Told::warning(
            "FailedBinding",
            format!("volume {wanted:?} does not exist"),
        )));
    };
    if held_for(volume).is_none() {
        return match matching::satisfies(volume, claim) {
            Ok(()) => ClaimStep::Bind(Arc::clone(volume)),
            Err(why) => ClaimStep::Wait(Some(Told::warning(
                "VolumeMismatch",
                format!("Cannot bind to requested volume {wanted:?}: {why}"),
            ))),
        };
    }
    if is_held_for(volume, claim) {
        return ClaimStep::Bind(Arc::clone(volume));
    }
    let told = Told::warning(
        "FailedBinding",
        format!("volume {wanted:?} already bound to a different claim."),
    );
    if annotation(&claim.metadata, BOUND_BY_CONTROLLER).is_some() {
        return ClaimStep::Misbound(told);
    }
    ClaimStep::Wait(Some(told))
}

fn unbound_claim(claim: &PersistentVolumeClaim, seen: &Seen) -> ClaimStep {
    let class = seen.class.as_deref();
    let delayed =
        class.is_some_and(|it| it.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    if let Some(volume) = matching::best(claim, &seen.volumes, delayed) {
        return ClaimStep::Bind(Arc::clone(volume));
    }
    // Nothing more is made for a claim that goes.
    if claim.metadata.deletion_timestamp.is_some() {
        return ClaimStep::Wait(None);
    }
    if !has_class(claim)
        && let Some(default) = &seen.default
    {
        return ClaimStep::Class(name(&default.metadata).to_owned());
    }
    let node_chosen = annotation(&claim.metadata, SELECTED_NODE).is_some();
    if delayed && !node_chosen {
        return ClaimStep::Wait(Some(waits_for_consumer(&seen.waiting_pods)));
    }
    if class_of(claim).is_empty() {
        return ClaimStep::Wait(Some(Told::normal(
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
        )));
    }
    let failed = |why: String| ClaimStep::Wait(Some(Told::warning("ProvisioningFailed", why)));
    let Some(class) = class else {
        return failed(format!(
            "storageclass.storage.k8s.io {:?} not found",
            class_of(claim)
        ));
    };
    let provisioner = &class.provisioner;
    if provisioner.starts_with("kubernetes.io/") {
        return failed("no volume plugin matched".to_owned());
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or \
         manually by the system administrator. If volume creation is delayed, please verify that \
         the provisioner is running and correctly registered."
    );
    let told = Told::normal("ExternalProvisioning", message);
    ClaimStep::Provision(provisioner.clone(), told)
}

fn waits_for_consumer(pods: &[String]) -> Told {
    match pods {
        [] => Told::normal(
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        [pod] => Told::normal(
            "WaitForPodScheduled",
            format!("waiting for pod {pod} to be scheduled"),
        ),
        pods => Told::normal(
            "WaitForPodScheduled",
            format!("waiting for pods {} to be scheduled", pods.join(",")),
        ),
    }
}

/// What is to be done about a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeStep {
    /// It is in this phase and nothing else is to do.
    Phase(&'static str),
    /// Its claim has to be looked at.
    WakeClaim,
    /// It can't serve its claim: told about volume and claim.
    Mismatch(Told, Told),
    /// It is not needed by the claim it is held for: held for nobody any more.
    Unbind,
    /// Nobody needs it: released first, then what its policy says.
    Reclaim(Reclaim),
}

/// What happens to a released volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reclaim {
    /// It stays as it is until a person decides.
    Retain,
    /// Whoever made it removes it.
    Elsewhere,
    /// It can't be done: phase Failed, and why.
    Failed(Told),
}

/// Decides about a volume. `holder` is the claim of the name and uid that the volume is held for.
#[must_use]
pub fn volume(volume: &PersistentVolume, holder: Option<&PersistentVolumeClaim>) -> VolumeStep {
    let Some((held, _)) = held_for(volume) else {
        return VolumeStep::Phase("Available");
    };
    if held_uid(held).is_empty() {
        // Held by a person for a claim that is not bound yet: the claim's look decides.
        return VolumeStep::Phase("Available");
    }
    let Some(claim) = holder else {
        return VolumeStep::Reclaim(reclaim(volume));
    };
    match volume_name(claim) {
        None if !same_mode(claim, volume) => {
            let (pv, pvc) = (name(&volume.metadata), name(&claim.metadata));
            VolumeStep::Mismatch(
                Told::warning(
                    "VolumeMismatch",
                    format!(
                        "Cannot bind PersistentVolume to requested PersistentVolumeClaim {pvc:?} \
                         due to incompatible volumeMode."
                    ),
                ),
                Told::warning(
                    "VolumeMismatch",
                    format!(
                        "Cannot bind PersistentVolume {pv:?} to requested PersistentVolumeClaim \
                         due to incompatible volumeMode."
                    ),
                ),
            )
        }
        None => VolumeStep::WakeClaim,
        Some(bound) if bound == name(&volume.metadata) => VolumeStep::Phase("Bound"),
        // The claim is bound elsewhere. What was made for it is of no use to anybody.
        Some(_) => {
            let made = annotation(&volume.metadata, PROVISIONED_BY).is_some();
            if made && policy(volume) == "Delete" {
                VolumeStep::Reclaim(reclaim(volume))
            } else {
                VolumeStep::Unbind
            }
        }
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume_spec(volume)
        .persistent_volume_reclaim_policy
        .as_deref();
    policy.unwrap_or("Retain")
}

fn reclaim(volume: &PersistentVolume) -> Reclaim {
    let maker = annotation(&volume.metadata, PROVISIONED_BY).filter(|it| !it.is_empty());
    match policy(volume) {
        "Retain" => Reclaim::Retain,
        "Recycle" => Reclaim::Failed(Told::warning(
            "VolumeFailedRecycle",
            "No recycler plugin found for the volume!",
        )),
        "Delete" if maker.is_some_and(|maker| !maker.starts_with("kubernetes.io/")) => {
            Reclaim::Elsewhere
        }
        "Delete" if maker.is_none() && volume_spec(volume).csi.is_some() => Reclaim::Elsewhere,
        "Delete" => Reclaim::Failed(Told::warning(
            "VolumeFailedDelete",
            format!(
                "error getting deleter volume plugin for volume {:?}: no deletable volume plugin \
                 matched",
                name(&volume.metadata)
            ),
        )),
        _ => Reclaim::Failed(Told::warning(
            "VolumeUnknownReclaimPolicy",
            "Volume has unrecognized PersistentVolumeReclaimPolicy",
        )),
    }
}

/// Has the volume been given up already?
#[must_use]
pub fn is_released(volume: &PersistentVolume) -> bool {
    matches!(volume_phase(volume), "Released" | "Failed")
}
