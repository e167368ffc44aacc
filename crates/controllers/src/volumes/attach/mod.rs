//! The attach/detach controller, for volumes of CSI drivers: which node a volume is attached to is
//! said by VolumeAttachment objects, which the drivers' attachers carry out, and by
//! `status.volumesAttached` of the nodes, which their agents go by.
//!
//! Nothing is remembered but since when a volume is unwanted somewhere and what has been told; an
//! order of writes takes the place of the reference's memory. A node's status says that a volume
//! is there only while its attachment is, and no attachment goes while the node says that it uses
//! the volume, which is asked of the door at the last moment.

pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{
    EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    AttachedVolume, Node, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::storage::v1::{
    CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::facts::{
    BY_CLAIM, annotation, by_claim, held_for, name, pod_claims, volume_name, volume_spec,
};
use crate::error::ReconcileError;
use crate::pods;
use plan::{Action, Attachment, Place, Volume, plan};

/// Index of attachments by the volume that they attach.
const OF_VOLUME: &str = "of-volume";
/// Index of nodes by the volumes that their statuses show or use.
const SHOWS: &str = "shows";
/// A node with this leaves attaching to this loop.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Volumes looked at at once.
const WORKERS: usize = 10;

/// The name of the attachment of a volume to a node, which its agent computes too.
fn attachment_name(volume: &Volume, node: &str) -> String {
    let text = format!("{}{}{node}", volume.handle, volume.driver);
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("csi-{hex}")
}

/// What node statuses call a volume.
fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

fn of_volume(attachment: &VolumeAttachment) -> Vec<String> {
    let source = &attachment.spec.source;
    source.persistent_volume_name.clone().into_iter().collect()
}

fn shows(node: &Node) -> Vec<String> {
    let Some(status) = &node.status else {
        return Vec::new();
    };
    let attached = status.volumes_attached.iter().flatten();
    let mut all: Vec<String> = attached.map(|volume| volume.name.clone()).collect();
    all.extend(status.volumes_in_use.iter().flatten().cloned());
    all.sort_unstable();
    all.dedup();
    all
}

/// May the pod still have volumes mounted?
fn uses_volumes(pod: &Pod) -> bool {
    let runs = || {
        let status = pod.status.as_ref();
        let all = status.and_then(|it| it.container_statuses.as_ref());
        let mut all = all.into_iter().flatten();
        all.any(|one| {
            one.state
                .as_ref()
                .is_none_or(|it| it.terminated.is_none() && it.waiting.is_none())
        })
    };
    !pods::is_terminal(pod) && (pod.metadata.deletion_timestamp.is_none() || runs())
}

fn is_managed(node: &Node) -> bool {
    annotation(&node.metadata, MANAGED) == Some("true")
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|it| it.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|it| it.type_ == "Ready" && it.status == "True")
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|it| it.taints.as_ref());
    let mut taints = taints.into_iter().flatten();
    taints.any(|taint| taint.key == OUT_OF_SERVICE)
}

struct Reconciler {
    pods: Arc<View<Pod>>,
    claims: Arc<View<PersistentVolumeClaim>>,
    volumes: Arc<View<PersistentVolume>>,
    attachments: Arc<View<VolumeAttachment>>,
    nodes: Arc<View<Node>>,
    drivers: Arc<View<CSIDriver>>,
    context: LoopContext,
    /// Since when a volume is unwanted on a node.
    unwanted: Mutex<HashMap<(String, String), Timestamp>>,
    /// The warnings told last, by volume and node.
    told: Mutex<HashMap<(String, String), Action>>,
}

impl Reconciler {
    fn volume(&self, key: &str) -> Option<Volume> {
        let volume = self.volumes.get("", key)?;
        let source = volume_spec(&volume).csi.as_ref()?;
        let modes = volume_spec(&volume)
            .access_modes
            .as_deref()
            .unwrap_or_default();
        let shared = |mode: &String| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany");
        let driver = self.drivers.get("", &source.driver);
        Some(Volume {
            name: key.to_owned(),
            driver: source.driver.clone(),
            handle: source.volume_handle.clone(),
            exclusive: !modes.is_empty() && !modes.iter().any(shared),
            attaches: driver.and_then(|it| it.spec.attach_required) != Some(false),
        })
    }

    /// Pods with a node that use the volume through its claim, by node.
    fn users(&self, key: &str) -> BTreeMap<String, Vec<Arc<Pod>>> {
        let mut users: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        let Some(volume) = self.volumes.get("", key) else {
            return users;
        };
        let Some((held, claim)) = held_for(&volume) else {
            return users;
        };
        let bound = self.claims.get_key(&claim).is_some_and(|claim| {
            claim.metadata.uid == held.uid && volume_name(&claim) == Some(key)
        });
        if !bound {
            return users;
        }
        for pod in self.pods.by_index(BY_CLAIM, &claim.to_string()) {
            let node = pods::node_name(&pod).map(str::to_owned);
            if let Some(node) = node.filter(|_| uses_volumes(&pod)) {
                users.entry(node).or_default().push(pod);
            }
        }
        users
    }

    fn places(&self, volume: &Volume, users: &BTreeMap<String, Vec<Arc<Pod>>>) -> Vec<Place> {
        let unique = unique_name(&volume.driver, &volume.handle);
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for (node, pods) in users {
            let place = places.entry(node.clone()).or_default();
            place.pods = pods
                .iter()
                .map(|pod| {
                    let space = pod.metadata.namespace.clone().unwrap_or_default();
                    (space, name(&pod.metadata).to_owned())
                })
                .collect();
        }
        for attachment in self.attachments.by_index(OF_VOLUME, &volume.name) {
            let node = attachment.spec.node_name.clone();
            // One that somebody else made is his to delete.
            if name(&attachment.metadata) != attachment_name(volume, &node) {
                continue;
            }
            let status = attachment.status.clone().unwrap_or_default();
            places.entry(node).or_default().attachment = Some(Attachment {
                attached: status.attached,
                error: status.attach_error.and_then(|it| it.message),
                going: attachment.metadata.deletion_timestamp.is_some(),
                created: attachment
                    .metadata
                    .creation_timestamp
                    .as_ref()
                    .map(|it| it.0),
            });
        }
        for node in self.nodes.by_index(SHOWS, &unique) {
            places.entry(name(&node.metadata).to_owned()).or_default();
        }
        let unwanted = self.unwanted.lock();
        let mut all = Vec::with_capacity(places.len());
        for (node, mut place) in places {
            let found = self.nodes.get("", &node);
            if found.as_ref().is_some_and(|found| !is_managed(found)) {
                continue;
            }
            if let Some(found) = found {
                let status = found.status.as_ref();
                let in_use = status.and_then(|it| it.volumes_in_use.as_ref());
                let attached = status.and_then(|it| it.volumes_attached.as_ref());
                place.exists = true;
                place.ready = is_ready(&found);
                place.out_of_service = is_out_of_service(&found);
                place.in_use = in_use.into_iter().flatten().any(|it| *it == unique);
                place.shown = attached.into_iter().flatten().any(|it| it.name == unique);
            } else {
                place.pods.clear();
            }
            let key = (volume.name.clone(), node.clone());
            place.unwanted_since = unwanted.get(&key).copied();
            place.node = node;
            all.push(place);
        }
        all
    }

    async fn reconcile(&self, key: String) -> Result<Outcome, ReconcileError> {
        let Some(volume) = self.volume(&key) else {
            // Attachers keep a volume that is attached; what is left here is nobody's.
            self.unwanted.lock().retain(|(name, _), _| *name != key);
            self.told.lock().retain(|(name, _), _| *name != key);
            return Ok(Outcome::Done);
        };
        let users = self.users(&key);
        let now = self.context.clock.now();
        let made = plan(&volume, &self.places(&volume, &users), now);
        {
            let mut unwanted = self.unwanted.lock();
            unwanted.retain(|(name, node), _| *name != key || made.unwanted.contains(node));
            for node in &made.unwanted {
                unwanted.entry((key.clone(), node.clone())).or_insert(now);
            }
        }
        self.told.lock().retain(|(name, node), told| {
            *name != key
                || made
                    .actions
                    .iter()
                    .any(|(at, action)| at == node && action == told)
        });
        for (node, action) in made.actions {
            self.act(&volume, &node, action, &users).await?;
        }
        Ok(made.again.map_or(Outcome::Done, Outcome::After))
    }

    async fn act(
        &self,
        volume: &Volume,
        node: &str,
        action: Action,
        users: &BTreeMap<String, Vec<Arc<Pod>>>,
    ) -> Result<(), ReconcileError> {
        let recorder = &self.context.recorder;
        let pods = users.get(node).map(Vec::as_slice).unwrap_or_default();
        match action {
            Action::Attach => self.attach(volume, node).await?,
            Action::Show => {
                if self.show(volume, node, true, false).await? {
                    let name = &volume.name;
                    let text = format!("AttachVolume.Attach succeeded for volume {name:?} ");
                    for pod in pods {
                        let reason = "SuccessfulAttachVolume";
                        recorder.tell(pod.as_ref(), EventType::Normal, reason, text.as_str());
                    }
                }
            }
            Action::Hide => {
                self.show(volume, node, false, false).await?;
            }
            Action::Detach { forced } => {
                if self.show(volume, node, false, !forced).await? {
                    self.detach(volume, node).await?;
                }
            }
            Action::Tell(told) => {
                let key = (volume.name.clone(), node.to_owned());
                let action = Action::Tell(told.clone());
                if self.told.lock().insert(key, action.clone()).as_ref() == Some(&action) {
                    return Ok(());
                }
                for pod in pods {
                    let id = (
                        pod.metadata.namespace.as_deref(),
                        pod.metadata.name.as_deref(),
                    );
                    let mine = told
                        .iter()
                        .find(|((space, name), _)| id == (Some(space), Some(name)));
                    if let Some((_, text)) = mine {
                        let reason = "FailedAttachVolume";
                        recorder.tell(pod.as_ref(), EventType::Warning, reason, text.as_str());
                    }
                }
            }
        }
        Ok(())
    }

    async fn attach(&self, volume: &Volume, node: &str) -> Result<(), ReconcileError> {
        let wanted = VolumeAttachment {
            metadata: ObjectMeta {
                name: Some(attachment_name(volume, node)),
                ..ObjectMeta::default()
            },
            spec: VolumeAttachmentSpec {
                attacher: volume.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(volume.name.clone()),
                    inline_volume_spec: None,
                },
            },
            status: None,
        };
        let api: Api<VolumeAttachment> = Api::all(self.context.client.clone());
        match api.create(&PostParams::default(), &wanted).await {
            Ok(made) => {
                self.attachments.note_written(made);
                Ok(())
            }
            Err(error) if errors::is_already_exists(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a node's status show a volume or not; `false` when the node, as the door has it now,
    /// uses a volume that `unused` says it must not.
    async fn show(
        &self,
        volume: &Volume,
        node: &str,
        shown: bool,
        unused: bool,
    ) -> Result<bool, ReconcileError> {
        let unique = unique_name(&volume.driver, &volume.handle);
        let api: Api<Node> = Api::all(self.context.client.clone());
        let Some(found) = api.get_opt(node).await? else {
            return Ok(true);
        };
        let status = found.status.unwrap_or_default();
        if unused
            && status
                .volumes_in_use
                .iter()
                .flatten()
                .any(|it| *it == unique)
        {
            return Ok(false);
        }
        let mut attached = status.volumes_attached.unwrap_or_default();
        let there = attached.iter().any(|it| it.name == unique);
        if there == shown {
            return Ok(true);
        }
        attached.retain(|it| it.name != unique);
        if shown {
            attached.push(AttachedVolume {
                name: unique,
                device_path: String::new(),
            });
        }
        // The list is written whole, so nobody may have written it in between.
        let attached = (!attached.is_empty()).then_some(attached);
        let patch = json!({
            "metadata": {"resourceVersion": found.metadata.resource_version},
            "status": {"volumesAttached": attached},
        });
        let params = PatchParams::default();
        let written = api
            .patch_status(node, &params, &Patch::Merge(&patch))
            .await?;
        let used = |node: &Node| {
            let status = node.status.as_ref();
            let all = status.and_then(|it| it.volumes_in_use.as_ref());
            let unique = unique_name(&volume.driver, &volume.handle);
            all.into_iter().flatten().any(|it| *it == unique)
        };
        let safe = !(unused && used(&written));
        self.nodes.note_written(written);
        Ok(safe)
    }

    async fn detach(&self, volume: &Volume, node: &str) -> Result<(), ReconcileError> {
        let id = attachment_name(volume, node);
        let Some(attachment) = self.attachments.get("", &id) else {
            return Ok(());
        };
        let api: Api<VolumeAttachment> = Api::all(self.context.client.clone());
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: attachment.metadata.uid.clone(),
            resource_version: None,
        });
        match api.delete(&id, &params).await {
            Ok(answer) => self
                .attachments
                .note_delete_answer(&attachment, answer.left()),
            Err(error) if errors::is_not_found(&error) => {
                self.attachments.note_deleted(&attachment);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let pods = context.views.of::<Pod>();
    let claims = context.views.of::<PersistentVolumeClaim>();
    let volumes = context.views.of::<PersistentVolume>();
    let attachments = context.views.of::<VolumeAttachment>();
    let nodes = context.views.of::<Node>();
    let drivers = context.views.of::<CSIDriver>();
    pods.add_index(BY_CLAIM, by_claim);
    attachments.add_index(OF_VOLUME, of_volume);
    nodes.add_index(SHOWS, shows);
    pods.synced().await;
    claims.synced().await;
    volumes.synced().await;
    attachments.synced().await;
    nodes.synced().await;
    drivers.synced().await;
    let queue: Arc<WorkQueue<String>> = WorkQueue::new(context.metrics.of("attachdetach"));
    {
        let queue = Arc::clone(&queue);
        volumes.on_change(move |change| {
            let driven = |side: &Arc<PersistentVolume>| volume_spec(side).csi.is_some();
            if change.sides().any(driven) {
                queue.add(change.key.name.clone());
            }
        });
    }
    {
        let queue = Arc::clone(&queue);
        claims.on_change(move |change| {
            for side in change.sides() {
                if let Some(volume) = volume_name(side) {
                    queue.add(volume.to_owned());
                }
            }
        });
    }
    {
        let (queue, claims) = (Arc::clone(&queue), Arc::clone(&claims));
        pods.on_change(move |change| {
            let what = |pod: &Arc<Pod>| (pods::node_name(pod).is_some(), uses_volumes(pod));
            let same = match (&change.old, &change.new) {
                (Some(old), Some(new)) => what(old) == what(new),
                _ => false,
            };
            if same || pods::node_name(change.latest()).is_none() {
                return;
            }
            for (claim, _) in pod_claims(change.latest()) {
                let key = ObjectKey::new(change.key.namespace.clone(), claim);
                let claim = claims.get_key(&key);
                if let Some(volume) = claim.as_deref().and_then(volume_name) {
                    queue.add(volume.to_owned());
                }
            }
        });
    }
    {
        let queue = Arc::clone(&queue);
        attachments.on_change(move |change| {
            for volume in of_volume(change.latest()) {
                queue.add(volume);
            }
        });
    }
    {
        let (queue, volumes) = (Arc::clone(&queue), Arc::clone(&volumes));
        let attachments = Arc::clone(&attachments);
        nodes.on_change(move |change| node_changed(change, &volumes, &attachments, &queue));
    }
    {
        let (queue, volumes) = (Arc::clone(&queue), Arc::clone(&volumes));
        drivers.on_change(move |change| {
            for volume in volumes.list() {
                let source = volume_spec(&volume).csi.as_ref();
                if source.is_some_and(|source| source.driver == change.key.name) {
                    queue.add(name(&volume.metadata).to_owned());
                }
            }
        });
    }
    let reconciler = Reconciler {
        pods,
        claims,
        volumes,
        attachments,
        nodes,
        drivers,
        context: context.clone(),
        unwanted: Mutex::default(),
        told: Mutex::default(),
    };
    run_loop("attachdetach", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

/// Of a node count what it shows and uses, whether it is ready, off, or leaves attaching to us.
fn node_changed(
    change: &evenkeel_client::Change<Node>,
    volumes: &View<PersistentVolume>,
    attachments: &View<VolumeAttachment>,
    queue: &WorkQueue<String>,
) {
    // That it is not used any more is news, also while it is still attached.
    let in_use = |node: &Arc<Node>| {
        let status = node.status.as_ref();
        status.and_then(|it| it.volumes_in_use.clone())
    };
    let what = |node: &Arc<Node>| {
        (
            shows(node),
            in_use(node),
            is_ready(node),
            is_out_of_service(node),
            is_managed(node),
        )
    };
    let (old, new) = (change.old.as_ref().map(what), change.new.as_ref().map(what));
    if old == new {
        return;
    }
    let node = &change.key.name;
    for attachment in attachments.list() {
        if attachment.spec.node_name == *node {
            for volume in of_volume(&attachment) {
                queue.add(volume);
            }
        }
    }
    let mut shown: Vec<String> = change.sides().flat_map(|side| shows(side)).collect();
    shown.sort_unstable();
    if shown.is_empty() {
        return;
    }
    for volume in volumes.list() {
        if let Some(source) = &volume_spec(&volume).csi {
            let unique = unique_name(&source.driver, &source.volume_handle);
            if shown.binary_search(&unique).is_ok() {
                queue.add(name(&volume.metadata).to_owned());
            }
        }
    }
}
