//! The built-in provisioner: a volume is a directory of the node where the pod goes.
//!
//! It behaves as an external provisioner does: it is asked by annotations on the claim, and what
//! it makes is a volume that is held for the claim; the binder does the rest. The directory is
//! made and removed by the node's agent, which is told through the volume itself
//! ([`evenkeel_api::local_volume`]). With `Retain` nothing ever touches data. A claim that is to begin
//! with what a snapshot or another claim has goes to the node that has it, whoever comes to use it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::local_volume::{
    self, CLASS, DIRECTORY, FINALIZER, NODE_LABEL, PROVISIONER, SOURCE,
};
use evenkeel_client::Api;
use evenkeel_client::{
    EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::binding::reference;
use super::facts::{
    self, BIND_COMPLETED, BOUND_BY_CONTROLLER, DEFAULT_CLASS, PROVISIONED_BY, PROVISIONER as ASKED,
    SELECTED_NODE, annotation, claim_spec, class_of, default_class, held_for, name, volume_name,
    volume_phase, volume_spec,
};
use super::snapshots::is_being_made;
use super::snapshots::kinds::{Content, Snapshot};
use super::source::{self, CLONING};
use crate::error::ReconcileError;

const HOSTNAME: &str = "kubernetes.io/hostname";
/// So long a node may be missing before its volumes are let go without it.
const NODE_GONE: SignedDuration = SignedDuration::from_mins(5);
/// Wait before a deletion is looked at again while its node is away.
const LOOK: Duration = Duration::from_secs(60);
/// Wait before a source that was refused is looked at again.
const SOURCE_LOOK: Duration = Duration::from_secs(5);

/// Why no volume is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another node may do: the scheduler chooses anew.
    Elsewhere(String),
    /// No node will do as the claim or the class is.
    Never(String),
}

/// Can a directory be what the claim and its class ask for?
fn possible(claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<(), Refusal> {
    let never = |why: &str| Err(Refusal::Never(why.to_owned()));
    let spec = claim_spec(claim);
    if spec.volume_mode.as_deref() == Some("Block") {
        return never("volumeMode Block is not supported: a volume is a directory");
    }
    if let Some(named) = source::of(spec).filter(|it| !it.is_snapshot() && !it.is_claim()) {
        return never(&format!(
            "dataSource of kind {} is not supported: a volume is made from a VolumeSnapshot or a \
             PersistentVolumeClaim",
            named.kind
        ));
    }
    if spec.selector.is_some() {
        return never("claim.Spec.Selector is not supported");
    }
    let modes = spec.access_modes.clone().unwrap_or_default();
    if let Some(mode) = modes
        .iter()
        .find(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"))
    {
        return never(&format!(
            "access mode {mode} is not supported: a directory of one node offers ReadWriteOnce \
             and ReadWriteOncePod"
        ));
    }
    if let Some(parameter) = class.parameters.iter().flatten().next() {
        return never(&format!(
            "parameter {:?} of the class is not known",
            parameter.0
        ));
    }
    if class
        .mount_options
        .as_ref()
        .is_some_and(|options| !options.is_empty())
    {
        return never("mount options are not supported: nothing is mounted but a directory");
    }
    Ok(())
}

/// The volume for a claim whose node is chosen; `from` is what it begins with.
///
/// # Errors
/// Why there is none.
pub fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node_name: &str,
    node: Option<&Node>,
    from: Option<&source::From>,
) -> Result<PersistentVolume, Refusal> {
    possible(claim, class)?;
    let never = |why: &str| Err(Refusal::Never(why.to_owned()));
    let spec = claim_spec(claim);
    let modes = spec.access_modes.clone().unwrap_or_default();
    let Some(node) = node else {
        return Err(Refusal::Elsewhere(format!("node {node_name:?} not found")));
    };
    let Some(directory) = annotation(&node.metadata, DIRECTORY) else {
        return Err(Refusal::Elsewhere(format!(
            "node {node_name:?} has no directory for volumes (it lacks the annotation {DIRECTORY})"
        )));
    };
    if !evenkeel_api::names::label_value(node_name).is_empty() {
        return never(&format!("the name of node {node_name:?} is no label value"));
    }
    let hostname = crate::claim::labels(&node.metadata)
        .get(HOSTNAME)
        .map_or(node_name, String::as_str);
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    let pv = format!("pvc-{uid}");
    let only_there = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![hostname.to_owned()]),
    };
    let requests = spec.resources.as_ref().and_then(|all| all.requests.clone());
    let capacity = requests.unwrap_or_default().into_iter();
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(pv.clone()),
            labels: Some(BTreeMap::from([(
                NODE_LABEL.to_owned(),
                node_name.to_owned(),
            )])),
            annotations: Some(
                [(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())]
                    .into_iter()
                    .chain(from.map(|from| (SOURCE.to_owned(), from.source.clone())))
                    .collect(),
            ),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(modes),
            capacity: Some(capacity.filter(|(what, _)| what == "storage").collect()),
            claim_ref: Some(reference(claim)),
            local: Some(LocalVolumeSource {
                path: format!("{}/{pv}", directory.trim_end_matches('/')),
                fs_type: None,
            }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector {
                    node_selector_terms: vec![NodeSelectorTerm {
                        match_expressions: Some(vec![only_there]),
                        match_fields: None,
                    }],
                }),
            }),
            persistent_volume_reclaim_policy: Some(
                class
                    .reclaim_policy
                    .clone()
                    .unwrap_or_else(|| "Delete".to_owned()),
            ),
            storage_class_name: Some(class_of(claim).to_owned()),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

/// Is the claim this provisioner's to serve, and on which node?
#[must_use]
pub fn asked(claim: &PersistentVolumeClaim) -> Option<Option<&str>> {
    let ours = annotation(&claim.metadata, ASKED) == Some(PROVISIONER);
    let open = is_open(claim);
    let node = annotation(&claim.metadata, SELECTED_NODE).filter(|node| !node.is_empty());
    (ours && open).then_some(node)
}

/// Does the claim still wait for a volume?
fn is_open(claim: &PersistentVolumeClaim) -> bool {
    volume_name(claim).is_none()
        && annotation(&claim.metadata, BIND_COMPLETED).is_none()
        && claim.metadata.deletion_timestamp.is_none()
}

/// Does the claim wait for a volume that begins with something?
fn has_source(claim: &PersistentVolumeClaim) -> bool {
    is_open(claim) && source::of(claim_spec(claim)).is_some()
}

/// The claim that a claim's volume is a copy of.
fn source_claim(claim: &PersistentVolumeClaim) -> Option<ObjectKey> {
    let named = source::of(claim_spec(claim)).filter(source::Named::is_claim)?;
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    Some(ObjectKey::new(namespace, named.name))
}

fn is_cloned(claim: &PersistentVolumeClaim) -> bool {
    let mut finalizers = claim.metadata.finalizers.iter().flatten();
    finalizers.any(|it| it == CLONING)
}

/// Is the volume one that this provisioner made?
#[must_use]
pub fn is_ours(volume: &PersistentVolume) -> bool {
    annotation(&volume.metadata, PROVISIONED_BY) == Some(PROVISIONER)
}

/// What is to be done about a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Delete the object; its node then removes the directory and lets it go.
    Delete,
    /// Its node has to act; look again later, in case the node is gone.
    Await,
    /// Its node is gone for good: it is let go, and whatever it held stays where it is.
    LetGo,
}

/// Decides about a volume.
#[must_use]
pub fn step(volume: &PersistentVolume, node_exists: bool, now: jiff::Timestamp) -> Step {
    let meta = &volume.metadata;
    let deletes = volume_spec(volume)
        .persistent_volume_reclaim_policy
        .as_deref()
        == Some("Delete");
    let Some(since) = &meta.deletion_timestamp else {
        let released = volume_phase(volume) == "Released" && held_for(volume).is_some();
        return if released && deletes {
            Step::Delete
        } else {
            Step::Stay
        };
    };
    if !meta.finalizers.iter().flatten().any(|it| it == FINALIZER) {
        return Step::Stay;
    }
    // A claim may still be using it.
    if meta
        .finalizers
        .iter()
        .flatten()
        .any(|it| it == super::protection::VOLUME)
    {
        return Step::Stay;
    }
    if node_exists || now.duration_since(since.0) < NODE_GONE {
        return Step::Await;
    }
    Step::LetGo
}

/// The class that is made at start; the default one, unless there is one already.
#[must_use]
pub fn class(default: bool) -> StorageClass {
    StorageClass {
        metadata: ObjectMeta {
            name: Some(CLASS.to_owned()),
            annotations: default
                .then(|| BTreeMap::from([(DEFAULT_CLASS.to_owned(), "true".to_owned())])),
            ..ObjectMeta::default()
        },
        provisioner: PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(String),
    /// A claim that others are copies of.
    Source(ObjectKey),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(name) => write!(f, "volume {name}"),
            Self::Source(key) => write!(f, "source {key}"),
        }
    }
}

struct Reconciler {
    claims: Arc<View<PersistentVolumeClaim>>,
    volumes: Arc<View<PersistentVolume>>,
    classes: Arc<View<StorageClass>>,
    nodes: Arc<View<Node>>,
    /// What was last said about a claim whose source won't do: it is looked at often.
    said: parking_lot::Mutex<HashMap<ObjectKey, String>>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: Key) -> Result<Outcome, ReconcileError> {
        match key {
            Key::Claim(key) => self.claim(&key).await,
            Key::Volume(name) => self.volume(&name).await,
            Key::Source(key) => self.let_source_go(&key).await,
        }
    }

    async fn claim(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(claim) = self.claims.get_key(key) else {
            self.said.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let sourced = has_source(&claim);
        let asked = asked(&claim);
        if !sourced && asked.is_none() {
            self.said.lock().remove(key);
            return Ok(Outcome::Done);
        }
        let Some(class) = self.classes.get("", class_of(&claim)) else {
            return Ok(Outcome::Done);
        };
        let failed = |why: &str| {
            let text = format!(
                "failed to provision volume with StorageClass {:?}: {why}",
                name(&class.metadata)
            );
            if sourced && self.said.lock().insert(key.clone(), text.clone()).as_ref() == Some(&text)
            {
                return;
            }
            self.tell(&claim, EventType::Warning, "ProvisioningFailed", &text);
        };
        let mut from = None;
        if sourced && class.provisioner == PROVISIONER {
            if let Err(Refusal::Never(why)) = possible(&claim, &class) {
                failed(&why);
                return Ok(Outcome::Done);
            }
            match self.from(&claim).await? {
                Ok(found) => from = Some(found),
                Err(why) => {
                    failed(&why);
                    return Ok(Outcome::After(SOURCE_LOOK));
                }
            }
        }
        let selected = annotation(&claim.metadata, SELECTED_NODE);
        if let Some(from) = &from
            && selected != Some(&from.node)
        {
            // Where the data is; a pod that uses the claim goes there.
            return self.choose(&claim, &from.node).await;
        }
        let Some(node) = asked else {
            return Ok(Outcome::Done);
        };
        let Some(node) = node else {
            failed(
                "configuration error, no node was specified: a class of this provisioner needs \
                 volumeBindingMode WaitForFirstConsumer",
            );
            return Ok(Outcome::Done);
        };
        let there = self.nodes.get("", node);
        match volume(&claim, &class, node, there.as_deref(), from.as_ref()) {
            Ok(wanted) => {
                self.make(&claim, &wanted).await?;
            }
            Err(Refusal::Never(why)) => failed(&why),
            // The data is there and nowhere else.
            Err(Refusal::Elsewhere(why)) if from.is_some() => {
                failed(&why);
                return Ok(Outcome::After(SOURCE_LOOK));
            }
            Err(Refusal::Elsewhere(why)) => {
                failed(&why);
                let mut wanted = (*claim).clone();
                if let Some(annotations) = &mut wanted.metadata.annotations {
                    annotations.remove(SELECTED_NODE);
                }
                let api: Api<PersistentVolumeClaim> =
                    Api::namespaced(self.context.client.clone(), &key.namespace);
                let written = api
                    .replace(&key.name, &PostParams::default(), &wanted)
                    .await?;
                self.claims.note_written(written);
            }
        }
        Ok(Outcome::Done)
    }

    /// What the claim's volume begins with, or why it can't; a claim that is copied is kept.
    async fn from(
        &self,
        claim: &PersistentVolumeClaim,
    ) -> Result<Result<source::From, String>, ReconcileError> {
        let Some(named) = source::of(claim_spec(claim)) else {
            return Ok(Err("it names no source".to_owned()));
        };
        let key = ObjectKey::of(claim);
        if named.is_snapshot() {
            let client = &self.context.client;
            let snapshots: Api<Snapshot> = Api::namespaced(client.clone(), &key.namespace);
            let snapshot = snapshots.get_opt(&named.name).await?;
            let status = snapshot.as_ref().and_then(|it| it.status.as_ref());
            let content = status.and_then(|it| it.bound_volume_snapshot_content_name.as_deref());
            let content = match content {
                None => None,
                Some(content) => {
                    let contents: Api<Content> = Api::all(client.clone());
                    contents.get_opt(content).await?
                }
            };
            let (snapshot, content) = (snapshot.as_ref(), content.as_ref());
            return Ok(source::snapshot(claim, &named.name, snapshot, content));
        }
        let of = self.claims.get(&key.namespace, &named.name);
        let volume = of
            .as_ref()
            .and_then(|of| self.volumes.get("", volume_name(of)?));
        let found = source::clone(claim, &named.name, of.as_ref(), volume.as_ref());
        if let (Ok(_), Some(of)) = (&found, &of)
            && !is_cloned(of)
        {
            let mut wanted = PersistentVolumeClaim::clone(of);
            let finalizers = wanted.metadata.finalizers.get_or_insert_default();
            finalizers.push(CLONING.to_owned());
            self.replace(&wanted).await?;
        }
        Ok(found)
    }

    async fn replace(&self, wanted: &PersistentVolumeClaim) -> Result<(), ReconcileError> {
        let key = ObjectKey::of(wanted);
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.context.client.clone(), &key.namespace);
        let params = PostParams::default();
        let written = api.replace(&key.name, &params, wanted).await?;
        let held = written
            .metadata
            .finalizers
            .iter()
            .flatten()
            .next()
            .is_some();
        if written.metadata.deletion_timestamp.is_none() || held {
            self.claims.note_written(written);
        } else {
            self.claims.note_deleted(wanted);
        }
        Ok(())
    }

    async fn choose(
        &self,
        claim: &PersistentVolumeClaim,
        node: &str,
    ) -> Result<Outcome, ReconcileError> {
        let mut wanted = claim.clone();
        facts::annotate(&mut wanted.metadata, SELECTED_NODE, node);
        self.replace(&wanted).await?;
        Ok(Outcome::Done)
    }

    /// A claim that nobody copies any more need not be kept.
    async fn let_source_go(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(of) = self.claims.get_key(key).filter(|of| is_cloned(of)) else {
            return Ok(Outcome::Done);
        };
        let copied = self
            .claims
            .in_namespace(&key.namespace)
            .iter()
            .filter(|claim| source_claim(claim).as_ref() == Some(key))
            .any(|claim| is_being_made(claim, |volume| self.volumes.get("", volume)));
        if copied {
            return Ok(Outcome::Done);
        }
        let mut wanted = PersistentVolumeClaim::clone(&of);
        if let Some(finalizers) = &mut wanted.metadata.finalizers {
            finalizers.retain(|it| it != CLONING);
        }
        self.replace(&wanted).await?;
        Ok(Outcome::Done)
    }

    async fn make(
        &self,
        claim: &PersistentVolumeClaim,
        wanted: &PersistentVolume,
    ) -> Result<(), ReconcileError> {
        let pv = name(&wanted.metadata);
        if self.volumes.get("", pv).is_some() {
            return Ok(());
        }
        let text = format!(
            "External provisioner is provisioning volume for claim \"{}\"",
            ObjectKey::of(claim)
        );
        self.tell(claim, EventType::Normal, "Provisioning", &text);
        let mut wanted = wanted.clone();
        // The binder's own mark, as a provisioner writes it: it may take the volume back.
        facts::annotate(&mut wanted.metadata, BOUND_BY_CONTROLLER, "yes");
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        match api.create(&PostParams::default(), &wanted).await {
            Ok(made) => {
                self.volumes.note_written(made);
            }
            // The name is the claim's uid: it was made for this claim.
            Err(error) if errors::is_already_exists(&error) => return Ok(()),
            Err(error) => {
                let why = errors::message(&error);
                let text = format!("failed to provision volume: {why}");
                self.tell(claim, EventType::Warning, "ProvisioningFailed", &text);
                return Err(error.into());
            }
        }
        let text = format!("Successfully provisioned volume {pv}");
        self.tell(claim, EventType::Normal, "ProvisioningSucceeded", &text);
        Ok(())
    }

    fn tell(&self, claim: &PersistentVolumeClaim, kind: EventType, reason: &str, text: &str) {
        self.context.recorder.tell(claim, kind, reason, text);
    }

    async fn volume(&self, key: &str) -> Result<Outcome, ReconcileError> {
        let Some(volume) = self.volumes.get("", key).filter(|it| is_ours(it)) else {
            return Ok(Outcome::Done);
        };
        let node = crate::claim::labels(&volume.metadata)
            .get(NODE_LABEL)
            .cloned();
        let node = node.unwrap_or_default();
        let exists = self.nodes.get("", &node).is_some();
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        match step(&volume, exists, self.context.clock.now()) {
            Step::Stay => Ok(Outcome::Done),
            Step::Await => Ok(Outcome::After(LOOK)),
            Step::Delete => {
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: volume.metadata.uid.clone(),
                    // Somebody may just have asked to keep it.
                    resource_version: volume.metadata.resource_version.clone(),
                });
                match api.delete(key, &params).await {
                    Ok(answer) => self.volumes.note_delete_answer(&volume, answer.left()),
                    Err(error) if errors::is_not_found(&error) => {
                        self.volumes.note_deleted(&volume)
                    }
                    Err(error) => return Err(error.into()),
                }
                Ok(Outcome::Done)
            }
            Step::LetGo => {
                if api_node_exists(&self.context, &node).await? {
                    return Ok(Outcome::After(LOOK));
                }
                let text = format!(
                    "node {node:?} does not exist any more: the volume is let go, and its directory \
                     stays on that machine"
                );
                let recorder = &self.context.recorder;
                recorder.tell(
                    volume.as_ref(),
                    EventType::Warning,
                    "VolumeLeftBehind",
                    text,
                );
                let mut wanted = (*volume).clone();
                if let Some(finalizers) = &mut wanted.metadata.finalizers {
                    finalizers.retain(|it| it != local_volume::FINALIZER);
                }
                match api.replace(key, &PostParams::default(), &wanted).await {
                    Ok(_) => {}
                    Err(error) if errors::is_not_found(&error) => {}
                    Err(error) => return Err(error.into()),
                }
                Ok(Outcome::Done)
            }
        }
    }

    /// Makes the class at start, unless somebody has one of that name: what people changed stays.
    async fn ensure_class(&self) -> Result<(), kube::Error> {
        if self.classes.get("", CLASS).is_some() {
            return Ok(());
        }
        let default = default_class(&self.classes.list()).is_none();
        let api: Api<StorageClass> = Api::all(self.context.client.clone());
        match api.create(&PostParams::default(), &class(default)).await {
            Ok(made) => {
                self.classes.note_written(made);
                Ok(())
            }
            Err(error) if errors::is_already_exists(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

async fn api_node_exists(context: &LoopContext, node: &str) -> Result<bool, kube::Error> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    Ok(!node.is_empty() && nodes.get_opt(node).await?.is_some())
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let claims = context.views.of::<PersistentVolumeClaim>();
    let volumes = context.views.of::<PersistentVolume>();
    let classes = context.views.of::<StorageClass>();
    let nodes = context.views.of::<Node>();
    claims.synced().await;
    volumes.synced().await;
    classes.synced().await;
    nodes.synced().await;
    let queue = WorkQueue::new(context.metrics.of("local-path"));
    let reconciler = Reconciler {
        claims: Arc::clone(&claims),
        volumes: Arc::clone(&volumes),
        classes: Arc::clone(&classes),
        nodes,
        said: parking_lot::Mutex::default(),
        context: context.clone(),
    };
    if let Err(error) = reconciler.ensure_class().await {
        let error = errors::message(&error);
        tracing::warn!(error, class = CLASS, "the storage class is not made");
    }
    {
        let queue = Arc::clone(&queue);
        claims.on_change(move |change| {
            let sourced = source::of(claim_spec(change.latest())).is_some();
            if sourced
                || change
                    .new
                    .as_ref()
                    .is_some_and(|claim| asked(claim).is_some())
            {
                queue.add(Key::Claim(change.key.clone()));
            }
            if change.new.as_ref().is_some_and(|claim| is_cloned(claim)) {
                queue.add(Key::Source(change.key.clone()));
            }
            if let Some(of) = source_claim(change.latest()) {
                queue.add(Key::Source(of));
            }
        });
    }
    {
        // A class that was corrected, or came, may serve claims that were refused.
        let (queue, claims) = (Arc::clone(&queue), Arc::clone(&claims));
        classes.on_change(move |change| {
            for claim in claims.list() {
                if class_of(&claim) == change.key.name
                    && (asked(&claim).is_some() || has_source(&claim))
                {
                    queue.add(Key::Claim(ObjectKey::of(claim.as_ref())));
                }
            }
        });
    }
    {
        let (queue, claims) = (Arc::clone(&queue), Arc::clone(&claims));
        volumes.on_change(move |change| {
            if !is_ours(change.latest()) {
                return;
            }
            if change.new.is_some() {
                queue.add(Key::Volume(change.key.name.clone()));
            }
            // A copy that is whole, or gone, keeps its source no longer.
            let held = held_for(change.latest()).map(|(_, key)| key);
            let claim = held.and_then(|key| claims.get_key(&key));
            if let Some(of) = claim.as_deref().and_then(source_claim) {
                queue.add(Key::Source(of));
            }
        });
    }
    run_loop("local-path", 8, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}
