//! Snapshots of volumes that are directories of this node: made when the loop in the control plane
//! asks, removed when they are given up, kept otherwise.
//!
//! The loop asks through the content object of a snapshot, which bears this node's label. A snapshot
//! is a directory with a tree and a few words about it; it gets its name when both are whole and
//! on the disk. Nobody looks for such objects before a volume says that snapshots are made of it,
//! or there are some on the disk already.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::local_volume::{
    BEING_DELETED, CONTENT_FINALIZER, FINALIZER, NODE_LABEL, SIZE, SNAPSHOT_GROUP, parse_handle,
    snapshot_handle,
};
use evenkeel_client::{Target, Update, follow};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::atomic::text;
use super::local::{COMING, Job, LocalVolumes, SNAPSHOT_DIR, TREE, beside, remove_tree, sync};
use super::{blocking, release};
use crate::context::Context;
use crate::events::Kind;

/// What could not be done is tried again so often.
const RETRY: Duration = Duration::from_secs(10);
/// In the directory of a snapshot: what is known of it.
const ABOUT: &str = "about.json";

/// What is known of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    /// When it was made, in nanoseconds since 1970.
    created: i64,
    /// Bytes that a volume made from it needs.
    size: i64,
    /// The files held still while they were copied.
    still: bool,
}

/// What is to be done about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Stay,
    /// Make it of the volume of this name.
    Make(String),
    /// Say what is known of the one of this name, and that it is there.
    Show(String),
    /// Remove the one of this name, and let the object go.
    Remove(String),
    /// Let the object go; what there is stays.
    LetGo,
}

fn spec<'c>(content: &'c DynamicObject, path: &str) -> Option<&'c str> {
    content.data["spec"].pointer(path)?.as_str()
}

fn holds(content: &DynamicObject, finalizer: &str) -> bool {
    let mut finalizers = content.metadata.finalizers.iter().flatten();
    finalizers.any(|it| it == finalizer)
}

fn annotation<'c>(content: &'c DynamicObject, name: &str) -> Option<&'c str> {
    let annotations = content.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

fn step(content: &DynamicObject, node: &str) -> Step {
    let own = content.metadata.name.clone().unwrap_or_default();
    let given = spec(content, "/source/snapshotHandle");
    let given = match given.map(parse_handle) {
        None => None,
        Some(Some((of, name))) if of == node => Some(name.to_owned()),
        // Another node's, whatever the label says.
        Some(_) => return Step::Stay,
    };
    if content.metadata.deletion_timestamp.is_none() {
        return match (given, spec(content, "/source/volumeHandle")) {
            (Some(name), _) => Step::Show(name),
            // Made once, it is never made again: what the volume holds by now is something else.
            (None, Some(_)) if content.data["status"]["snapshotHandle"].is_string() => {
                Step::Show(own)
            }
            (None, Some(volume)) => Step::Make(volume.to_owned()),
            (None, None) => Step::Stay,
        };
    }
    if !holds(content, FINALIZER) || holds(content, CONTENT_FINALIZER) {
        return Step::Stay;
    }
    let given_up = annotation(content, BEING_DELETED) == Some("yes");
    if given_up && spec(content, "/deletionPolicy") == Some("Delete") {
        Step::Remove(given.unwrap_or(own))
    } else {
        Step::LetGo
    }
}

struct Snapshots<'a> {
    context: &'a Context,
    volumes: &'a LocalVolumes,
    api: Api<DynamicObject>,
}

/// How the work on one is called.
fn key(name: &str) -> String {
    format!("{SNAPSHOT_DIR}/{name}")
}

impl Snapshots<'_> {
    async fn act(&self, content: &DynamicObject, job: Arc<Job>) -> Result<(), String> {
        match step(content, self.volumes.node()) {
            Step::Stay => Ok(()),
            Step::Show(name) => {
                let about = self.about(&name).await?;
                self.ready(content, &name, about).await
            }
            Step::Make(volume) => {
                let name = content.metadata.name.clone().unwrap_or_default();
                let about = self.make(content, &job, &name, &volume).await?;
                self.ready(content, &name, about).await
            }
            Step::Remove(name) => {
                let path = self.volumes.snapshot(&name)?;
                let root = self.volumes.root().join(SNAPSHOT_DIR);
                self.volumes.remove_at(&key(&name), root, path).await?;
                info!(snapshot = name, "snapshot removed");
                self.let_go(content).await
            }
            Step::LetGo => self.let_go(content).await,
        }
    }

    async fn about(&self, name: &str) -> Result<About, String> {
        let path = self.volumes.snapshot(name)?;
        blocking(move || read(&path)).await?.ok_or_else(|| {
            format!("snapshot {name:?} is not on this node: its directory is not there")
        })
    }

    async fn make(
        &self,
        content: &DynamicObject,
        job: &Arc<Job>,
        name: &str,
        volume: &str,
    ) -> Result<About, String> {
        let _one = job.one.lock().await;
        if job.is_stopped() {
            return Err("the snapshot is being removed".to_owned());
        }
        let path = self.volumes.snapshot(name)?;
        let root = self.volumes.root().join(SNAPSHOT_DIR);
        let coming = beside(&root, COMING, path.file_name().unwrap_or_default());
        let (there, half, below) = (path.clone(), coming.clone(), root.clone());
        let made = blocking(move || {
            release::make_dir(&below, 0o700)?;
            let made = read(&there)?;
            if made.is_none() {
                remove_tree(&half)?;
                fs::create_dir(&half).map_err(|error| text(&half, &error))?;
            }
            Ok(made)
        })
        .await?;
        // Made by an agent that ended before it could say so.
        if let Some(about) = made {
            return Ok(about);
        }
        let source = self.volumes.existing(volume)?;
        let (copied, _) = self
            .volumes
            .copy(job, source, coming.join(TREE), None)
            .await?;
        let size = annotation(content, SIZE).and_then(|size| size.parse().ok());
        let about = About {
            created: i64::try_from(self.context.config.clock.now().as_nanosecond()).unwrap_or(0),
            size: size.unwrap_or_else(|| i64::try_from(copied.bytes).unwrap_or(i64::MAX)),
            still: copied.still,
        };
        blocking(move || {
            let words = coming.join(ABOUT);
            fs::write(&words, json!(about).to_string())
                .and_then(|()| fs::File::open(&words)?.sync_all())
                .map_err(|error| text(&words, &error))?;
            sync(&coming)?;
            fs::rename(&coming, &path).map_err(|error| text(&path, &error))?;
            sync(&root)
        })
        .await?;
        info!(
            snapshot = name,
            volume,
            still = about.still,
            "snapshot made"
        );
        if !about.still {
            let of = serde_json::from_value(content.data["spec"]["volumeSnapshotRef"].clone());
            let of: ObjectReference = of.unwrap_or_default();
            let text = "files changed while they were copied: the snapshot is not of one moment. \
                        Stop what writes to the volume, or have it write nothing for a moment, and \
                        make another one";
            let recorder = &self.context.recorder;
            recorder.record(of, Kind::Warning, "SnapshotNotQuiesced", text);
        }
        Ok(about)
    }

    async fn ready(&self, content: &DynamicObject, name: &str, about: About) -> Result<(), String> {
        let status = &content.data["status"];
        if status["readyToUse"] == true && status.get("error").is_none_or(Value::is_null) {
            return Ok(());
        }
        self.status(
            content,
            json!({
                "snapshotHandle": snapshot_handle(self.volumes.node(), name),
                "creationTime": about.created,
                "restoreSize": about.size,
                "readyToUse": true,
                "error": null,
            }),
        )
        .await
    }

    /// What could not be done is said in the status, once.
    async fn failed(&self, content: &DynamicObject, why: &str) {
        let status = &content.data["status"];
        if status["error"]["message"] == why && status["readyToUse"] == false {
            return;
        }
        let error = json!({"time": self.context.config.clock.now(), "message": why});
        let status = json!({"readyToUse": false, "error": error});
        if let Err(error) = self.status(content, status).await {
            warn!(error, "the status of a snapshot is not written");
        }
    }

    async fn status(&self, content: &DynamicObject, status: Value) -> Result<(), String> {
        let patch = json!({"metadata": {"uid": content.metadata.uid}, "status": status});
        let name = content.metadata.name.as_deref().unwrap_or_default();
        let params = PatchParams::default();
        let written = self
            .api
            .patch_status(name, &params, &Patch::Merge(&patch))
            .await;
        told(written)
    }

    async fn let_go(&self, content: &DynamicObject) -> Result<(), String> {
        let mut left = content.metadata.finalizers.clone().unwrap_or_default();
        left.retain(|it| it != FINALIZER);
        let patch = json!({"metadata": {
            "uid": content.metadata.uid,
            // The list is written whole: nobody may have changed it in between.
            "resourceVersion": content.metadata.resource_version,
            "finalizers": left,
        }});
        let name = content.metadata.name.as_deref().unwrap_or_default();
        let params = PatchParams::default();
        told(self.api.patch(name, &params, &Patch::Merge(&patch)).await)
    }
}

fn told(answer: Result<DynamicObject, kube::Error>) -> Result<(), String> {
    match answer {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        Err(kube::Error::Api(answer)) => Err(answer.message.clone()),
        Err(error) => Err(error.to_string()),
    }
}

/// What is known of the snapshot in a directory; `None` when there is none.
fn read(path: &Path) -> Result<Option<About>, String> {
    let words = path.join(ABOUT);
    let found = match fs::read_to_string(&words) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(text(&words, &error)),
    };
    if !path.join(TREE).is_dir() {
        return Ok(None);
    }
    let about = serde_json::from_str(&found);
    about
        .map(Some)
        .map_err(|error| format!("{}: {error}", words.display()))
}

/// Follows the snapshots of this node until the future is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    let volumes = &context.gatherer.local;
    let root = volumes.root().join(SNAPSHOT_DIR);
    if !root.is_dir() {
        volumes.snapshots.notified().await;
    }
    volumes.sweep(root, key).await;
    let kind = GroupVersionKind::gvk(SNAPSHOT_GROUP, "v1", "VolumeSnapshotContent");
    let resource = ApiResource::from_gvk_with_plural(&kind, "volumesnapshotcontents");
    let snapshots = Snapshots {
        context: &context,
        volumes,
        api: Api::all_with(volumes.client().clone(), &resource),
    };
    let target = Target {
        path: format!("/apis/{SNAPSHOT_GROUP}/v1/volumesnapshotcontents"),
        metadata_only: false,
        field_selector: None,
        label_selector: Some(format!("{NODE_LABEL}={}", volumes.node())),
    };
    let mut updates = follow::<DynamicObject>(volumes.client().clone(), target).boxed();
    let mut failed: HashMap<String, DynamicObject> = HashMap::new();
    let mut retry = tokio::time::interval(RETRY);
    let mut work = FuturesUnordered::new();
    loop {
        let due: Vec<DynamicObject> = tokio::select! {
            update = updates.next() => match update {
                Some(Update::All(contents)) => contents,
                Some(Update::Put(content)) => {
                    let name = content.metadata.name.clone().unwrap_or_default();
                    match failed.get_mut(&name) {
                        // What it says now may be the failure itself: the next try is soon.
                        Some(known) if content.metadata.deletion_timestamp.is_none() => {
                            *known = content;
                            continue;
                        }
                        _ => vec![content],
                    }
                }
                Some(Update::Gone(content)) => {
                    failed.remove(content.metadata.name.as_deref().unwrap_or_default());
                    continue;
                }
                None => return,
            },
            Some((content, done)) = work.next(), if !work.is_empty() => {
                let content: DynamicObject = content;
                let name = content.metadata.name.clone().unwrap_or_default();
                match done {
                    Ok(()) => {
                        failed.remove(&name);
                    }
                    Err(why) => {
                        let why: String = why;
                        warn!(snapshot = name, why, "snapshot not looked after");
                        snapshots.failed(&content, &why).await;
                        failed.insert(name, content);
                    }
                }
                continue;
            }
            _ = retry.tick(), if !failed.is_empty() => failed.values().cloned().collect(),
        };
        for content in due {
            // Taken now: a removal that comes next finds it.
            let name = content.metadata.name.clone().unwrap_or_default();
            let job = volumes.job(&key(&name));
            let snapshots = &snapshots;
            work.push(async move {
                let done = snapshots.act(&content, Arc::clone(&job)).await;
                let going = content.metadata.deletion_timestamp.is_some();
                // Given up because it is being removed: nothing to try again.
                if job.is_stopped() && !going {
                    return (content, Ok(()));
                }
                (content, done)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(metadata: Value, spec: Value, status: Value) -> DynamicObject {
        let mut content = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": "snapcontent-1", "finalizers": [FINALIZER]},
            "spec": {"deletionPolicy": "Delete", "source": {"volumeHandle": "pvc-1"}},
            "status": status,
        });
        for (part, more) in [("metadata", metadata), ("spec", spec)] {
            for (name, value) in more.as_object().expect("fields") {
                content[part][name] = value.clone();
            }
        }
        serde_json::from_value(content).expect("a content")
    }

    #[test]
    fn a_snapshot_is_made_shown_and_removed_when_all_agree() {
        let gone = "2026-01-01T00:00:00Z";
        let given_up = json!({"deletionTimestamp": gone, "annotations": {BEING_DELETED: "yes"}});
        let handle = |handle: &str| json!({"source": {"snapshotHandle": handle}});
        let none = || json!({});
        let name = |name: &str| name.to_owned();
        for (metadata, spec, status, wanted) in [
            (none(), none(), none(), Step::Make(name("pvc-1"))),
            (
                none(),
                none(),
                json!({"readyToUse": false, "snapshotHandle": "n/snapcontent-1"}),
                Step::Show(name("snapcontent-1")),
            ),
            (none(), handle("n/old"), none(), Step::Show(name("old"))),
            (none(), handle("other/old"), none(), Step::Stay),
            (none(), handle("n/../etc"), none(), Step::Stay),
            (
                given_up.clone(),
                none(),
                none(),
                Step::Remove(name("snapcontent-1")),
            ),
            (
                given_up.clone(),
                handle("n/old"),
                none(),
                Step::Remove(name("old")),
            ),
            (
                given_up.clone(),
                json!({"deletionPolicy": "Retain"}),
                none(),
                Step::LetGo,
            ),
            // Nobody has given the snapshot up: whoever deletes the object keeps the data.
            (
                json!({"deletionTimestamp": gone}),
                none(),
                none(),
                Step::LetGo,
            ),
            (
                json!({"deletionTimestamp": gone, "annotations": {BEING_DELETED: "yes"},
                    "finalizers": [FINALIZER, CONTENT_FINALIZER]}),
                none(),
                none(),
                Step::Stay,
            ),
            (
                json!({"deletionTimestamp": gone, "finalizers": []}),
                none(),
                none(),
                Step::Stay,
            ),
        ] {
            let found = content(metadata.clone(), spec.clone(), status);
            assert_eq!(step(&found, "n"), wanted, "{metadata} {spec}");
        }
    }

    #[test]
    fn half_a_snapshot_is_none() {
        let home = tempfile::tempdir().expect("a directory");
        assert_eq!(read(&home.path().join("none")), Ok(None));
        let about = About {
            created: 1,
            size: 2,
            still: true,
        };
        fs::write(home.path().join(ABOUT), json!(about).to_string()).expect("a file");
        assert_eq!(read(home.path()), Ok(None), "its tree is not there");
        fs::create_dir(home.path().join(TREE)).expect("a directory");
        assert_eq!(read(home.path()), Ok(Some(about)));
    }
}
