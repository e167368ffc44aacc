//! Volumes that are directories of this node: made when the built-in provisioner asks, removed
//! when their deletion is due, and never otherwise touched.
//!
//! A volume says in an annotation that its directory has been made. From then on a directory that
//! is missing is an error and not made again: an empty one in its place would look like the data
//! was gone. What is removed is one directory, by the volume's own name, directly below the root
//! that this agent keeps them in, with nothing mounted in it. One that is a copy of another volume
//! or of a snapshot is made beside its place and gets its name when it is whole.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evenkeel_api::local_volume::{
    FINALIZER, FROM_SNAPSHOT, FROM_VOLUME, MADE, NODE_LABEL, QUOTA, QUOTA_NONE, QUOTA_PROJECT,
    SNAPSHOTS, SOURCE,
};
use evenkeel_api::quantity::Quantity;
use evenkeel_client::{Api, Target, Update, follow};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume};
use kube::api::{Patch, PatchParams};
use kube::{Client, Resource as _};
use serde_json::json;
use tracing::{info, warn};

use super::atomic::{set_mode, text};
use super::copy::{Copied, copy_tree};
use super::{blocking, quota, release};
use crate::context::Context;
use crate::events::Kind;

/// What could not be done is tried again so often.
const RETRY: Duration = Duration::from_secs(10);
/// Before the name of a directory that is being removed.
const GOING: &str = ".removing-";
/// Before the name of a directory that is not whole yet.
pub(super) const COMING: &str = ".making-";
/// Below the root: where snapshots lie, each with its tree in a directory of its own.
pub(super) const SNAPSHOT_DIR: &str = ".snapshots";
/// In the directory of a snapshot: its tree.
pub(super) const TREE: &str = "data";
/// Keeps a volume that a claim is bound to.
const PROTECTION: &str = "kubernetes.io/pv-protection";

/// The directories of one node.
pub struct LocalVolumes {
    root: PathBuf,
    node: String,
    client: Client,
    /// What is worked on, by the name of the volume or the path of the snapshot: the watch and a
    /// pod may want the same.
    jobs: parking_lot::Mutex<HashMap<String, Arc<Job>>>,
    /// What is being read by a copy.
    read: Arc<parking_lot::Mutex<Vec<PathBuf>>>,
    /// Numbers of projects are given one at a time.
    numbers: Arc<parking_lot::Mutex<()>>,
    /// A volume says that snapshots are made of it.
    pub(super) snapshots: tokio::sync::Notify,
}

/// Work on one directory.
#[derive(Debug, Default)]
pub(super) struct Job {
    pub(super) one: tokio::sync::Mutex<()>,
    /// The directory is to go: whoever makes it gives up.
    stop: AtomicBool,
}

impl Job {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Keeps a directory from being removed while it is copied.
struct Reading {
    all: Arc<parking_lot::Mutex<Vec<PathBuf>>>,
    path: PathBuf,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(at) = all.iter().position(|path| *path == self.path) {
            all.swap_remove(at);
        }
    }
}

impl std::fmt::Debug for LocalVolumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalVolumes")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// What is to be done about a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Stay,
    /// Make it, or give it another limit.
    Make,
    /// Remove it and let the volume go.
    Remove,
    /// Let the volume go; the directory stays.
    LetGo,
}

fn annotation<'v>(volume: &'v PersistentVolume, name: &str) -> Option<&'v str> {
    volume
        .metadata
        .annotations
        .as_ref()?
        .get(name)
        .map(String::as_str)
}

fn capacity(volume: &PersistentVolume) -> Option<String> {
    let capacity = volume.spec.as_ref()?.capacity.as_ref()?;
    capacity.get("storage").map(|size| size.0.clone())
}

/// Is the volume one that the built-in provisioner made on this node?
fn is_ours(volume: &PersistentVolume, node: &str) -> bool {
    let labels = volume.metadata.labels.as_ref();
    labels
        .and_then(|all| all.get(NODE_LABEL))
        .is_some_and(|it| it == node)
        && (annotation(volume, MADE).is_some() || holds(volume, FINALIZER))
}

fn holds(volume: &PersistentVolume, finalizer: &str) -> bool {
    let mut finalizers = volume.metadata.finalizers.iter().flatten();
    finalizers.any(|it| it == finalizer)
}

fn step(volume: &PersistentVolume) -> Step {
    if volume.metadata.deletion_timestamp.is_none() {
        let made = annotation(volume, MADE);
        return if made == capacity(volume).as_deref() {
            Step::Stay
        } else {
            Step::Make
        };
    }
    if !holds(volume, FINALIZER) || holds(volume, PROTECTION) {
        return Step::Stay;
    }
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|it| it.persistent_volume_reclaim_policy.as_deref());
    let phase = volume.status.as_ref().and_then(|it| it.phase.as_deref());
    // Only what a claim has given up is removed; whoever deletes a volume that waits for a claim
    // keeps its data.
    if policy == Some("Delete") && matches!(phase, Some("Released" | "Failed")) {
        Step::Remove
    } else {
        Step::LetGo
    }
}

impl LocalVolumes {
    /// Below `root`, which is made when the first volume is.
    #[must_use]
    pub fn new(root: PathBuf, node: String, client: Client) -> Self {
        Self {
            root,
            node,
            client,
            jobs: parking_lot::Mutex::default(),
            read: Arc::default(),
            numbers: Arc::default(),
            snapshots: tokio::sync::Notify::new(),
        }
    }

    pub(super) fn job(&self, name: &str) -> Arc<Job> {
        Arc::clone(self.jobs.lock().entry(name.to_owned()).or_default())
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// Where the tree of a snapshot lies.
    pub(super) fn snapshot(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.root.join(SNAPSHOT_DIR).join(name);
        if path.file_name() != Some(OsStr::new(name)) || name.starts_with('.') {
            return Err(format!("{name:?} is no name of a snapshot"));
        }
        Ok(path)
    }

    /// Where a volume of this name lies, and whether there is one.
    pub(super) fn existing(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.root.join(name);
        let plain = path.file_name() == Some(OsStr::new(name)) && !name.starts_with('.');
        if !plain || !path.is_dir() {
            return Err(format!("there is no volume {name:?} on this node"));
        }
        Ok(path)
    }

    /// What a volume is to be a copy of.
    fn source(&self, volume: &PersistentVolume) -> Result<Option<PathBuf>, String> {
        let Some(source) = annotation(volume, SOURCE) else {
            return Ok(None);
        };
        if let Some(name) = source.strip_prefix(FROM_VOLUME) {
            return self.existing(name).map(Some);
        }
        let Some(name) = source.strip_prefix(FROM_SNAPSHOT) else {
            return Err(format!("source {source:?} is not known to this node"));
        };
        let tree = self.snapshot(name)?.join(TREE);
        if !tree.is_dir() {
            return Err(format!("there is no snapshot {name:?} on this node"));
        }
        Ok(Some(tree))
    }

    /// Copies a directory to a place that is not there yet; `bytes` limits what it may hold.
    pub(super) async fn copy(
        &self,
        job: &Arc<Job>,
        source: PathBuf,
        target: PathBuf,
        bytes: Option<u64>,
    ) -> Result<(Copied, bool), String> {
        let reading = Reading {
            all: Arc::clone(&self.read),
            path: source.clone(),
        };
        self.read.lock().push(source.clone());
        let (job, numbers) = (Arc::clone(job), Arc::clone(&self.numbers));
        blocking(move || {
            let _reading = reading;
            let mut limited = false;
            let prepare = |made: &Path| {
                if let Some(bytes) = bytes {
                    let _one = numbers.lock();
                    limited = quota::limit(made, bytes)?;
                }
                Ok(())
            };
            let copied = copy_tree(&source, &target, prepare, &job.stop)?;
            Ok((copied, limited))
        })
        .await
    }

    /// Removes one directory of the agent's, once nobody copies it or makes it.
    pub(super) async fn remove_at(
        &self,
        key: &str,
        root: PathBuf,
        at: PathBuf,
    ) -> Result<(), String> {
        let job = self.job(key);
        job.stop.store(true, Ordering::Relaxed);
        let _one = job.one.lock().await;
        if self.read.lock().iter().any(|read| read.starts_with(&at)) {
            return Err(format!("{} is being copied", at.display()));
        }
        let removed = blocking(move || {
            if let Some(name) = at.file_name() {
                remove_tree(&beside(&root, COMING, name))?;
            }
            remove(&root, &at)
        })
        .await;
        self.jobs.lock().remove(key);
        removed
    }

    /// Removes what an agent that ended has left half made.
    pub(super) async fn sweep(&self, root: PathBuf, key: impl Fn(&str) -> String) {
        let Ok(entries) = fs::read_dir(&root) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(of) = name.to_str().and_then(|name| name.strip_prefix(COMING)) else {
                continue;
            };
            let job = self.job(&key(of));
            let _one = job.one.lock().await;
            let path = entry.path();
            if let Err(why) = blocking(move || remove_tree(&path)).await {
                warn!(why, "what is left of a copy is not removed");
            }
        }
    }

    /// Where they are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a volume, if the volume says what this agent would have said.
    fn directory(&self, volume: &PersistentVolume) -> Result<PathBuf, String> {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let spec = volume.spec.as_ref();
        let path = spec
            .and_then(|spec| spec.local.as_ref())
            .map(|local| local.path.as_str());
        let expected = self.root.join(name);
        let plain = expected.file_name() == Some(OsStr::new(name)) && !name.starts_with('.');
        if !plain || path.map(Path::new) != Some(expected.as_path()) {
            return Err(format!(
                "volume {name:?} does not lie at {}, where this node keeps its volumes",
                expected.display()
            ));
        }
        Ok(expected)
    }

    /// The directory of a volume of this node, made now if it has not been; `None` for a volume
    /// that is somebody else's.
    ///
    /// # Errors
    /// It can't be made, or has been made and is not there.
    pub async fn ensure(&self, volume: &PersistentVolume) -> Result<Option<PathBuf>, String> {
        if !is_ours(volume, &self.node) {
            return Ok(None);
        }
        let path = self.directory(volume)?;
        if step(volume) == Step::Make {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            self.make(self.job(name), volume, &path).await?;
        }
        if !path.is_dir() {
            return Err(format!("path \"{}\" does not exist", path.display()));
        }
        Ok(Some(path))
    }

    async fn make(
        &self,
        job: Arc<Job>,
        volume: &PersistentVolume,
        path: &Path,
    ) -> Result<(), String> {
        let _one = job.one.lock().await;
        if job.is_stopped() {
            return Err("the volume is being removed".to_owned());
        }
        let size = capacity(volume).unwrap_or_default();
        let bytes = size.parse::<Quantity>().map_or(0, |size| size.units());
        let bytes = u64::try_from(bytes).unwrap_or(0);
        let fresh = annotation(volume, MADE).is_none();
        let is_copy = annotation(volume, SOURCE).is_some();
        if fresh && is_copy && !path.is_dir() {
            self.make_copy(&job, volume, path, bytes).await?;
        }
        let (root, at) = (self.root.clone(), path.to_owned());
        let numbers = Arc::clone(&self.numbers);
        let limited = blocking(move || {
            if fresh && !is_copy {
                release::make_dir(&root, 0o711)?;
                match fs::create_dir(&at) {
                    Ok(()) => {}
                    // Made by an agent that ended before it could say so.
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(text(&at, &error)),
                }
                // Any user of any image writes to it; the directory above is the agent's alone.
                set_mode(&at, 0o777)?;
                sync(&root)?;
            }
            let _one = numbers.lock();
            quota::limit(&at, bytes)
        })
        .await?;
        let how = if limited { QUOTA_PROJECT } else { QUOTA_NONE };
        let patch = json!({"metadata": {
            "uid": volume.metadata.uid,
            "annotations": {MADE: size, QUOTA: how},
        }});
        self.patch(volume, &patch).await?;
        info!(
            volume = volume.metadata.name,
            size,
            quota = how,
            "volume made"
        );
        Ok(())
    }

    /// A whole copy takes its place at once: what lies there is never half of one.
    async fn make_copy(
        &self,
        job: &Arc<Job>,
        volume: &PersistentVolume,
        path: &Path,
        bytes: u64,
    ) -> Result<(), String> {
        let Some(source) = self.source(volume)? else {
            return Ok(());
        };
        let name = path.file_name().unwrap_or_default();
        let coming = beside(&self.root, COMING, name);
        let half = coming.clone();
        blocking(move || remove_tree(&half)).await?;
        let (copied, _) = self.copy(job, source, coming.clone(), Some(bytes)).await?;
        if !copied.still {
            warn!(
                volume = volume.metadata.name,
                "files changed while they were copied"
            );
        }
        let (root, at) = (self.root.clone(), path.to_owned());
        blocking(move || {
            fs::rename(&coming, &at).map_err(|error| text(&at, &error))?;
            sync(&root)
        })
        .await
    }

    async fn patch(
        &self,
        volume: &PersistentVolume,
        patch: &serde_json::Value,
    ) -> Result<(), String> {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        match api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            Err(kube::Error::Api(answer)) => Err(answer.message.clone()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn let_go(&self, volume: &PersistentVolume) -> Result<(), String> {
        let mut left = volume.metadata.finalizers.clone().unwrap_or_default();
        left.retain(|it| it != FINALIZER);
        let patch = json!({"metadata": {
            "uid": volume.metadata.uid,
            // The list is written whole: nobody may have changed it in between.
            "resourceVersion": volume.metadata.resource_version,
            "finalizers": left,
        }});
        self.patch(volume, &patch).await
    }

    async fn remove(&self, volume: &PersistentVolume) -> Result<(), String> {
        let path = self.directory(volume)?;
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        self.remove_at(name, self.root.clone(), path).await
    }

    async fn act(&self, volume: &PersistentVolume) -> Result<(), String> {
        match step(volume) {
            Step::Stay => Ok(()),
            Step::Make => {
                let path = self.directory(volume)?;
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                self.make(self.job(name), volume, &path).await
            }
            Step::Remove => {
                self.remove(volume).await?;
                info!(
                    volume = volume.metadata.name,
                    "volume removed with its data"
                );
                self.let_go(volume).await
            }
            Step::LetGo => {
                info!(
                    volume = volume.metadata.name,
                    "volume let go; its data stays"
                );
                self.let_go(volume).await
            }
        }
    }
}

/// Removes a directory directly below `root`: renamed first, so that one half removed is never
/// taken for a volume.
fn remove(root: &Path, path: &Path) -> Result<(), String> {
    let Some(name) = path.file_name() else {
        return Err(format!("{} is no volume", path.display()));
    };
    let going = beside(root, GOING, name);
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            // A mount would lead to files that are not the volume's.
            if let Some(mounted) = release::mounts_below(path)?.first() {
                return Err(format!("{} is mounted there", mounted.display()));
            }
            remove_tree(&going)?;
            fs::rename(path, &going).map_err(|error| text(path, &error))?;
        }
        Ok(_) => return Err(format!("{} is no directory", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(text(path, &error)),
    }
    remove_tree(&going)
}

/// The name with something before it, in the same directory.
pub(super) fn beside(root: &Path, before: &str, name: &OsStr) -> PathBuf {
    let mut other = std::ffi::OsString::from(before);
    other.push(name);
    root.join(other)
}

/// Makes the names in a directory last.
pub(super) fn sync(directory: &Path) -> Result<(), String> {
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| text(directory, &error))
}

pub(super) fn remove_tree(path: &Path) -> Result<(), String> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(text(path, &error)),
        _ => Ok(()),
    }
}

/// Follows the volumes of this node until the future is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    let volumes = &context.gatherer.local;
    let target = Target {
        label_selector: Some(format!("{NODE_LABEL}={}", volumes.node)),
        ..Target::of::<PersistentVolume>()
    };
    let mut updates = follow::<PersistentVolume>(volumes.client.clone(), target).boxed();
    volumes.sweep(volumes.root.clone(), str::to_owned).await;
    // What could not be done, by name.
    let mut failed: HashMap<String, PersistentVolume> = HashMap::new();
    let mut retry = tokio::time::interval(RETRY);
    // Copies take long; the others do not wait for them.
    let mut copies = FuturesUnordered::new();
    loop {
        let due: Vec<PersistentVolume> = tokio::select! {
            update = updates.next() => match update {
                Some(Update::All(volumes)) => volumes,
                Some(Update::Put(volume)) => vec![volume],
                Some(Update::Gone(volume)) => {
                    failed.remove(volume.metadata.name.as_deref().unwrap_or_default());
                    continue;
                }
                None => return,
            },
            Some((volume, done)) = copies.next(), if !copies.is_empty() => {
                settle(&context, &mut failed, volume, done);
                continue;
            }
            _ = retry.tick(), if !failed.is_empty() => failed.values().cloned().collect(),
        };
        for volume in due {
            if !is_ours(&volume, &volumes.node) {
                continue;
            }
            if annotation(&volume, SNAPSHOTS).is_some() {
                volumes.snapshots.notify_one();
            }
            let is_copy = annotation(&volume, SOURCE).is_some();
            if is_copy && step(&volume) == Step::Make {
                // Taken now: a removal that comes next finds it.
                let job = volumes.job(volume.metadata.name.as_deref().unwrap_or_default());
                copies.push(async move {
                    let done = match volumes.directory(&volume) {
                        Ok(path) => volumes.make(Arc::clone(&job), &volume, &path).await,
                        Err(why) => Err(why),
                    };
                    // Given up because it is being removed: nothing to try again.
                    if job.is_stopped() {
                        return (volume, Ok(()));
                    }
                    (volume, done)
                });
            } else {
                let done = volumes.act(&volume).await;
                settle(&context, &mut failed, volume, done);
            }
        }
    }
}

/// Remembers what failed, and tells it.
fn settle(
    context: &Context,
    failed: &mut HashMap<String, PersistentVolume>,
    volume: PersistentVolume,
    done: Result<(), String>,
) {
    let name = volume.metadata.name.clone().unwrap_or_default();
    match done {
        Ok(()) => {
            failed.remove(&name);
        }
        Err(why) => {
            warn!(volume = name, why, "volume not looked after");
            let reason = if volume.metadata.deletion_timestamp.is_some() {
                "VolumeFailedDelete"
            } else {
                "ProvisioningFailed"
            };
            let about: ObjectReference = volume.object_ref(&());
            context.recorder.record(about, Kind::Warning, reason, why);
            failed.insert(name, volume);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(into: &mut serde_json::Value, more: &serde_json::Value) {
        match (into.as_object_mut(), more.as_object()) {
            (Some(into), Some(more)) => {
                for (name, value) in more {
                    merge(into.entry(name).or_insert_with(|| json!({})), value);
                }
            }
            _ => *into = more.clone(),
        }
    }

    fn volume(more: serde_json::Value) -> PersistentVolume {
        let mut volume = json!({
            "metadata": {"name": "pvc-1", "labels": {NODE_LABEL: "n"}, "finalizers": [FINALIZER]},
            "spec": {"capacity": {"storage": "1Gi"}, "local": {"path": "/x/pvc-1"},
                "persistentVolumeReclaimPolicy": "Delete"},
            "status": {"phase": "Bound"},
        });
        merge(&mut volume, &more);
        serde_json::from_value(volume).expect("a volume")
    }

    #[test]
    fn data_goes_only_when_claim_and_policy_say_so() {
        let gone = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let released = json!({"phase": "Released"});
        let made = json!({"annotations": {MADE: "1Gi"}});
        for (more, wanted) in [
            (json!({}), Step::Make),
            (json!({"metadata": made}), Step::Stay),
            (
                json!({"metadata": made, "spec": {"capacity": {"storage": "2Gi"}}}),
                Step::Make,
            ),
            (json!({"metadata": gone, "status": released}), Step::Remove),
            // Bound, or waiting for a claim: a person deletes the object, not the data.
            (json!({"metadata": gone}), Step::LetGo),
            (
                json!({"metadata": gone, "status": {"phase": "Available"}}),
                Step::LetGo,
            ),
            (
                json!({"metadata": gone, "status": released,
                    "spec": {"persistentVolumeReclaimPolicy": "Retain"}}),
                Step::LetGo,
            ),
        ] {
            assert_eq!(step(&volume(more.clone())), wanted, "{more}");
        }
    }

    #[test]
    fn what_is_removed_is_the_directory_and_nothing_it_leads_to() {
        let home = tempfile::tempdir().expect("a directory");
        let (root, other) = (home.path().join("root"), home.path().join("other"));
        for directory in [root.join("pvc-1/deep"), root.join("pvc-2"), other.clone()] {
            fs::create_dir_all(directory).expect("a directory");
        }
        fs::write(other.join("kept"), "x").expect("a file");
        std::os::unix::fs::symlink(&other, root.join("pvc-1/deep/link")).expect("a link");
        remove(&root, &root.join("pvc-1")).expect("it goes");
        assert!(!root.join("pvc-1").exists() && root.join("pvc-2").exists());
        assert!(other.join("kept").exists());
        // Again, as after a crash.
        remove(&root, &root.join("pvc-1")).expect("it is gone");
        std::os::unix::fs::symlink(&other, root.join("pvc-3")).expect("a link");
        assert!(
            remove(&root, &root.join("pvc-3")).is_err(),
            "a link is no volume"
        );
        assert!(other.join("kept").exists());
    }

    #[tokio::test]
    async fn a_volume_elsewhere_is_not_touched() {
        let client = Client::new(
            tower::service_fn(|_: http::Request<kube::client::Body>| async {
                Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody"))
            }),
            "default",
        );
        let volumes = LocalVolumes::new("/x".into(), "n".to_owned(), client);
        assert!(volumes.directory(&volume(json!({}))).is_ok());
        for path in ["/x/../etc", "/etc", "/x/pvc-2", "/x/pvc-1/.."] {
            let volume = volume(json!({"spec": {"local": {"path": path}}}));
            assert!(volumes.directory(&volume).is_err(), "{path}");
        }
        for name in ["..", ".", ".removing-a"] {
            let path = format!("/x/{name}");
            let volume =
                volume(json!({"metadata": {"name": name}, "spec": {"local": {"path": path}}}));
            assert!(volumes.directory(&volume).is_err(), "{name}");
        }
    }
}
