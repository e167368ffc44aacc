//! Snapshots of the built-in provisioner's volumes: the kinds of the field, and the loop that has
//! them made.
//!
//! The copying is done by the node that has the directory ([`evenkeel_api::local_volume`]); here is
//! who asks for it, what is kept meanwhile, and what is said about it. Snapshots of other drivers
//! are left to their own controllers. Nothing is watched but snapshots until there is one: views of
//! kinds that nobody uses would cost memory for nothing.

pub mod kinds;
pub mod plan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::local_volume::{CLASS, MADE, NODE_LABEL, PROVISIONER, SNAPSHOTS};
use evenkeel_client::Api;
use evenkeel_client::{
    Backoff, EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::facts::{self, annotation, claim_spec, name, volume_name};
use super::plan::Told;
use crate::error::ReconcileError;
use kinds::{Class, Content, Snapshot};
use plan::{ContentStep, Seen, Step};

const NAME: &str = "volume-snapshot";
/// Index of snapshots by the claim they are of (`NAMESPACE/NAME`).
const BY_CLAIM: &str = "claim";
/// Index of snapshots by the content they name.
const BY_CONTENT: &str = "content";
/// Wait before a deletion is looked at again while its node is away.
const LOOK: Duration = Duration::from_secs(60);
/// Steps of one look. Each leads to the next; more than these would be a circle.
const STEPS: usize = 12;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Snapshot(ObjectKey),
    Content(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(key) => write!(f, "snapshot {key}"),
            Self::Content(name) => write!(f, "content {name}"),
        }
    }
}

fn by_claim(snapshot: &Snapshot) -> Vec<String> {
    let claim = snapshot.spec.source.persistent_volume_claim_name.as_ref();
    let namespace = snapshot.metadata.namespace.as_deref().unwrap_or_default();
    let key = claim.map(|claim| format!("{namespace}/{claim}"));
    key.into_iter().collect()
}

fn by_content(snapshot: &Snapshot) -> Vec<String> {
    let given = snapshot.spec.source.volume_snapshot_content_name.clone();
    vec![given.unwrap_or_else(|| plan::content_name(snapshot))]
}

struct Reconciler {
    snapshots: Arc<View<Snapshot>>,
    contents: Arc<View<Content>>,
    classes: Arc<View<Class>>,
    claims: Arc<View<PersistentVolumeClaim>>,
    volumes: Arc<View<PersistentVolume>>,
    nodes: Arc<View<Node>>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: Key) -> Result<Outcome, ReconcileError> {
        match key {
            Key::Snapshot(key) => self.snapshot(&key).await,
            Key::Content(name) => self.content(&name).await,
        }
    }

    fn seen(&self, snapshot: &Snapshot) -> Seen {
        let own = ObjectKey::of(snapshot);
        let source = &snapshot.spec.source;
        let claim = source.persistent_volume_claim_name.as_ref();
        let claim = claim.and_then(|claim| self.claims.get(&own.namespace, claim));
        let volume = claim
            .as_ref()
            .and_then(|claim| self.volumes.get("", volume_name(claim)?));
        let content = by_content(snapshot).into_iter().next();
        let content = content.and_then(|content| self.contents.get("", &content));
        let others = claim.as_ref().is_some_and(|claim| {
            let of = ObjectKey::of(claim.as_ref()).to_string();
            let all = self.snapshots.by_index(BY_CLAIM, &of);
            all.iter()
                .any(|other| ObjectKey::of(other.as_ref()) != own && plan::is_under_way(other))
        });
        let is_going = snapshot.metadata.deletion_timestamp.is_some();
        Seen {
            claim: claim.map(|found| PersistentVolumeClaim::clone(&found)),
            volume: volume.map(|found| PersistentVolume::clone(&found)),
            classes: self
                .classes
                .list()
                .iter()
                .map(|found| Class::clone(found))
                .collect(),
            content: content.map(|found| Content::clone(&found)),
            restoring: is_going && self.restoring(&own),
            others,
        }
    }

    /// Is a volume being made from the snapshot?
    fn restoring(&self, snapshot: &ObjectKey) -> bool {
        self.claims
            .in_namespace(&snapshot.namespace)
            .iter()
            .filter(|claim| {
                let from = super::source::of(claim_spec(claim));
                from.is_some_and(|from| from.is_snapshot() && from.name == snapshot.name)
            })
            .any(|claim| is_being_made(claim, |volume| self.volumes.get("", volume)))
    }

    async fn snapshot(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        for _ in 0..STEPS {
            let Some(snapshot) = self.snapshots.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let seen = self.seen(&snapshot);
            match plan::snapshot(&snapshot, &seen) {
                Step::Stay => return Ok(Outcome::Done),
                Step::Await(told) => {
                    self.tell(snapshot.as_ref(), &told);
                    return Ok(Outcome::After(LOOK));
                }
                Step::Fail(told) => {
                    self.fail(&snapshot, &told).await?;
                    return Ok(Outcome::Done);
                }
                Step::Class(class) => {
                    let patch = json!({"spec": {"volumeSnapshotClassName": class}});
                    self.patch_snapshot(&snapshot, patch).await?;
                }
                Step::Finalizers(finalizers) => {
                    let patch = json!({"metadata": {"finalizers": finalizers}});
                    self.patch_snapshot(&snapshot, patch).await?;
                }
                Step::Claim(finalizers) => {
                    let Some(claim) = &seen.claim else {
                        return Ok(Outcome::Done);
                    };
                    let api: Api<PersistentVolumeClaim> =
                        Api::namespaced(self.context.client.clone(), &key.namespace);
                    let patch = json!({"metadata": {"finalizers": finalizers}});
                    patched(&api, &self.claims, claim, patch).await?;
                }
                Step::Mark => {
                    let Some(volume) = &seen.volume else {
                        return Ok(Outcome::Done);
                    };
                    let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
                    let patch = json!({"metadata": {"annotations": {SNAPSHOTS: "true"}}});
                    patched(&api, &self.volumes, volume, patch).await?;
                }
                Step::Create(content) => self.create(content).await?,
                Step::Content(patch) => {
                    let Some(content) = &seen.content else {
                        return Ok(Outcome::Done);
                    };
                    patched(&self.contents_api(), &self.contents, content, patch).await?;
                }
                Step::Delete => {
                    let Some(content) = &seen.content else {
                        return Ok(Outcome::Done);
                    };
                    self.delete(content).await?;
                }
                Step::Status(status, told) => {
                    self.status(&snapshot, status).await?;
                    for told in &told {
                        self.tell(snapshot.as_ref(), told);
                    }
                }
            }
        }
        Ok(Outcome::Done)
    }

    fn contents_api(&self) -> Api<Content> {
        Api::all(self.context.client.clone())
    }

    async fn patch_snapshot(
        &self,
        snapshot: &Snapshot,
        patch: Value,
    ) -> Result<(), ReconcileError> {
        let namespace = snapshot.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Snapshot> = Api::namespaced(self.context.client.clone(), namespace);
        patched(&api, &self.snapshots, snapshot, patch).await
    }

    async fn status(&self, snapshot: &Snapshot, status: Value) -> Result<(), ReconcileError> {
        let meta = &snapshot.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let api: Api<Snapshot> = Api::namespaced(self.context.client.clone(), namespace);
        let patch = json!({
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
            "status": status,
        });
        let params = PatchParams::default();
        let patch = Patch::Merge(&patch);
        match api.patch_status(name(meta), &params, &patch).await {
            Ok(written) => {
                self.snapshots.note_written(written);
                Ok(())
            }
            Err(error) if errors::is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Says why there is no snapshot, once.
    async fn fail(&self, snapshot: &Snapshot, told: &Told) -> Result<(), ReconcileError> {
        let status = snapshot.status.as_ref();
        let before = status.and_then(|status| status.error.as_ref()?.message.as_deref());
        if before == Some(told.message.as_str()) {
            return Ok(());
        }
        let error = json!({"message": told.message, "time": self.context.clock.now()});
        let status = json!({"readyToUse": false, "error": error});
        self.status(snapshot, status).await?;
        self.tell(snapshot, told);
        Ok(())
    }

    async fn create(&self, content: Value) -> Result<(), ReconcileError> {
        let content: Content = serde_json::from_value(content).map_err(kube::Error::SerdeError)?;
        match self
            .contents_api()
            .create(&PostParams::default(), &content)
            .await
        {
            Ok(made) => {
                self.contents.note_written(made);
                Ok(())
            }
            // Its name is the snapshot's uid: it was made for this one, and the view will see it.
            Err(error) if errors::is_already_exists(&error) => {
                let found = self.contents_api().get(name(&content.metadata)).await?;
                self.contents.note_written(found);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, content: &Content) -> Result<(), ReconcileError> {
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: content.metadata.uid.clone(),
            // Somebody may just have asked to keep it.
            resource_version: content.metadata.resource_version.clone(),
        });
        let api = self.contents_api();
        match api.delete(name(&content.metadata), &params).await {
            Ok(answer) => self.contents.note_delete_answer(content, answer.left()),
            Err(error) if errors::is_not_found(&error) => self.contents.note_deleted(content),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn content(&self, own: &str) -> Result<Outcome, ReconcileError> {
        let Some(content) = self.contents.get("", own) else {
            return Ok(Outcome::Done);
        };
        let of = &content.spec.volume_snapshot_ref;
        let (namespace, of) = (of.namespace.as_deref(), of.name.as_deref());
        let snapshot = self
            .snapshots
            .get(namespace.unwrap_or_default(), of.unwrap_or_default());
        let labels = crate::claim::labels(&content.metadata);
        let node = labels
            .get(NODE_LABEL)
            .map(String::as_str)
            .unwrap_or_default();
        let exists = self.nodes.get("", node).is_some();
        let now = self.context.clock.now();
        let api = self.contents_api();
        match plan::content_step(&content, snapshot.as_deref(), exists, now) {
            ContentStep::Stay => Ok(Outcome::Done),
            ContentStep::Await => Ok(Outcome::After(LOOK)),
            ContentStep::Finalizers(left) => {
                let patch = json!({"metadata": {"finalizers": left}});
                patched(&api, &self.contents, &content, patch).await?;
                Ok(Outcome::After(LOOK))
            }
            ContentStep::LetGo(left) => {
                let nodes: Api<Node> = Api::all(self.context.client.clone());
                if !node.is_empty() && nodes.get_opt(node).await?.is_some() {
                    return Ok(Outcome::After(LOOK));
                }
                let text = format!(
                    "node {node:?} does not exist any more: the snapshot is let go, and its \
                     directory stays on that machine"
                );
                self.tell(content.as_ref(), &Told::warning("SnapshotLeftBehind", text));
                let patch = json!({"metadata": {"finalizers": left}});
                patched(&api, &self.contents, &content, patch).await?;
                Ok(Outcome::Done)
            }
        }
    }

    fn tell<K: kube::Resource<DynamicType = ()>>(&self, object: &K, told: &Told) {
        let kind = if told.warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        let recorder = &self.context.recorder;
        recorder.tell(object, kind, told.reason, told.message.as_str());
    }
}

/// A claim with a source whose volume is not whole yet.
pub(super) fn is_being_made(
    claim: &PersistentVolumeClaim,
    volume: impl Fn(&str) -> Option<Arc<PersistentVolume>>,
) -> bool {
    if claim.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let Some(bound) = volume_name(claim) else {
        return true;
    };
    let found = volume(bound);
    // Of a volume that is somebody else's nothing is known, and nothing is to be done.
    found.is_some_and(|volume| {
        facts::annotation(&volume.metadata, facts::PROVISIONED_BY) == Some(PROVISIONER)
            && annotation(&volume.metadata, MADE).is_none()
    })
}

/// A merge patch at the revision the object was seen at; what is gone is gone.
async fn patched<K>(
    api: &Api<K>,
    view: &View<K>,
    seen: &K,
    mut patch: Value,
) -> Result<(), ReconcileError>
where
    K: evenkeel_client::Kind + kube::Resource<DynamicType = ()> + serde::Serialize,
{
    let meta = seen.meta();
    if let Some(fields) = patch.as_object_mut() {
        let into = fields.entry("metadata").or_insert_with(|| json!({}));
        into["uid"] = json!(meta.uid);
        into["resourceVersion"] = json!(meta.resource_version);
    }
    let params = PatchParams::default();
    match api.patch(name(meta), &params, &Patch::Merge(&patch)).await {
        Ok(written) => {
            // What lost its last finalizer is gone with this write.
            if written.meta().deletion_timestamp.is_some()
                && written.meta().finalizers.iter().flatten().next().is_none()
            {
                view.note_deleted(seen);
            } else {
                view.note_written(written);
            }
            Ok(())
        }
        Err(error) if errors::is_not_found(&error) => {
            view.note_deleted(seen);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// The class that is made at start: the default one of this provisioner.
#[must_use]
pub fn class() -> Class {
    let mut class = Class {
        driver: PROVISIONER.to_owned(),
        deletion_policy: "Delete".to_owned(),
        ..Class::default()
    };
    class.metadata.name = Some(CLASS.to_owned());
    facts::annotate(&mut class.metadata, plan::DEFAULT_CLASS, "true");
    class
}

/// Definitions and the class that are not there are made; those that are there stay as they are.
async fn define(context: &LoopContext) -> Result<(), kube::Error> {
    for definition in kinds::definitions() {
        let request =
            http::Request::post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(definition.to_string().into_bytes())
                .map_err(kube::Error::HttpError)?;
        match context.client.request::<Value>(request).await {
            Err(error) if !errors::is_already_exists(&error) => return Err(error),
            _ => {}
        }
    }
    let classes: Api<Class> = Api::all(context.client.clone());
    match classes.create(&PostParams::default(), &class()).await {
        Err(error) if !errors::is_already_exists(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30), 1);
    while let Err(error) = define(&context).await {
        let error = errors::message(&error);
        tracing::debug!(error, "the kinds of snapshots can't be made yet");
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
    let snapshots = context.views.of::<Snapshot>();
    tokio::select! {
        () = context.shutdown.cancelled() => return,
        () = first(&context, &snapshots) => {}
    }
    let contents = context.views.of::<Content>();
    let classes = context.views.of::<Class>();
    let claims = context.views.of::<PersistentVolumeClaim>();
    let volumes = context.views.of::<PersistentVolume>();
    let nodes = context.views.of::<Node>();
    snapshots.add_index(BY_CLAIM, by_claim);
    snapshots.add_index(BY_CONTENT, by_content);
    let synced = async {
        contents.synced().await;
        classes.synced().await;
        claims.synced().await;
        volumes.synced().await;
        nodes.synced().await;
    };
    tokio::select! {
        () = context.shutdown.cancelled() => return,
        () = synced => {}
    }
    let queue = WorkQueue::new(context.metrics.of(NAME));
    {
        let queue = Arc::clone(&queue);
        let other = Arc::clone(&snapshots);
        snapshots.on_change(move |change| {
            queue.add(Key::Snapshot(change.key.clone()));
            for side in change.sides() {
                for content in by_content(side) {
                    queue.add(Key::Content(content));
                }
            }
            // One that is gone may have been the last that its claim was kept for.
            if change.new.is_none() {
                for claim in by_claim(change.latest()) {
                    for snapshot in other.by_index(BY_CLAIM, &claim) {
                        queue.add(Key::Snapshot(ObjectKey::of(snapshot.as_ref())));
                    }
                }
            }
        });
    }
    {
        let (queue, snapshots) = (Arc::clone(&queue), Arc::clone(&snapshots));
        contents.on_change(move |change| {
            queue.add(Key::Content(change.key.name.clone()));
            for snapshot in snapshots.by_index(BY_CONTENT, &change.key.name) {
                queue.add(Key::Snapshot(ObjectKey::of(snapshot.as_ref())));
            }
        });
    }
    {
        let (queue, snapshots) = (Arc::clone(&queue), Arc::clone(&snapshots));
        classes.on_change(move |_| {
            for snapshot in snapshots.list() {
                queue.add(Key::Snapshot(ObjectKey::of(snapshot.as_ref())));
            }
        });
    }
    {
        let (queue, snapshots) = (Arc::clone(&queue), Arc::clone(&snapshots));
        claims.on_change(move |change| {
            for snapshot in snapshots.by_index(BY_CLAIM, &change.key.to_string()) {
                queue.add(Key::Snapshot(ObjectKey::of(snapshot.as_ref())));
            }
            // A volume has been made from a snapshot, or is no longer wanted.
            if let Some(from) = super::source::of(claim_spec(change.latest()))
                && from.is_snapshot()
            {
                let key = ObjectKey::new(change.key.namespace.clone(), from.name);
                queue.add(Key::Snapshot(key));
            }
        });
    }
    {
        let (queue, claims) = (Arc::clone(&queue), Arc::clone(&claims));
        volumes.on_change(move |change| {
            let held = facts::held_for(change.latest()).map(|(_, key)| key);
            let claim = held.and_then(|key| claims.get_key(&key));
            let Some(claim) = claim else { return };
            if let Some(from) = super::source::of(claim_spec(&claim))
                && from.is_snapshot()
            {
                let namespace = claim.metadata.namespace.clone().unwrap_or_default();
                queue.add(Key::Snapshot(ObjectKey::new(namespace, from.name)));
            }
        });
    }
    let reconciler = Reconciler {
        snapshots,
        contents,
        classes,
        claims,
        volumes,
        nodes,
        context: context.clone(),
    };
    run_loop(NAME, 4, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

/// Waits until somebody uses the kinds.
async fn first(context: &LoopContext, snapshots: &View<Snapshot>) {
    snapshots.synced().await;
    let contents: Api<Content> = Api::all(context.client.clone());
    let any = contents.list(&ListParams::default().limit(1)).await;
    if !snapshots.is_empty() || any.is_ok_and(|found| !found.items.is_empty()) {
        return;
    }
    let woken = Arc::new(tokio::sync::Notify::new());
    {
        let woken = Arc::clone(&woken);
        snapshots.on_change(move |_| woken.notify_one());
    }
    while snapshots.is_empty() {
        woken.notified().await;
    }
}
