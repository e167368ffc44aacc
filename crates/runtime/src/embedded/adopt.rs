//! Finding everything again after a restart, planned or not.
//!
//! The directories say what there was; the kernel's boot id says whether it can still be there.
//! Nothing here waits: shims are connected, and what needs time happens in tasks.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use super::container::{Container, Life};
use super::records::{ContainerRecord, SandboxRecord};
use super::sandbox::{Sandbox, dismantle, unpin};
use super::{Inner, watch};
use crate::clock;
use crate::contract::Result;
use crate::files::{self, Context as _};
use crate::wire::{Exited, Started};

/// Reads the root and takes over what is there.
pub(super) fn adopt(inner: &Arc<Inner>) -> Result<()> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context(|| "read the boot id".to_owned())?;
    let mark = inner.root.join("boot");
    let same_boot = fs::read_to_string(&mark).is_ok_and(|before| before == boot);
    empty_trash(inner);
    adopt_sandboxes(inner, same_boot)?;
    adopt_containers(inner, same_boot)?;
    release_strangers(inner);
    files::write_atomic(&mark, boot.as_bytes()).context(|| format!("write {}", mark.display()))
}

fn empty_trash(inner: &Inner) {
    let trash = inner.root.join("trash");
    for name in files::entries(&trash).unwrap_or_default() {
        let doomed = trash.join(name);
        tokio::task::spawn_blocking(move || super::destroy(&doomed));
    }
}

fn adopt_sandboxes(inner: &Arc<Inner>, same_boot: bool) -> Result<()> {
    let base = inner.root.join("sandboxes");
    for id in files::entries(&base).context(|| format!("list {}", base.display()))? {
        let dir = base.join(&id);
        let record = files::read_json::<SandboxRecord>(&dir.join("sandbox.json"));
        let mut record = match record {
            Ok(Some(record)) => record,
            Ok(None) => {
                unpin(&dir)?;
                inner.discard(&dir)?;
                continue;
            }
            Err(error) => {
                tracing::warn!(sandbox = id, %error, "a sandbox's record can't be read");
                unpin(&dir)?;
                inner.discard(&dir)?;
                continue;
            }
        };
        if !record.complete {
            // Half-made when the process ended. Its network is given back, which takes time.
            let inner = Arc::clone(inner);
            inner.join_pod(&record.config.pod.uid);
            tokio::spawn(async move { clear_away(&inner, &record).await });
            continue;
        }
        if !same_boot && !record.stopped {
            record.stopped = true;
            record.pause = None;
            files::write_json(&dir.join("sandbox.json"), &record)
                .context(|| format!("write {}/sandbox.json", dir.display()))?;
        }
        inner
            .sandboxes
            .lock()
            .insert(id, Arc::new(Sandbox::new(record)));
    }
    Ok(())
}

/// Takes a half-made sandbox away. A helper that was at work when its runtime was killed goes on
/// for a moment and can be in the way, so it is tried again; the next start tries what is left.
async fn clear_away(inner: &Arc<Inner>, record: &SandboxRecord) {
    let mut pause = Duration::from_millis(5);
    for last in [false, false, false, false, false, false, false, true] {
        let cleaned = match dismantle(inner, record).await {
            Ok(record) => inner
                .discard(&inner.sandbox_dir(&record.id))
                .and_then(|()| inner.leave_pod(&record.config.pod.uid)),
            Err(error) => Err(error),
        };
        match cleaned {
            Ok(()) => return,
            Err(error) if last => {
                tracing::warn!(sandbox = record.id, %error, "cleaning up a half-made sandbox");
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
    }
}

fn adopt_containers(inner: &Arc<Inner>, same_boot: bool) -> Result<()> {
    let base = inner.root.join("containers");
    for id in files::entries(&base).context(|| format!("list {}", base.display()))? {
        let dir = base.join(&id);
        let record = match files::read_json::<ContainerRecord>(&dir.join("container.json")) {
            Ok(Some(record)) => record,
            Ok(None) => {
                inner.discard(&dir)?;
                continue;
            }
            Err(error) => {
                tracing::warn!(container = id, %error, "a container's record can't be read");
                inner.discard(&dir)?;
                continue;
            }
        };
        // Connect before reading the records: a container that ends in between is then told of
        // by one or the other.
        let connection = if same_boot {
            watch::connect(&dir).ok()
        } else {
            None
        };
        let read = |name: &str| format!("read {}/{name}", dir.display());
        let started: Option<Started> =
            files::read_json(&dir.join("started.json")).context(|| read("started.json"))?;
        let mut exited: Option<Exited> =
            files::read_json(&dir.join("exit.json")).context(|| read("exit.json"))?;
        if exited.is_none() && started.is_some() && !same_boot {
            let end = Exited {
                code: 255,
                finished_at: clock::now_ns(),
                oom_killed: false,
                reason: "Error".to_owned(),
                message: "the machine was restarted".to_owned(),
            };
            files::write_json(&dir.join("exit.json"), &end)
                .context(|| format!("write {}/exit.json", dir.display()))?;
            exited = Some(end);
        }
        let orphaned = started.is_some() && exited.is_none() && connection.is_none();
        let over = exited.is_some();
        let container = Arc::new(Container::new(record, Life { started, exited }));
        inner.containers.lock().insert(id, Arc::clone(&container));
        if let Some(connection) = connection.filter(|_| !over) {
            connection
                .set_nonblocking(true)
                .context(|| "set up a socket".to_owned())?;
            let stream =
                UnixStream::from_std(connection).context(|| "set up a socket".to_owned())?;
            watch::follow(inner, &container, stream);
        } else if orphaned {
            let inner = Arc::clone(inner);
            tokio::spawn(async move { watch::conclude(&inner, &container, None).await });
        }
    }
    Ok(())
}

/// Images held by containers that are gone.
fn release_strangers(inner: &Inner) {
    let known: HashSet<String> = inner.containers.lock().keys().cloned().collect();
    for holder in inner.images.store().holders() {
        if !known.contains(&holder)
            && let Err(error) = inner.images.store().release(&holder)
        {
            tracing::warn!(container = holder, %error, "releasing a gone container's image");
        }
    }
}
