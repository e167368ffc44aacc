//! `VolumeBinding` and `VolumeRestrictions`: a pod goes where its volumes are, or can be.
//!
//! Claims that are bound confine the pod to nodes that reach their volumes. Claims whose class
//! waits for the first consumer are served with the node: by a free volume, or by one that is made
//! there. That is set aside when the node is chosen and written before the pod is bound; the
//! binding waits, beside the cycles, until the claims are bound.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::{Api, Client, ObjectKey};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::framework::{
    Adjustment, BindError, Binding, ClusterEvent, CycleState, Filter, Plugin, PostBind, PreBind,
    PreFilter, PreFiltered, Rejection, Reserve,
};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::storage::{
    PodClaim, SELECTED_NODE, Storage, bound_volume, provisions, reaches, selected_node,
};

/// The longest wait for volumes, as the reference's `bindTimeoutSeconds`.
const PATIENCE: Duration = Duration::from_secs(600);
const NO_VOLUMES: &str = "node(s) didn't find available persistent volumes to bind";
/// How often claims are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(250);

/// How a claim is to be served.
#[derive(Debug, Clone)]
enum Choice {
    /// By this volume.
    Volume(Arc<PersistentVolumeClaim>, Arc<PersistentVolume>),
    /// By one that is made.
    Provision(Arc<PersistentVolumeClaim>),
}

/// What is set aside and not yet written.
#[derive(Debug, Default)]
struct Assumed {
    /// By the pod's uid.
    pods: HashMap<Arc<str>, Vec<Choice>>,
    /// Claims whose node is chosen.
    claims: HashMap<ObjectKey, Arc<str>>,
    /// Volumes that are chosen for a claim.
    volumes: HashMap<String, ObjectKey>,
}

/// The plugin. Clones share what is set aside.
#[derive(Clone)]
pub struct VolumeBinding {
    client: Option<Client>,
    assumed: Arc<Mutex<Assumed>>,
}

/// A claim that is served when the node is chosen.
#[derive(Debug)]
struct Delayed {
    claim: Arc<PersistentVolumeClaim>,
    /// Free volumes that could serve it, in the order of preference.
    candidates: Vec<Arc<PersistentVolume>>,
    class: Option<Arc<StorageClass>>,
    /// Where there is room for a new one; `None` where nobody counts.
    room: Option<Vec<LabelSelector>>,
}

/// What the pod's claims ask of a node.
#[derive(Debug)]
struct Wanted {
    /// `None` for a volume that does not exist.
    bound: Vec<Option<Arc<PersistentVolume>>>,
    delayed: Vec<Delayed>,
}

impl std::fmt::Debug for VolumeBinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeBinding").finish_non_exhaustive()
    }
}

/// Reads a pod's claims; or why no node can take the pod.
fn read(pod: &PodInfo, storage: &Storage) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        bound: Vec::new(),
        delayed: Vec::new(),
    };
    let mut immediate = false;
    for PodClaim { name, ephemeral } in &pod.claims {
        let key = ObjectKey::new(pod.key.namespace.clone(), name.clone());
        let claim = match storage.claims.get(&key) {
            Some(claim) => claim,
            None if *ephemeral => {
                return Err(format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \
                     \"{name}\""
                ));
            }
            None => return Err(format!("persistentvolumeclaim \"{name}\" not found")),
        };
        let status = claim.status.as_ref();
        if status.and_then(|status| status.phase.as_deref()) == Some("Lost") {
            let spec = claim.spec.as_ref();
            let volume = spec.and_then(|spec| spec.volume_name.as_deref());
            return Err(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{}\"",
                volume.unwrap_or_default()
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let owners = claim.metadata.owner_references.iter().flatten();
        let mut owners = owners.filter(|owner| owner.controller == Some(true));
        if *ephemeral && !owners.any(|owner| *owner.uid == *pod.uid) {
            return Err(format!(
                "PVC {key} was not created for pod {} (pod is not owner)",
                pod.key
            ));
        }
        let prebound = claim.spec.as_ref().is_some_and(|spec| {
            let volume = spec.volume_name.as_deref();
            volume.is_some_and(|name| !name.is_empty())
        });
        if let Some(volume) = bound_volume(claim) {
            wanted.bound.push(storage.volumes.get(volume).cloned());
        } else if !prebound && storage.waits_for_consumer(claim) {
            wanted.delayed.push(Delayed {
                claim: Arc::clone(claim),
                candidates: storage.candidates(claim),
                class: storage.class(claim).cloned(),
                room: storage.room(claim),
            });
        } else {
            immediate = true;
        }
    }
    if immediate {
        return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
    }
    Ok(wanted)
}

impl VolumeBinding {
    /// Writes as the client's identity, which needs get, patch and update on claims and volumes.
    /// Without one it only decides.
    #[must_use]
    pub fn new(client: Option<Client>) -> Self {
        Self {
            client,
            assumed: Arc::default(),
        }
    }

    /// How the claims would be served on the node.
    ///
    /// # Errors
    /// Why one could not.
    fn choose(&self, wanted: &Wanted, node: &NodeInfo) -> Result<Vec<Choice>, &'static str> {
        let assumed = self.assumed.lock();
        let mut choices: Vec<Choice> = Vec::new();
        for delayed in &wanted.delayed {
            let claim = &delayed.claim;
            let key = ObjectKey::of(&**claim);
            let elsewhere = assumed.claims.get(&key).map(|node| &**node);
            // Its node is chosen already, by another pod that uses it or in an earlier try.
            if let Some(selected) = elsewhere.or(selected_node(claim)) {
                if *selected != *node.name {
                    return Err(NO_VOLUMES);
                }
                choices.push(Choice::Provision(Arc::clone(claim)));
                continue;
            }
            let volume = delayed.candidates.iter().find(|volume| {
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                let here = choices.iter().any(
                    |choice| matches!(choice, Choice::Volume(_, other) if Arc::ptr_eq(other, volume)),
                );
                let other = assumed.volumes.get(name).is_some_and(|by| *by != key);
                !here && !other && reaches(volume, node)
            });
            let class = delayed.class.as_deref();
            if let Some(volume) = volume {
                choices.push(Choice::Volume(Arc::clone(claim), Arc::clone(volume)));
            } else if class.is_some_and(|class| provisions(class, node)) {
                let has_room =
                    |selector: &LabelSelector| selector.matches_with(|key| node.label(key));
                let room = delayed.room.as_ref();
                if !room.is_none_or(|places| places.iter().any(has_room)) {
                    return Err("node(s) did not have enough free storage");
                }
                choices.push(Choice::Provision(Arc::clone(claim)));
            } else {
                return Err(NO_VOLUMES);
            }
        }
        Ok(choices)
    }

    fn forget(&self, uid: &str) {
        let mut assumed = self.assumed.lock();
        for choice in assumed.pods.remove(uid).unwrap_or_default() {
            match choice {
                Choice::Volume(claim, volume) => {
                    assumed.claims.remove(&ObjectKey::of(&*claim));
                    assumed
                        .volumes
                        .remove(volume.metadata.name.as_deref().unwrap_or_default());
                }
                Choice::Provision(claim) => {
                    assumed.claims.remove(&ObjectKey::of(&*claim));
                }
            }
        }
    }

    async fn write(&self, client: &Client, choice: &Choice, node: &str) -> Result<(), kube::Error> {
        match choice {
            Choice::Volume(claim, volume) => {
                let volumes: Api<PersistentVolume> = Api::all(client.clone());
                let meta = &volume.metadata;
                let of = &claim.metadata;
                let patch = json!({
                    // At the revision it was chosen at: somebody else may have taken it.
                    "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version,
                        "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}},
                    "spec": {"claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                        "namespace": of.namespace, "name": of.name, "uid": of.uid,
                        "resourceVersion": of.resource_version}},
                });
                let name = meta.name.as_deref().unwrap_or_default();
                let params = PatchParams::default();
                volumes.patch(name, &params, &Patch::Merge(&patch)).await?;
            }
            Choice::Provision(claim) => {
                if selected_node(claim) == Some(node) {
                    return Ok(());
                }
                let meta = &claim.metadata;
                let claims: Api<PersistentVolumeClaim> = Api::namespaced(
                    client.clone(),
                    meta.namespace.as_deref().unwrap_or_default(),
                );
                let patch = json!({
                    "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version,
                        "annotations": {SELECTED_NODE: node}},
                });
                let name = meta.name.as_deref().unwrap_or_default();
                let params = PatchParams::default();
                claims.patch(name, &params, &Patch::Merge(&patch)).await?;
            }
        }
        Ok(())
    }

    async fn wait(&self, client: &Client, choice: &Choice, node: &str) -> Result<(), BindError> {
        let (Choice::Volume(claim, _) | Choice::Provision(claim)) = choice;
        let provisioned = matches!(choice, Choice::Provision(_));
        let meta = &claim.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(
            client.clone(),
            meta.namespace.as_deref().unwrap_or_default(),
        );
        loop {
            let latest = claims.get(name).await?;
            if bound_volume(&latest).is_some() {
                return Ok(());
            }
            if latest.metadata.uid != meta.uid || latest.metadata.deletion_timestamp.is_some() {
                return Err(BindError::Refused(format!(
                    "persistentvolumeclaim \"{name}\" is being deleted"
                )));
            }
            // The provisioner takes it back, or names the node where the data is, when it cannot
            // make a volume there.
            if provisioned && selected_node(&latest) != Some(node) {
                return Err(BindError::Refused(format!(
                    "provisioning failed for PVC \"{name}\""
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn carry_out(&self, binding: &Binding) -> Result<(), BindError> {
        let uid = binding.pod.metadata.uid.as_deref().unwrap_or_default();
        let choices = self.assumed.lock().pods.get(uid).cloned();
        let (Some(choices), Some(client)) = (choices, &self.client) else {
            return Ok(());
        };
        for choice in &choices {
            self.write(client, choice, &binding.node).await?;
        }
        let waiting = async {
            for choice in &choices {
                self.wait(client, choice, &binding.node).await?;
            }
            Ok::<(), BindError>(())
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| {
            Err(BindError::Refused(
                "binding volumes: context deadline exceeded".to_owned(),
            ))
        })
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { delta, .. } => delta.added || delta.labels,
            ClusterEvent::Claim(key) => pod.uses(key),
            ClusterEvent::Volume | ClusterEvent::StorageClass | ClusterEvent::StorageCapacity => {
                true
            }
            _ => false,
        }
    }
}

impl PreFilter for VolumeBinding {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> PreFiltered {
        if pod.claims.is_empty() {
            return PreFiltered::Skip;
        }
        match read(pod, &snapshot.storage) {
            Ok(wanted) => {
                state.put(wanted);
                PreFiltered::All
            }
            Err(why) => PreFiltered::Reject(Rejection::unresolvable(why)),
        }
    }
}

impl Filter for VolumeBinding {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        let wanted = state.get::<Wanted>()?;
        let mut reasons = Vec::new();
        if wanted.bound.iter().any(Option::is_none) {
            reasons.push(
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".into(),
            );
        } else if !wanted.bound.iter().flatten().all(|pv| reaches(pv, node)) {
            reasons.push("node(s) didn't match PersistentVolume's node affinity".into());
        }
        if !wanted.delayed.is_empty()
            && let Err(why) = self.choose(wanted, node)
        {
            reasons.push(why.into());
        }
        (!reasons.is_empty()).then_some(Rejection {
            reasons,
            resolvable: false,
        })
    }
}

impl Reserve for VolumeBinding {
    fn reserve(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Rejection> {
        let Some(wanted) = state
            .get::<Wanted>()
            .filter(|wanted| !wanted.delayed.is_empty())
        else {
            return Ok(());
        };
        let choices = self.choose(wanted, node).map_err(Rejection::unresolvable)?;
        let mut assumed = self.assumed.lock();
        for choice in &choices {
            let (Choice::Volume(claim, _) | Choice::Provision(claim)) = choice;
            let key = ObjectKey::of(&**claim);
            if let Choice::Volume(_, volume) = choice {
                let name = volume.metadata.name.clone().unwrap_or_default();
                assumed.volumes.insert(name, key.clone());
            }
            assumed.claims.insert(key, Arc::clone(&node.name));
        }
        assumed.pods.insert(Arc::clone(&pod.uid), choices);
        Ok(())
    }

    fn unreserve(&self, _state: &mut CycleState, pod: &PodInfo, _node: &str) {
        self.forget(&pod.uid);
    }
}

impl PreBind for VolumeBinding {
    fn pre_bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Result<(), BindError>> {
        self.carry_out(binding).boxed()
    }
}

impl PostBind for VolumeBinding {
    fn post_bind(&self, binding: &Binding) {
        self.forget(binding.pod.metadata.uid.as_deref().unwrap_or_default());
    }
}

/// `VolumeRestrictions`: a claim that one pod alone may use is used by one pod alone.
#[derive(Debug)]
pub struct VolumeRestrictions;

/// How many pods on nodes use the pod's claims that only one may use.
#[derive(Debug)]
struct Exclusive {
    claims: Vec<ObjectKey>,
    users: i64,
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { delta, .. } => delta.added,
            ClusterEvent::Claim(key) => pod.uses(key),
            ClusterEvent::PodGone(gone) => {
                gone.key.namespace == pod.key.namespace
                    && gone.claims.iter().any(|claim| pod.claims.contains(claim))
            }
            _ => false,
        }
    }
}

impl PreFilter for VolumeRestrictions {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> PreFiltered {
        let only_one = |claim: &PersistentVolumeClaim| {
            let modes = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.access_modes.as_ref());
            modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
        };
        let keys = pod
            .claims
            .iter()
            .map(|claim| ObjectKey::new(pod.key.namespace.clone(), claim.name.clone()));
        let claims: Vec<ObjectKey> = keys
            .filter(|key| {
                let found = snapshot.storage.claims.get(key);
                found.is_some_and(|claim| only_one(claim))
            })
            .collect();
        if claims.is_empty() {
            return PreFiltered::Skip;
        }
        let users = claims.iter().map(|key| snapshot.claim_users(key)).sum();
        state.put(Exclusive { claims, users });
        PreFiltered::All
    }

    fn adjust(&self, state: &mut CycleState, what: &Adjustment<'_>, amount: i64) {
        if let Some(exclusive) = state.get_mut::<Exclusive>() {
            let used = exclusive.claims.iter().filter(|key| what.other.uses(key));
            let used = i64::try_from(used.count()).unwrap_or(0);
            exclusive.users += amount * used;
        }
    }
}

impl Filter for VolumeRestrictions {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, _node: &NodeInfo) -> Option<Rejection> {
        let exclusive = state.get::<Exclusive>()?;
        (exclusive.users > 0).then(|| {
            Rejection::resolvable(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod \
                 access mode",
            )
        })
    }
}
