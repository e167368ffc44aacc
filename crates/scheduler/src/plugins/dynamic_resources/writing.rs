//! What is written before a pod is bound: allocations and reservations, and the wait for devices that
//! are bound under conditions.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::devices::claims::{
    FINALIZER, RESERVED_MAX, allocation, consumer, is_for_extended_resources, is_reserved_for,
    listed_claim_names,
};
use evenkeel_client::{Api, Backoff, Client, EventType, ObjectKey, errors};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;

use super::extended::discard;
use super::flights::revision;
use super::{Door, DynamicResources};
use crate::devices::binding::{BINDING_TIMEOUT, is_conditional, is_late, is_ready};
use crate::framework::{BindError, Binding};
use crate::groups::group_of;

/// Tries against concurrent writers.
const TRIES: usize = 5;
/// Longest time between two looks at a claim whose driver makes its devices ready.
const LOOK: Duration = Duration::from_secs(5);

/// Waits until all devices of the claims are ready.
async fn ready(
    door: &Door,
    pod: &Pod,
    claims: &Api<ResourceClaim>,
    names: &[String],
) -> Result<(), BindError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(door.client.clone(), namespace);
    let own = pod.metadata.name.as_deref().unwrap_or_default();
    let mut wait = Backoff::new(Duration::from_millis(100), LOOK, 0);
    'look: loop {
        for name in names {
            let claim = match claims.get(name).await {
                Ok(claim) => claim,
                Err(error) if errors::is_not_found(&error) => return Err(error.into()),
                Err(error) => {
                    let error = errors::message(&error);
                    tracing::debug!(claim = name, error, "is the claim ready?");
                    tokio::time::sleep(wait.next_wait()).await;
                    continue 'look;
                }
            };
            if is_ready(&claim).map_err(BindError::Refused)? {
                continue;
            }
            if allocation(&claim).is_none() {
                let text = format!("claim {name} got deallocated elsewhere in the meantime");
                return Err(BindError::Refused(text));
            }
            if is_late(&claim, door.clock.now(), BINDING_TIMEOUT) {
                return Err(BindError::Refused(format!("claim {name} binding timeout")));
            }
            // Nobody needs them any more.
            let latest = pods.get_opt(own).await;
            let is_it =
                |it: &ObjectMeta| it.uid == pod.metadata.uid && it.deletion_timestamp.is_none();
            if latest.is_ok_and(|it| !it.is_some_and(|it| is_it(&it.metadata))) {
                return Err(BindError::Refused(format!("pod {own} is gone")));
            }
            tokio::time::sleep(wait.next_wait()).await;
            continue 'look;
        }
        return Ok(());
    }
}

impl DynamicResources {
    pub(super) async fn carry_out(&self, binding: &Binding) -> Result<(), BindError> {
        let Some(door) = &self.door else {
            return Ok(());
        };
        let pod = &binding.pod;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let claims: Api<ResourceClaim> = Api::namespaced(door.client.clone(), namespace);
        let mut bound = Vec::new();
        for name in listed_claim_names(pod) {
            bound.push(self.bind_claim(&claims, name, pod).await?);
        }
        bound.extend(self.bind_special(door, &claims, pod).await?);
        if !bound.iter().any(is_conditional) {
            return Ok(());
        }
        door.recorder.tell(
            &**pod,
            EventType::Normal,
            "BindingConditionsPending",
            format!(
                "waiting for binding conditions for device on node {}",
                binding.node
            ),
        );
        let names: Vec<String> = bound
            .into_iter()
            .filter_map(|it| it.metadata.name)
            .collect();
        let wait = ready(door, pod, &claims, &names);
        match tokio::time::timeout(BINDING_TIMEOUT, wait).await {
            Ok(done) => done,
            Err(_) => Err(BindError::Refused("device binding timeout".to_owned())),
        }
    }

    /// Writes what is set aside for a claim, and the reservation. Says nothing before it is known
    /// whether that was written.
    pub(super) async fn bind_claim(
        &self,
        claims: &Api<ResourceClaim>,
        name: &str,
        pod: &Pod,
    ) -> Result<ResourceClaim, BindError> {
        let mut wait = Backoff::new(Duration::from_millis(50), Duration::from_secs(5), 0);
        let mut conflicts = 0;
        loop {
            let error = match self.try_bind(claims, name, pod).await {
                Ok(claim) => return Ok(claim),
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
    ) -> Result<ResourceClaim, BindError> {
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
        Ok(claim)
    }
}

/// Takes an allocation back that keeps its only user from every node.
pub(crate) async fn deallocate(client: Client, claim: Arc<ResourceClaim>) {
    let key = ObjectKey::of(&*claim);
    let claims: Api<ResourceClaim> = Api::namespaced(client, &key.namespace);
    if is_for_extended_resources(&claim) {
        discard(&claims, &key.name).await;
        return;
    }
    // At the revision at which nobody else used it.
    let mut claim = (*claim).clone();
    if let Some(status) = &mut claim.status {
        status.allocation = None;
        status.reserved_for = None;
        status.devices = None;
    }
    let params = PostParams::default();
    if let Err(error) = claims.replace_status(&key.name, &params, &claim).await {
        let error = errors::message(&error);
        tracing::debug!(claim = %key, error, "not deallocated");
    }
}
