//! `DynamicResources`: a pod goes where the devices of its claims are, or can be (KEP-4381).
//!
//! Claims that are allocated confine the pod to the nodes of their devices. Others are allocated
//! with the node: devices are set aside when it is chosen, and written into the claims' status, with
//! the reservation for the pod, before the pod is bound. What is set aside stays so until the view
//! of the claims has caught up with what was written: no device is given twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::devices::claims::{
    FINALIZER, PodClaimName, RESERVED_MAX, allocation, claim_name, claim_names, consumer,
    is_made_for, is_reserved_for, pod_claims, reserved_for,
};
use evenkeel_api::placement::NodeTerm;
use evenkeel_client::{Api, Backoff, Client, ObjectKey, errors};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{NodeSelector, Pod};
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use kube::api::PostParams;
use parking_lot::Mutex;

use crate::devices::allocate::allocate;
use crate::devices::request::{Selectors, Wanted};
use crate::devices::{DeviceId, Devices, taken};
use crate::framework::{
    BindError, Binding, ClusterEvent, CycleState, Filter, Plugin, PostFilter, PostFiltered,
    PreBind, PreEnqueue, PreFilter, PreFiltered, Rejection, Reserve,
};
use crate::groups::group_of;
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};
use crate::what_if::WhatIf;

/// Tries against concurrent writers.
const TRIES: usize = 5;

/// An allocation that is set aside.
#[derive(Debug)]
struct Flight {
    key: ObjectKey,
    pod: Arc<str>,
    /// The pod's group: its pods are placed in one cycle, and may share a claim that nobody has
    /// written yet.
    group: Option<ObjectKey>,
    allocation: AllocationResult,
    /// The revision of the claim that has it.
    written: Option<u64>,
}

impl Flight {
    /// Is it set aside for the pod, or for another one of its group that goes with it?
    fn is_of(&self, pod: &str, group: Option<&ObjectKey>) -> bool {
        *self.pod == *pod || (group.is_some() && self.group.as_ref() == group)
    }
}

/// The terms of a selector of nodes.
fn terms_of(selector: &NodeSelector) -> Vec<NodeTerm> {
    let terms = selector.node_selector_terms.iter();
    terms.filter_map(NodeTerm::read).collect()
}

/// What is set aside and not yet seen in the claims.
#[derive(Debug, Default)]
struct Flights {
    /// By the claim's uid.
    claims: HashMap<String, Flight>,
    devices: HashSet<DeviceId>,
}

impl Flights {
    fn add(&mut self, uid: String, flight: Flight) {
        self.devices.extend(taken(&flight.allocation));
        self.claims.insert(uid, flight);
    }

    fn keep(&mut self, keep: impl Fn(&str, &Flight) -> bool) {
        let mut gone = Vec::new();
        self.claims.retain(|uid, flight| {
            let stays = keep(uid, flight);
            if !stays {
                gone.extend(taken(&flight.allocation));
            }
            stays
        });
        for id in gone {
            self.devices.remove(&id);
        }
    }

    /// Forgets what the view has caught up with: a claim at least as new as what was written says
    /// itself what it holds, and one that is gone holds nothing.
    fn land(&mut self, devices: &Devices) {
        self.keep(|uid, flight| {
            let Some(written) = flight.written else {
                return true;
            };
            devices.claim(&flight.key).is_some_and(|claim| {
                claim.metadata.uid.as_deref() == Some(uid) && revision(claim) < written
            })
        });
    }
}

fn revision(claim: &ResourceClaim) -> u64 {
    let text = claim.metadata.resource_version.as_deref();
    text.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

/// The plugin. Clones share what is set aside.
#[derive(Clone)]
pub struct DynamicResources {
    client: Option<Client>,
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
    wanted: Vec<Wanted>,
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
    /// Writes as the client's identity, which needs get and update on claims and their status.
    /// Without one it only decides.
    #[must_use]
    pub fn new(client: Option<Client>) -> Self {
        Self {
            client,
            flights: Arc::default(),
            selectors: Arc::default(),
        }
    }

    fn prepare(&self, pod: &PodInfo, devices: &Arc<Devices>) -> Result<Prepared, String> {
        let claims = claims_of(pod, devices)?;
        let mut prepared = Prepared {
            devices: Some(Arc::clone(devices)),
            claims: Vec::new(),
            reach: Vec::new(),
            wanted: Vec::new(),
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
        Ok(prepared)
    }

    fn choose(
        &self,
        devices: &Devices,
        wanted: &[Wanted],
        node: &NodeInfo,
    ) -> Result<Vec<AllocationResult>, String> {
        let flights = self.flights.lock();
        let in_use = |id: &DeviceId| flights.devices.contains(id);
        let found = allocate(devices, &in_use, wanted, node)?;
        found.ok_or_else(|| "cannot allocate all claims".to_owned())
    }

    async fn carry_out(&self, binding: &Binding) -> Result<(), BindError> {
        let Some(client) = &self.client else {
            return Ok(());
        };
        let pod = &binding.pod;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let claims: Api<ResourceClaim> = Api::namespaced(client.clone(), namespace);
        for name in claim_names(pod) {
            self.bind_claim(&claims, name, pod).await?;
        }
        Ok(())
    }

    /// Writes what is set aside for a claim, and the reservation. Says nothing before it is known
    /// whether that was written.
    async fn bind_claim(
        &self,
        claims: &Api<ResourceClaim>,
        name: &str,
        pod: &Pod,
    ) -> Result<(), BindError> {
        let mut wait = Backoff::new(Duration::from_millis(50), Duration::from_secs(5), 0);
        let mut conflicts = 0;
        loop {
            let error = match self.try_bind(claims, name, pod).await {
                Ok(()) => return Ok(()),
                Err(BindError::Door(error)) => error,
                Err(refused) => return Err(refused),
            };
            if errors::is_conflict(&error) {
                conflicts += 1;
                if conflicts >= TRIES {
                    return Err(error.into());
                }
                continue;
            }
            match &error {
                kube::Error::Api(status) if status.code < 500 && status.code != 429 => {
                    return Err(error.into());
                }
                _ => {
                    let error = errors::message(&error);
                    tracing::debug!(claim = name, error, "is the claim allocated?");
                    tokio::time::sleep(wait.next_wait()).await;
                }
            }
        }
    }

    async fn try_bind(
        &self,
        claims: &Api<ResourceClaim>,
        name: &str,
        pod: &Pod,
    ) -> Result<(), BindError> {
        let refused = |text: String| Err(BindError::Refused(text));
        let pod_uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mut claim = claims.get(name).await?;
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let group = group_of(pod);
        let ours = {
            let flights = self.flights.lock();
            let flight = flights.claims.get(&uid);
            flight
                .filter(|flight| flight.is_of(pod_uid, group.as_ref()))
                .map(|flight| flight.allocation.clone())
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return refused(format!("claim {name} got deleted in the meantime"));
        }
        let params = PostParams::default();
        match (allocation(&claim), &ours) {
            (Some(found), Some(ours)) if found != ours => {
                return refused(format!(
                    "claim {name} got allocated elsewhere in the meantime"
                ));
            }
            (None, None) => {
                return refused(format!(
                    "claim {name} got deallocated elsewhere in the meantime"
                ));
            }
            (None, Some(_)) => {
                let finalizers = claim.metadata.finalizers.get_or_insert_default();
                if !finalizers.iter().any(|known| known == FINALIZER) {
                    finalizers.push(FINALIZER.to_owned());
                    claim = claims.replace(name, &params, &claim).await?;
                }
            }
            (Some(_), _) => {}
        }
        if allocation(&claim).is_none() || !is_reserved_for(&claim, pod_uid) {
            let status = claim.status.get_or_insert_default();
            if let Some(ours) = ours {
                status.allocation = Some(ours);
            }
            let consumers = status.reserved_for.get_or_insert_default();
            if consumers.len() >= RESERVED_MAX {
                return refused(format!("claim {name} is already reserved"));
            }
            if !consumers.iter().any(|consumer| consumer.uid == pod_uid) {
                consumers.push(consumer(pod));
            }
            claim = claims.replace_status(name, &params, &claim).await?;
        }
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.claims.get_mut(&uid) {
            flight.written = Some(revision(&claim));
        }
        Ok(())
    }
}

/// Takes an allocation back that keeps its only user from every node.
pub(crate) async fn deallocate(client: Client, claim: Arc<ResourceClaim>) {
    let key = ObjectKey::of(&*claim);
    let claims: Api<ResourceClaim> = Api::namespaced(client, &key.namespace);
    // At the revision at which nobody else used it.
    let mut claim = (*claim).clone();
    if let Some(status) = &mut claim.status {
        status.allocation = None;
        status.reserved_for = None;
    }
    let params = PostParams::default();
    if let Err(error) = claims.replace_status(&key.name, &params, &claim).await {
        let error = errors::message(&error);
        tracing::debug!(claim = %key, error, "not deallocated");
    }
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { delta, .. } => delta.added || delta.labels,
            ClusterEvent::ResourceClaim { key, freed } => {
                *freed
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
        if pod_claims(&pod.pod).is_empty() {
            return PreFiltered::Skip;
        }
        match self.prepare(pod, &snapshot.devices) {
            Ok(prepared) if prepared.claims.is_empty() => PreFiltered::Skip,
            Ok(prepared) => {
                state.put(prepared);
                PreFiltered::All
            }
            Err(why) => PreFiltered::Reject(Rejection::unresolvable(why)),
        }
    }
}

impl Filter for DynamicResources {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        let prepared = state.get::<Prepared>()?;
        let reached = |terms: &Vec<NodeTerm>| terms.iter().any(|term| term.matches(node));
        if !prepared.reach.iter().all(reached) {
            let text = "resourceclaim not available on the node";
            return Some(Rejection::unresolvable(text));
        }
        if prepared.wanted.is_empty() {
            return None;
        }
        let devices = prepared.devices.as_ref()?;
        let found = self.choose(devices, &prepared.wanted, node);
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
        match claims.find(|claim| confines(claim) && ours(claim)) {
            Some(claim) => PostFiltered::Deallocate(Arc::clone(claim)),
            None => rejected("still not schedulable"),
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
        if prepared.wanted.is_empty() {
            return Ok(());
        }
        let found = self
            .choose(&devices, &prepared.wanted, node)
            .map_err(Rejection::unresolvable)?;
        let mut flights = self.flights.lock();
        for (wanted, allocation) in prepared.wanted.iter().zip(found) {
            let flight = Flight {
                key: ObjectKey::of(&*wanted.claim),
                pod: Arc::clone(&pod.uid),
                group: pod.group.clone(),
                allocation,
                written: None,
            };
            let uid = wanted.claim.metadata.uid.clone().unwrap_or_default();
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
