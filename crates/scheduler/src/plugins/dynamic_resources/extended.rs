//! Extended resources that are devices of a class: on a node that does not have the resource itself,
//! the pod gets a claim of its own for it, which is made before the pod is bound.
//!
//! A claim that an earlier try has left is taken away first, as in the reference: it may not fit any
//! more, and as long as it is there its devices are not free.

use std::borrow::Cow;
use std::sync::Arc;

use evenkeel_api::devices::claims::FINALIZER;
use evenkeel_client::{Api, errors};
use k8s_openapi::api::core::v1::{Pod, PodExtendedResourceClaimStatus};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{Door, DynamicResources, Prepared};
use crate::devices::Devices;
use crate::devices::extended::{Backed, Mappings, backed, claim, requests};
use crate::devices::request::Wanted;
use crate::framework::{BindError, CycleState};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

/// Tries against concurrent writers.
const TRIES: usize = 5;

/// A claim for extended resources of a pod that is yet to be made.
#[derive(Debug, Clone)]
pub(super) struct Special {
    pub(super) claim: Arc<ResourceClaim>,
    pub(super) mappings: Mappings,
    /// What the pod's other claims want, and this one.
    pub(super) together: Vec<Wanted>,
}

/// The extended resources of a pod that are devices of a class.
#[derive(Debug)]
pub(super) struct Extended {
    backed: Vec<Backed>,
    /// What an earlier try has left.
    pub(super) stale: Option<Arc<ResourceClaim>>,
    /// The claim for all of them.
    all: Result<Special, String>,
}

/// Which resources of a pod devices stand behind, where a node does not have them itself.
#[derive(Debug)]
pub(crate) struct Delegated(Vec<Backed>);

impl Delegated {
    /// Is the resource found by somebody else than who counts what nodes have?
    pub(crate) fn has(state: &CycleState, resource: &str) -> bool {
        let delegated = state.get::<Self>();
        delegated.is_some_and(|it| it.0.iter().any(|backed| backed.resource == resource))
    }
}

impl Extended {
    /// What is told to those who count what nodes have.
    pub(super) fn delegated(&self) -> Delegated {
        Delegated(self.backed.clone())
    }
}

/// Under which a claim that has yet to be made is set aside.
pub(super) fn special_key(pod_uid: &str) -> String {
    format!("extended/{pod_uid}")
}

impl DynamicResources {
    /// What is to be known of a pod's extended resources; `None` when no devices are behind them.
    pub(super) fn extended(
        &self,
        pod: &PodInfo,
        devices: &Devices,
        others: &[Wanted],
    ) -> Option<Extended> {
        let backed = backed(&pod.requests.exact, devices);
        if backed.is_empty() {
            return None;
        }
        let all: Vec<&Backed> = backed.iter().collect();
        Some(Extended {
            stale: devices.extended_claim(&pod.uid).map(Arc::clone),
            all: self.special(pod, devices, others, &all),
            backed,
        })
    }

    fn special(
        &self,
        pod: &PodInfo,
        devices: &Devices,
        others: &[Wanted],
        backed: &[&Backed],
    ) -> Result<Special, String> {
        let (requests, mappings) = requests(&pod.pod, backed);
        let claim = Arc::new(claim(&pod.pod, requests));
        let mut together = others.to_vec();
        together.push(Wanted::read(&claim, &devices.classes, &self.selectors)?);
        Ok(Special {
            claim,
            mappings,
            together,
        })
    }

    /// The claim that the pod needs on a node, for what the node does not have itself.
    pub(super) fn special_on<'p>(
        &self,
        prepared: &'p Prepared,
        devices: &Devices,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<Option<Cow<'p, Special>>, String> {
        let Some(extended) = &prepared.extended else {
            return Ok(None);
        };
        let missing = |backed: &&Backed| node.allocatable.scalar(&backed.resource) == 0;
        let missing: Vec<&Backed> = extended.backed.iter().filter(missing).collect();
        if missing.is_empty() {
            return Ok(None);
        }
        if missing.len() == extended.backed.len() {
            let all = extended.all.as_ref().map_err(Clone::clone)?;
            return Ok(Some(Cow::Borrowed(all)));
        }
        let some = self.special(pod, devices, &prepared.wanted, &missing)?;
        Ok(Some(Cow::Owned(some)))
    }

    /// Makes the claim for a pod's extended resources, allocates it, and says so in the pod.
    pub(super) async fn bind_special(
        &self,
        door: &Door,
        claims: &Api<ResourceClaim>,
        pod: &Pod,
    ) -> Result<Option<ResourceClaim>, BindError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let key = special_key(uid);
        let special = {
            let flights = self.flights.lock();
            let flight = flights.claims.get(&key);
            flight.and_then(|flight| flight.special.clone())
        };
        let Some(special) = special else {
            return Ok(None);
        };
        let made = claims.create(&PostParams::default(), &special.claim).await;
        let made = made.map_err(|error| {
            let error = errors::message(&error);
            BindError::Refused(format!("create claim for extended resources: {error}"))
        })?;
        self.flights.lock().made(&key, &made);
        let done = self
            .allocate_special(door, claims, pod, &made, special.mappings)
            .await;
        if done.is_err() {
            let name = made.metadata.name.as_deref().unwrap_or_default();
            discard(claims, name).await;
            let own = made.metadata.uid.as_deref();
            self.flights.lock().keep(|uid, _| Some(uid) != own);
        }
        done.map(Some)
    }

    async fn allocate_special(
        &self,
        door: &Door,
        claims: &Api<ResourceClaim>,
        pod: &Pod,
        made: &ResourceClaim,
        mappings: Mappings,
    ) -> Result<ResourceClaim, BindError> {
        let name = made.metadata.name.as_deref().unwrap_or_default();
        let bound = self.bind_claim(claims, name, pod).await?;
        let status = PodExtendedResourceClaimStatus {
            request_mappings: mappings,
            resource_claim_name: name.to_owned(),
        };
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"extendedResourceClaimStatus": status},
        });
        let meta = &pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let own = meta.name.as_deref().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(door.client.clone(), namespace);
        let params = PatchParams::default();
        let written = pods.patch_status(own, &params, &Patch::Merge(&patch)).await;
        written.map_err(|error| {
            let error = errors::message(&error);
            BindError::Refused(format!(
                "update pod {namespace}/{own} ExtendedResourceClaimStatus: {error}"
            ))
        })?;
        Ok(bound)
    }
}

/// Takes a claim for extended resources away.
pub(super) async fn discard(claims: &Api<ResourceClaim>, name: &str) {
    if let Err(error) = try_discard(claims, name).await
        && !errors::is_not_found(&error)
    {
        let error = errors::message(&error);
        tracing::debug!(claim = name, error, "not deleted");
    }
}

async fn try_discard(claims: &Api<ResourceClaim>, name: &str) -> Result<(), kube::Error> {
    for _ in 0..TRIES {
        // It may have got its finalizer since it was seen here.
        let mut claim = claims.get(name).await?;
        let finalizers = claim.metadata.finalizers.get_or_insert_default();
        let before = finalizers.len();
        finalizers.retain(|one| one != FINALIZER);
        if finalizers.len() < before {
            match claims.replace(name, &PostParams::default(), &claim).await {
                Err(error) if errors::is_conflict(&error) => continue,
                written => written?,
            };
        }
        claims.delete(name, &DeleteParams::default()).await?;
        return Ok(());
    }
    Ok(())
}
