//! `DynamicResources`: a pod goes where the devices of its claims are, or can be (KEP-4381).
//!
//! Claims that are allocated confine the pod to the nodes of their devices. Others are allocated
//! with the node: devices are set aside when it is chosen, and written into the claims' status, with
//! the reservation for the pod, before the pod is bound. What is set aside stays so until the view
//! of the claims has caught up with what was written: no device is given twice.

mod extended;
mod flights;
mod writing;

use std::borrow::Cow;
use std::sync::Arc;

use evenkeel_api::devices::claims::{
    PodClaimName, RESERVED_MAX, allocation, claim_name, claim_names, is_made_for, is_reserved_for,
    may_be_devices, pod_claims, reserved_for,
};
use evenkeel_api::placement::NodeTerm;
use evenkeel_client::{Client, Clock as _, ObjectKey, Recorder, SharedClock, SystemClock};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::{Timestamp, Unit};
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;

pub(crate) use extended::Delegated;
use extended::{Extended, special_key};
use flights::{Flight, Flights};
pub(crate) use writing::deallocate;

use crate::devices::Devices;
use crate::devices::allocate::allocate;
use crate::devices::binding::{BINDING_TIMEOUT, is_late, is_ready};
use crate::devices::request::{Selectors, Wanted};
use crate::framework::{
    BindError, Binding, ClusterEvent, CycleState, Filter, Plugin, PostFilter, PostFiltered,
    PreBind, PreEnqueue, PreFilter, PreFiltered, Rejection, Reserve,
};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};
use crate::what_if::WhatIf;

/// How what was decided is written and told.
#[derive(Clone)]
struct Door {
    client: Client,
    recorder: Recorder,
    clock: SharedClock,
}

/// Gives each share of a device the name by which its driver knows it.
fn name_shares(allocation: &mut AllocationResult) {
    let devices = allocation.devices.as_mut();
    let results = devices.and_then(|devices| devices.results.as_mut());
    for result in results.into_iter().flatten() {
        if let Some(share) = &mut result.share_id {
            *share = uuid::Uuid::new_v4().to_string();
        }
    }
}

/// The terms of a selector of nodes.
fn terms_of(selector: &NodeSelector) -> Vec<NodeTerm> {
    let terms = selector.node_selector_terms.iter();
    terms.filter_map(NodeTerm::read).collect()
}

/// The plugin. Clones share what is set aside.
#[derive(Clone, Default)]
pub struct DynamicResources {
    door: Option<Door>,
    flights: Arc<Mutex<Flights>>,
    selectors: Arc<Selectors>,
}

impl std::fmt::Debug for DynamicResources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamicResources").finish_non_exhaustive()
    }
}

/// What the pod's claims ask of a node.
#[derive(Debug)]
struct Prepared {
    /// What is known of devices, until the node is chosen.
    devices: Option<Arc<Devices>>,
    claims: Vec<Arc<ResourceClaim>>,
    /// Where the devices of claims that are allocated are reached; empty terms reach nothing.
    reach: Vec<Vec<NodeTerm>>,
    /// Claims whose devices will not be ready: nobody can use them before they are given up.
    failed: Vec<Arc<ResourceClaim>>,
    wanted: Vec<Wanted>,
    /// Its extended resources that are devices.
    extended: Option<Extended>,
}

impl Prepared {
    /// A claim for extended resources that an earlier try has left.
    fn stale(&self) -> Option<&Arc<ResourceClaim>> {
        self.extended.as_ref()?.stale.as_ref()
    }
}

/// May one of the pod's extended resources be devices of a class?
fn asks_for_devices(pod: &PodInfo) -> bool {
    let scalar = &pod.requests.exact.scalar;
    scalar.iter().any(|(name, _)| may_be_devices(name))
}

/// The claims of a pod; or why it has to wait.
fn claims_of(pod: &PodInfo, devices: &Devices) -> Result<Vec<Arc<ResourceClaim>>, String> {
    let mut claims = Vec::new();
    for wanted in pod_claims(&pod.pod) {
        let (name, owned) = match claim_name(&pod.pod, wanted) {
            PodClaimName::Named(name) => (name, false),
            PodClaimName::Generated(name) => (name, true),
            PodClaimName::NotNeeded => continue,
            PodClaimName::NotYet => {
                return Err(format!(
                    "pod \"{}\": ResourceClaim not created yet",
                    pod.key
                ));
            }
        };
        let key = ObjectKey::new(pod.key.namespace.clone(), name);
        let claim = devices
            .claim(&key)
            .ok_or_else(|| format!("resourceclaim.resource.k8s.io \"{name}\" not found"))?;
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("resourceclaim \"{name}\" is being deleted"));
        }
        if owned {
            is_made_for(claim, &pod.pod)?;
        }
        claims.push(Arc::clone(claim));
    }
    Ok(claims)
}

impl DynamicResources {
    /// Decides only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes as the client's identity, which needs get and update on claims and their status.
    #[must_use]
    pub fn writing(client: Client, recorder: Recorder, clock: SharedClock) -> Self {
        let door = Door {
            client,
            recorder,
            clock,
        };
        Self {
            door: Some(door),
            ..Self::new()
        }
    }

    fn now(&self) -> Timestamp {
        let clock = self.door.as_ref().map(|door| door.clock.now());
        clock.unwrap_or_else(|| SystemClock.now())
    }

    fn prepare(&self, pod: &PodInfo, devices: &Arc<Devices>) -> Result<Prepared, String> {
        let claims = claims_of(pod, devices)?;
        let mut prepared = Prepared {
            devices: Some(Arc::clone(devices)),
            claims: Vec::new(),
            reach: Vec::new(),
            failed: Vec::new(),
            wanted: Vec::new(),
            extended: None,
        };
        let mut flights = self.flights.lock();
        flights.land(devices);
        for claim in claims {
            let uid = claim.metadata.uid.as_deref().unwrap_or_default();
            if let Some(allocation) = allocation(&claim) {
                let mine = is_reserved_for(&claim, &pod.uid);
                if !mine && reserved_for(&claim).len() >= RESERVED_MAX {
                    return Err("resourceclaim in use".to_owned());
                }
                if let Some(selector) = &allocation.node_selector {
                    prepared.reach.push(terms_of(selector));
                }
                let late = || is_late(&claim, self.now(), BINDING_TIMEOUT);
                if is_ready(&claim).map_or(true, |ready| !ready && late()) {
                    prepared.failed.push(Arc::clone(&claim));
                }
            } else if let Some(flight) = flights.claims.get(uid) {
                if flight.is_of(&pod.uid, pod.group.as_ref()) {
                    if let Some(selector) = &flight.allocation.node_selector {
                        prepared.reach.push(terms_of(selector));
                    }
                    prepared.claims.push(claim);
                    continue;
                }
                return Err(format!(
                    "resource claim {} is in the process of being allocated",
                    ObjectKey::of(&*claim)
                ));
            } else {
                let wanted = Wanted::read(&claim, &devices.classes, &self.selectors)?;
                prepared.wanted.push(wanted);
            }
            prepared.claims.push(claim);
        }
        prepared.extended = self.extended(pod, devices, &prepared.wanted);
        if prepared.extended.is_some() && flights.special_of(&pod.uid) {
            return Err(format!(
                "resource claim {}/<extended-resources> is in the process of being allocated",
                pod.key.namespace
            ));
        }
        Ok(prepared)
    }

    fn choose(
        &self,
        devices: &Devices,
        wanted: &[Wanted],
        node: &NodeInfo,
    ) -> Result<Vec<AllocationResult>, String> {
        let flights = self.flights.lock();
        let found = allocate(devices, &flights.outstanding, wanted, node)?;
        found.ok_or_else(|| "cannot allocate all claims".to_owned())
    }
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { delta, .. } => {
                delta.added || delta.labels || (delta.allocatable && asks_for_devices(pod))
            }
            ClusterEvent::ResourceClaim { key, freed } => {
                *freed
                    || asks_for_devices(pod)
                    || (key.namespace == pod.key.namespace
                        && claim_names(&pod.pod).any(|name| name == key.name))
            }
            ClusterEvent::Devices => true,
            _ => false,
        }
    }
}

impl PreEnqueue for DynamicResources {
    /// Waits for claims that are made from templates. A claim that a person has to make is missed
    /// aloud instead, by an event.
    fn pre_enqueue(&self, pod: &PodInfo, snapshot: &Snapshot) -> Option<Rejection> {
        pod_claims(&pod.pod).iter().find_map(|wanted| {
            let waits = match claim_name(&pod.pod, wanted) {
                PodClaimName::NotYet => true,
                PodClaimName::Generated(name) => {
                    let key = ObjectKey::new(pod.key.namespace.clone(), name);
                    snapshot.devices.claim(&key).is_none()
                }
                PodClaimName::Named(_) | PodClaimName::NotNeeded => false,
            };
            waits.then(|| {
                Rejection::unresolvable(format!(
                    "pod \"{}\": ResourceClaim not created yet",
                    pod.key
                ))
            })
        })
    }
}

impl PreFilter for DynamicResources {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> PreFiltered {
        if pod_claims(&pod.pod).is_empty() && !asks_for_devices(pod) {
            return PreFiltered::Skip;
        }
        match self.prepare(pod, &snapshot.devices) {
            Ok(prepared) if prepared.claims.is_empty() && prepared.extended.is_none() => {
                PreFiltered::Skip
            }
            Ok(prepared) => {
                if let Some(extended) = &prepared.extended {
                    state.put(extended.delegated());
                }
                state.put(prepared);
                PreFiltered::All
            }
            Err(why) => PreFiltered::Reject(Rejection::unresolvable(why)),
        }
    }
}

impl Filter for DynamicResources {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        let prepared = state.get::<Prepared>()?;
        if prepared.stale().is_some() {
            let text = "cannot schedule extended resource claim";
            return Some(Rejection::unresolvable(text));
        }
        let reached = |terms: &Vec<NodeTerm>| terms.iter().any(|term| term.matches(node));
        if !prepared.failed.is_empty() || !prepared.reach.iter().all(reached) {
            let text = "resourceclaim not available on the node";
            return Some(Rejection::unresolvable(text));
        }
        let devices = prepared.devices.as_ref()?;
        let special = match self.special_on(prepared, devices, pod, node) {
            Ok(special) => special,
            Err(why) => return Some(Rejection::unresolvable(why)),
        };
        let wanted = special
            .as_ref()
            .map_or(&prepared.wanted, |special| &special.together);
        if wanted.is_empty() {
            return None;
        }
        let found = self.choose(devices, wanted, node);
        found.err().map(Rejection::unresolvable)
    }
}

impl PostFilter for DynamicResources {
    fn post_filter(&self, what_if: &mut WhatIf<'_>, _: &[NodeIndex], _: u64) -> PostFiltered {
        let rejected = |reason: &str| PostFiltered::Rejected {
            reason: reason.to_owned(),
            clear_nomination: false,
        };
        let Some(prepared) = what_if.state.get::<Prepared>() else {
            // The reference says so of every pod without claims; tools that read the event's text
            // know it.
            return rejected("no new claims to deallocate");
        };
        let nodes = what_if.snapshot.order();
        let confines = |claim: &ResourceClaim| {
            let selector = allocation(claim).and_then(|found| found.node_selector.as_ref());
            selector.is_some_and(|selector| {
                let terms = selector.node_selector_terms.iter();
                let terms: Vec<NodeTerm> = terms.filter_map(NodeTerm::read).collect();
                let mut nodes = nodes.iter().map(|at| what_if.snapshot.node(*at));
                nodes.any(|node| !terms.iter().any(|term| term.matches(node)))
            })
        };
        let ours = |claim: &ResourceClaim| {
            let mut users = reserved_for(claim).iter();
            users.all(|user| *user.uid == *what_if.pod.uid)
        };
        let mut claims = prepared.claims.iter();
        let failed =
            |claim: &Arc<ResourceClaim>| prepared.failed.iter().any(|one| Arc::ptr_eq(one, claim));
        match claims.find(|claim| (failed(claim) || confines(claim)) && ours(claim)) {
            Some(claim) => PostFiltered::Deallocate(Arc::clone(claim)),
            None => match prepared.stale() {
                Some(stale) => PostFiltered::Deallocate(Arc::clone(stale)),
                None => rejected("still not schedulable"),
            },
        }
    }
}

impl Reserve for DynamicResources {
    fn reserve(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Rejection> {
        let Some(prepared) = state.get_mut::<Prepared>() else {
            return Ok(());
        };
        // The binding goes on beside later cycles, which change what is known.
        let Some(devices) = prepared.devices.take() else {
            return Ok(());
        };
        let special = self
            .special_on(prepared, &devices, pod, node)
            .map_err(Rejection::unresolvable)?
            .map(Cow::into_owned);
        let wanted = special
            .as_ref()
            .map_or(&prepared.wanted, |special| &special.together);
        if wanted.is_empty() {
            return Ok(());
        }
        let found = self
            .choose(&devices, wanted, node)
            .map_err(Rejection::unresolvable)?;
        let mut flights = self.flights.lock();
        let now = self.now().round(Unit::Second).unwrap_or_default();
        let own = prepared.wanted.len();
        for (at, (wanted, mut allocation)) in wanted.iter().zip(found).enumerate() {
            let special = special.clone().filter(|_| at >= own);
            name_shares(&mut allocation);
            allocation.allocation_timestamp = Some(Time(now));
            let flight = Flight {
                key: ObjectKey::of(&*wanted.claim),
                pod: Arc::clone(&pod.uid),
                group: pod.group.clone(),
                allocation,
                written: None,
                special,
            };
            let uid = match &flight.special {
                Some(_) => special_key(&pod.uid),
                None => wanted.claim.metadata.uid.clone().unwrap_or_default(),
            };
            flights.add(uid, flight);
        }
        Ok(())
    }

    fn unreserve(&self, _state: &mut CycleState, pod: &PodInfo, _node: &str) {
        // What was written stays until the view has it; its reservation too, since the pod is
        // tried again, and is released with the pod.
        self.flights
            .lock()
            .keep(|_, flight| flight.pod != pod.uid || flight.written.is_some());
    }
}

impl PreBind for DynamicResources {
    fn pre_bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Result<(), BindError>> {
        self.carry_out(binding).boxed()
    }
}
