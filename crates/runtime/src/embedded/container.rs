//! Containers: created, started, stopped, removed, asked.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::records::ContainerRecord;
use super::{Inner, blocking, build, watch as shim_watch, zygote};
use crate::cgroup::Cgroups;
use crate::clock;
use crate::contract::{
    ContainerConfig, ContainerEvent, ContainerState, ContainerStats, ContainerStatus,
    ContainerUser, Resources, Result, RuntimeError,
};
use crate::files::{self, Context as _};
use crate::shim::op;
use crate::shim::spec::StartRequest;
use crate::wire::{Exited, Started, User, frame};

/// How long a killed container may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// Where a container is in its life.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    pub(super) started: Option<Started>,
    pub(super) exited: Option<Exited>,
}

/// A container in memory.
pub(super) struct Container {
    pub(super) record: ContainerRecord,
    pub(super) life: watch::Sender<Life>,
    /// Requests to the shim, while one is connected.
    pub(super) shim: Mutex<Option<shim_watch::ShimHandle>>,
    /// Starting, stopping and removing take turns.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Container {
    pub(super) fn new(record: ContainerRecord, life: Life) -> Self {
        Self {
            record,
            life: watch::Sender::new(life),
            shim: Mutex::new(None),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn state(&self) -> ContainerState {
        let life = self.life.borrow();
        match (&life.started, &life.exited) {
            (_, Some(_)) => ContainerState::Exited,
            (Some(_), None) => ContainerState::Running,
            (None, None) => ContainerState::Created,
        }
    }

    /// The started record of a container that runs.
    pub(super) fn running(&self) -> Result<Started> {
        let life = self.life.borrow();
        match (&life.started, &life.exited) {
            (Some(started), None) => Ok(started.clone()),
            _ => Err(RuntimeError::Invalid(format!(
                "container {} is not running",
                self.record.id
            ))),
        }
    }

    pub(super) fn status(&self) -> ContainerStatus {
        let state = self.state();
        let life = self.life.borrow();
        let record = &self.record;
        let exited = life.exited.clone().unwrap_or_default();
        let reason = match &life.exited {
            None => "",
            Some(exited) if !exited.reason.is_empty() => &exited.reason,
            Some(exited) if exited.oom_killed && exited.code != 0 => "OOMKilled",
            Some(exited) if exited.code == 0 => "Completed",
            Some(_) => "Error",
        };
        ContainerStatus {
            id: record.id.clone(),
            sandbox_id: record.sandbox_id.clone(),
            name: record.config.name.clone(),
            attempt: record.config.attempt,
            state,
            created_at: record.created_at,
            started_at: life
                .started
                .as_ref()
                .map_or(0, |started| started.started_at),
            finished_at: exited.finished_at,
            exit_code: exited.code,
            reason: reason.to_owned(),
            message: exited.message,
            image: record.config.image.clone(),
            image_id: record.image_id.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            log_path: record.log_path.clone(),
            pid: match state {
                ContainerState::Running => life.started.as_ref().map(|started| started.pid),
                _ => None,
            },
            user: life.started.as_ref().map(|started| {
                let User {
                    uid,
                    gid,
                    ref groups,
                    ..
                } = started.user;
                let groups: BTreeSet<u32> = groups.iter().copied().chain([gid]).collect();
                ContainerUser {
                    uid,
                    gid,
                    groups: groups.into_iter().collect(),
                }
            }),
        }
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) -> Exited {
        let mut life = self.life.subscribe();
        loop {
            if let Some(exited) = &life.borrow_and_update().exited {
                return exited.clone();
            }
            if life.changed().await.is_err() {
                return Exited::default();
            }
        }
    }
}

impl Inner {
    /// Notes a change and tells who listens.
    pub(super) fn advance(&self, container: &Container, change: impl FnOnce(&mut Life)) {
        let before = container.state();
        container.life.send_modify(change);
        let state = container.state();
        if state != before {
            // Nobody listening is fine.
            self.events
                .send(ContainerEvent {
                    container_id: container.record.id.clone(),
                    sandbox_id: container.record.sandbox_id.clone(),
                    state,
                })
                .ok();
        }
    }
}

/// Prepares a container: records, directories, cgroup. No process yet.
pub(super) async fn create(
    inner: &Arc<Inner>,
    sandbox_id: &str,
    config: &ContainerConfig,
) -> Result<String> {
    let sandbox = inner.sandbox(sandbox_id)?;
    if !sandbox.ready() {
        return Err(RuntimeError::Invalid(format!(
            "sandbox {sandbox_id} is not ready"
        )));
    }
    let inner = Arc::clone(inner);
    let config = config.clone();
    blocking(move || {
        let image = inner
            .images
            .store()
            .resolve(&config.image)?
            .ok_or_else(|| RuntimeError::NotFound {
                kind: "image",
                id: config.image.clone(),
            })?;
        let (log_directory, pod_uid) = {
            let record = sandbox.record.lock();
            (
                record.config.log_directory.clone(),
                record.config.pod.uid.clone(),
            )
        };
        let stop_signal = config
            .stop_signal
            .or_else(|| build::signal_number(&image.config.stop_signal));
        let record = ContainerRecord {
            id: files::random_id(),
            sandbox_id: sandbox.record.lock().id.clone(),
            pod_uid,
            created_at: clock::now_ns(),
            image_id: image.id.clone(),
            log_path: log_directory.join(&config.log_path),
            stop_signal: stop_signal.unwrap_or(libc::SIGTERM),
            config,
        };
        let id = record.id.clone();
        let prepared = prepare(&inner, &sandbox, &record, &image);
        if let Err(error) = prepared {
            undo(&inner, &record);
            return Err(error);
        }
        let container = Arc::new(Container::new(record, Life::default()));
        inner.containers.lock().insert(id.clone(), container);
        Ok(id)
    })
    .await
}

fn prepare(
    inner: &Inner,
    sandbox: &super::sandbox::Sandbox,
    record: &ContainerRecord,
    image: &crate::image::Resolved,
) -> Result<()> {
    let dir = inner.container_dir(&record.id);
    for part in ["upper", "work", "rootfs"] {
        fs::create_dir_all(dir.join(part)).context(|| format!("create {}", dir.display()))?;
    }
    // The overlay's root has the attributes of the upper directory.
    let lowest = image
        .lower
        .first()
        .map(|top| inner.images.store().layers_dir().join(top));
    let mode = lowest
        .and_then(|dir| fs::metadata(dir).ok())
        .map_or(0o755, |metadata| {
            std::os::unix::fs::MetadataExt::mode(&metadata) & 0o7777
        });
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(dir.join("upper"), permissions)
        .context(|| format!("create {}", dir.display()))?;
    inner
        .images
        .store()
        .hold(&held(inner, record, image)?, &record.id)?;
    let (nodes, rules) = build::devices(&record.config)?;
    let group = inner.container_group(&record.pod_uid, &record.id);
    inner
        .cgroups
        .create(&group, &record.config.resources, rules.as_deref())
        .context(|| format!("make cgroup {group}"))?;
    let spec = build::spec(inner, sandbox, record, image, nodes)?;
    files::write_json(&dir.join("spec.json"), &spec)
        .context(|| format!("write {}/spec.json", dir.display()))?;
    // Last, since it makes the container exist.
    files::write_json(&dir.join("container.json"), record)
        .context(|| format!("write {}/container.json", dir.display()))
}

/// The images that a container stands on: its own, and those that it has as volumes.
fn held(
    inner: &Inner,
    record: &ContainerRecord,
    image: &crate::image::Resolved,
) -> Result<Vec<String>> {
    let mut ids = vec![image.id.clone()];
    for volume in record
        .config
        .mounts
        .iter()
        .filter_map(|it| it.image.as_ref())
    {
        let found = inner.images.store().resolve(&volume.image)?;
        ids.extend(found.map(|image| image.id));
    }
    Ok(ids)
}

/// Removes what a failed creation left.
fn undo(inner: &Inner, record: &ContainerRecord) {
    let group = inner.container_group(&record.pod_uid, &record.id);
    if let Err(error) = inner.cgroups.remove(&group) {
        tracing::warn!(container = record.id, %error, "removing the cgroup of a failed container");
    }
    if let Err(error) = inner.images.store().release(&record.id) {
        tracing::warn!(container = record.id, %error, "releasing a failed container's image");
    }
    let dir = inner.container_dir(&record.id);
    if let Err(error) = files::absent_ok(fs::remove_dir_all(&dir)) {
        tracing::warn!(container = record.id, %error, "removing a failed container");
    }
}

/// Starts a created container; a failure is also its end, with exit code 128.
pub(super) async fn start(inner: &Arc<Inner>, id: &str) -> Result<()> {
    let container = inner.container(id)?;
    let _turn = container.turn.lock().await;
    if container.state() != ContainerState::Created {
        return Err(RuntimeError::Invalid(format!(
            "container {id} is in state {:?}, not created",
            container.state()
        )));
    }
    if !inner.sandbox(&container.record.sandbox_id)?.ready() {
        return Err(RuntimeError::Invalid(format!(
            "sandbox {} of container {id} is not ready",
            container.record.sandbox_id
        )));
    }
    let request = StartRequest {
        dir: inner.container_dir(id),
    };
    let outcome = async {
        let mut stream = inner.zygote.send(op::START, &request, &[]).await?;
        match zygote::answer(&mut stream).await? {
            (frame::STARTED, body) => Ok((zygote::body::<Started>(&body)?, stream)),
            (kind, _) => Err(RuntimeError::Io {
                context: "start a container".to_owned(),
                source: io::Error::other(format!("unexpected answer {kind}")),
            }),
        }
    }
    .await;
    match outcome {
        Ok((started, stream)) => {
            inner.advance(&container, |life| life.started = Some(started));
            shim_watch::follow(inner, &container, stream);
            Ok(())
        }
        Err(error) => {
            let exited = Exited {
                code: 128,
                finished_at: clock::now_ns(),
                oom_killed: false,
                reason: "StartError".to_owned(),
                message: error.to_string(),
            };
            let path = inner.container_dir(id).join("exit.json");
            if let Err(error) = files::write_json(&path, &exited) {
                tracing::warn!(container = id, %error, "recording a failed start");
            }
            inner.advance(&container, |life| life.exited = Some(exited));
            Err(error)
        }
    }
}

/// Stops a container; one that does not run, or is not there, is stopped.
pub(super) async fn stop(inner: &Arc<Inner>, id: &str, grace: Duration) -> Result<()> {
    let Ok(container) = inner.container(id) else {
        return Ok(());
    };
    // Only the wait for a start that is under way; a second stop with less grace must not wait
    // for the first.
    drop(container.turn.lock().await);
    if container.state() != ContainerState::Running {
        return Ok(());
    }
    if !grace.is_zero() {
        match shim_watch::signal(&container, container.record.stop_signal).await {
            Ok(()) => {}
            // The shim is just ending, or gone; the kill below settles it.
            Err(error) => tracing::debug!(container = id, %error, "sending the stop signal"),
        }
        if tokio::time::timeout(grace, container.ended()).await.is_ok() {
            return Ok(());
        }
    }
    kill(inner, &container).await?;
    match tokio::time::timeout(KILL_WAIT, container.ended()).await {
        Ok(_) => Ok(()),
        Err(_) => Err(RuntimeError::Timeout(format!("killing container {id}"))),
    }
}

/// Kills everything in the container's group.
pub(super) async fn kill(inner: &Arc<Inner>, container: &Container) -> Result<()> {
    let group = inner.container_group(&container.record.pod_uid, &container.record.id);
    let cgroups = Arc::clone(&inner.cgroups);
    blocking(move || {
        cgroups
            .kill(&group)
            .context(|| format!("kill cgroup {group}"))
    })
    .await
}

/// Removes a container; one that runs is killed first, one that is not there is removed.
pub(super) async fn remove(inner: &Arc<Inner>, id: &str) -> Result<()> {
    if inner.container(id).is_err() {
        return Ok(());
    }
    stop(inner, id, Duration::ZERO).await?;
    let container = inner.container(id)?;
    let _turn = container.turn.lock().await;
    let group = inner.container_group(&container.record.pod_uid, id);
    let cgroups = Arc::clone(&inner.cgroups);
    let images = Arc::clone(&inner.images);
    // The record goes first: after a crash in between, the rest is a leftover without a name.
    inner.discard(&inner.container_dir(id))?;
    inner.containers.lock().remove(id);
    let id = id.to_owned();
    blocking(move || {
        remove_group(&*cgroups, &group).context(|| format!("remove cgroup {group}"))?;
        images.store().release(&id)
    })
    .await
}

/// Removes a group, killing what is left in it.
///
/// A zombie counts as a member until it is reaped, so this may take a moment.
pub(super) fn remove_group(cgroups: &dyn Cgroups, group: &str) -> io::Result<()> {
    let mut error = match cgroups.remove(group) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let until = clock::monotonic_ns() + 5_000_000_000;
    while clock::monotonic_ns() < until && error.raw_os_error() == Some(libc::EBUSY) {
        cgroups.kill(group)?;
        // The kernel has no event for "empty" that v1 shares; this is off the usual path.
        std::thread::sleep(Duration::from_millis(2));
        error = match cgroups.remove(group) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
    }
    Err(error)
}

/// What a container uses.
pub(super) async fn stats(inner: &Arc<Inner>, id: &str) -> Result<ContainerStats> {
    let container = inner.container(id)?;
    container.running()?;
    let group = inner.container_group(&container.record.pod_uid, id);
    let cgroups = Arc::clone(&inner.cgroups);
    let upper = inner.container_dir(id).join("upper");
    let id = id.to_owned();
    blocking(move || {
        let usage = cgroups
            .usage(&group)
            .context(|| format!("read the use of {id}"))?;
        Ok(ContainerStats {
            timestamp: clock::now_ns(),
            cpu_usage_ns: usage.cpu_ns,
            memory_working_set: usage.working_set,
            memory_usage: usage.memory,
            pids: usage.pids,
            rootfs_used_bytes: disk_use(&upper),
        })
    })
    .await
}

/// Bytes on disk below a directory. Entries that vanish meanwhile don't count.
fn disk_use(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    let mut todo: Vec<PathBuf> = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        let Ok(listing) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in listing.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    total
}

/// Changes limits.
pub(super) async fn update(inner: &Arc<Inner>, id: &str, resources: &Resources) -> Result<()> {
    let container = inner.container(id)?;
    container.running()?;
    let group = inner.container_group(&container.record.pod_uid, id);
    let cgroups = Arc::clone(&inner.cgroups);
    let resources = resources.clone();
    blocking(move || {
        cgroups
            .update(&group, &resources)
            .context(|| format!("limit cgroup {group}"))
    })
    .await
}

/// Has the shim open its log file again.
pub(super) async fn reopen_log(inner: &Arc<Inner>, id: &str) -> Result<()> {
    let container = inner.container(id)?;
    container.running()?;
    shim_watch::request(&container, crate::wire::encode(frame::REOPEN_LOG, &[])).await
}
