//! What is set aside for pods and not yet seen in their claims.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::devices::claims::allocation;
use evenkeel_client::ObjectKey;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::extended::Special;
use crate::devices::{Devices, Outstanding};

/// An allocation that is set aside.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) key: ObjectKey,
    pub(super) pod: Arc<str>,
    /// The pod's group: its pods are placed in one cycle, and may share a claim that nobody has
    /// written yet.
    pub(super) group: Option<ObjectKey>,
    pub(super) allocation: AllocationResult,
    /// The revision of the claim that has it.
    pub(super) written: Option<u64>,
    /// The claim is one for extended resources, and has yet to be made.
    pub(super) special: Option<Special>,
}

impl Flight {
    /// Is it set aside for the pod, or for another one of its group that goes with it?
    pub(super) fn is_of(&self, pod: &str, group: Option<&ObjectKey>) -> bool {
        *self.pod == *pod || (group.is_some() && self.group.as_ref() == group)
    }
}

/// What is set aside and not yet seen in the claims.
#[derive(Debug, Default)]
pub(super) struct Flights {
    /// By the claim's uid.
    pub(super) claims: HashMap<String, Flight>,
    pub(super) outstanding: Outstanding,
}

impl Flights {
    /// Sets an allocation aside.
    pub(super) fn add(&mut self, uid: String, flight: Flight) {
        self.outstanding.add(&flight.allocation);
        self.claims.insert(uid, flight);
    }

    /// A claim that was yet to be made has been made.
    pub(super) fn made(&mut self, key: &str, claim: &ResourceClaim) {
        if let Some(mut flight) = self.claims.remove(key) {
            flight.key = ObjectKey::of(claim);
            let uid = claim.metadata.uid.clone().unwrap_or_default();
            self.claims.insert(uid, flight);
        }
    }

    /// Is something set aside for the extended resources of the pod?
    pub(super) fn special_of(&self, pod: &str) -> bool {
        let mut flights = self.claims.values();
        flights.any(|flight| flight.special.is_some() && *flight.pod == *pod)
    }

    /// Keeps those of which the question is answered with yes.
    pub(super) fn keep(&mut self, keep: impl Fn(&str, &Flight) -> bool) {
        let mut gone = Vec::new();
        self.claims.retain(|uid, flight| {
            let stays = keep(uid, flight);
            if !stays {
                gone.push(flight.allocation.clone());
            }
            stays
        });
        for allocation in &gone {
            self.outstanding.remove(allocation);
        }
    }

    /// Forgets what the view has caught up with: a claim that has the allocation, or is newer than
    /// what was written, says itself what it holds, and one that is gone holds nothing. What a claim
    /// says must not be counted here once more: of a shared device there would be too little left.
    pub(super) fn land(&mut self, devices: &Devices) {
        self.keep(|uid, flight| {
            let claim = devices.claim(&flight.key);
            match claim.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) {
                None => flight.written.is_none(),
                Some(claim) => {
                    allocation(claim) != Some(&flight.allocation)
                        && flight
                            .written
                            .is_none_or(|written| revision(claim) < written)
                }
            }
        });
    }
}

/// The revision of a claim.
pub(super) fn revision(claim: &ResourceClaim) -> u64 {
    let text = claim.metadata.resource_version.as_deref();
    text.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
