//! Devices as the scheduler reads them (KEP-4381): slices by pool, claims and who holds what, and
//! which free devices would serve a pod's claims on a node. Pure: nothing is written here.

pub mod allocate;
pub mod binding;
mod constraint;
mod counters;
pub mod extended;
pub mod pools;
pub mod request;
pub mod result;
pub mod shares;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use evenkeel_api::devices::claims::{allocation, is_for_extended_resources, made_for};
use evenkeel_client::ObjectKey;
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, DeviceTaintRule, ResourceClaim, ResourceSlice,
};

pub use pools::{Pool, PoolId, Pools, SliceInfo};
pub use shares::{Outstanding, SharedDevices, Shares, shared};

/// A device, among all of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    /// Whose it is.
    pub driver: Arc<str>,
    /// The pool it is in, of that driver.
    pub pool: Arc<str>,
    /// Its name in the pool.
    pub device: Arc<str>,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

/// The devices that an allocation keeps others from. Access for administrators keeps nobody, and
/// shares ([`shares::shared`]) only from what is not left.
#[must_use]
pub fn taken(allocation: &AllocationResult) -> Vec<DeviceId> {
    let results = allocation
        .devices
        .as_ref()
        .and_then(|all| all.results.as_ref());
    results
        .into_iter()
        .flatten()
        .filter(|result| result.admin_access != Some(true) && result.share_id.is_none())
        .map(|result| DeviceId {
            driver: result.driver.as_str().into(),
            pool: result.pool.as_str().into(),
            device: result.device.as_str().into(),
        })
        .collect()
}

/// What is known of devices.
#[derive(Debug, Default, Clone)]
pub struct Devices {
    /// Classes by name.
    pub classes: HashMap<String, Arc<DeviceClass>>,
    /// Rules that taint devices, by name.
    pub rules: HashMap<String, Arc<DeviceTaintRule>>,
    /// Slices by pool.
    pub pools: Pools,
    claims: HashMap<ObjectKey, Arc<ResourceClaim>>,
    /// How many claims hold a device: one, unless somebody else than this scheduler allocates.
    held: HashMap<DeviceId, u32>,
    /// What claims take of devices that they share.
    shares: SharedDevices,
}

impl Devices {
    /// A claim.
    #[must_use]
    pub fn claim(&self, key: &ObjectKey) -> Option<&Arc<ResourceClaim>> {
        self.claims.get(key)
    }

    /// The claim that was made for the extended resources of a pod.
    #[must_use]
    pub fn extended_claim(&self, pod_uid: &str) -> Option<&Arc<ResourceClaim>> {
        let mut claims = self.claims.values();
        claims.find(|claim| {
            is_for_extended_resources(claim)
                && made_for(claim).is_some_and(|(_, uid)| uid == pod_uid)
        })
    }

    /// Does any claim hold the device?
    #[must_use]
    pub fn is_held(&self, id: &DeviceId) -> bool {
        self.held.contains_key(id)
    }

    /// What claims have of a device that several share.
    #[must_use]
    pub fn shares(&self, id: &DeviceId) -> Option<&Shares> {
        self.shares.get(id)
    }

    /// Takes in a claim, or that it is gone. Answers whether devices have become free.
    pub fn set_claim(&mut self, key: &ObjectKey, claim: Option<&Arc<ResourceClaim>>) -> bool {
        let before = match claim {
            Some(claim) => self.claims.insert(key.clone(), Arc::clone(claim)),
            None => self.claims.remove(key),
        };
        let is = claim.and_then(|claim| allocation(claim));
        let was = before.as_ref().and_then(|claim| allocation(claim));
        if is == was {
            return false;
        }
        for id in was.map(taken).unwrap_or_default() {
            if let Some(count) = self.held.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&id);
                }
            }
        }
        for id in is.map(taken).unwrap_or_default() {
            *self.held.entry(id).or_default() += 1;
        }
        if let Some(was) = was {
            self.shares.remove_all(was);
        }
        if let Some(is) = is {
            self.shares.add_all(is);
        }
        was.is_some()
    }

    /// Takes in a slice, or that it is gone.
    pub fn set_slice(&mut self, name: &str, slice: Option<&Arc<ResourceSlice>>) {
        self.pools.set(name, slice);
    }
}
