//! Sandboxes: made, stopped, removed, listed.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;

use super::records::SandboxRecord;
use super::{Inner, blocking, container, zygote};
use crate::clock;
use crate::contract::{DnsConfig, Resources, Result, SandboxConfig, SandboxState, SandboxStatus};
use crate::files::{self, Context as _};
use crate::shim::op;
use crate::shim::spec::{SandboxMade, SandboxSpec};

/// A sandbox in memory.
pub(super) struct Sandbox {
    pub(super) record: Mutex<SandboxRecord>,
    /// Stopping and removing take turns.
    turn: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub(super) fn new(record: SandboxRecord) -> Self {
        Self {
            record: Mutex::new(record),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn ready(&self) -> bool {
        let record = self.record.lock();
        record.complete && !record.stopped
    }
}

/// The pinned network namespace of a sandbox, when it has its own.
pub(super) fn netns(inner: &Inner, record: &SandboxRecord) -> Option<PathBuf> {
    (!record.config.host_network).then(|| inner.sandbox_dir(&record.id).join("ns/net"))
}

/// The name that the sandbox's programs see: with the host's network, the host's.
pub(super) fn hostname(config: &SandboxConfig) -> String {
    if !config.host_network {
        return config.hostname.clone();
    }
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn save(inner: &Inner, record: &SandboxRecord) -> Result<()> {
    let path = inner.sandbox_dir(&record.id).join("sandbox.json");
    files::write_json(&path, record).context(|| format!("write {}", path.display()))
}

/// Makes a sandbox; on failure nothing of it stays.
pub(super) async fn run(inner: &Arc<Inner>, config: &SandboxConfig) -> Result<String> {
    check_sysctls(config)?;
    let record = SandboxRecord {
        id: files::random_id(),
        config: config.clone(),
        created_at: clock::now_ns(),
        ips: Vec::new(),
        complete: false,
        stopped: false,
        attached: !config.host_network,
        pause: None,
    };
    let id = record.id.clone();
    inner.join_pod(&config.pod.uid);
    match make(inner, record).await {
        Ok(record) => {
            inner
                .sandboxes
                .lock()
                .insert(id.clone(), Arc::new(Sandbox::new(record)));
            Ok(id)
        }
        Err(error) => {
            if let Ok(Some(record)) = files::read_json(&inner.sandbox_dir(&id).join("sandbox.json"))
                && let Err(undo) = dismantle(inner, &record).await
            {
                tracing::warn!(sandbox = id, error = %undo, "undoing a failed sandbox");
            }
            if let Err(undo) = inner.discard(&inner.sandbox_dir(&id)) {
                tracing::warn!(sandbox = id, error = %undo, "undoing a failed sandbox");
            }
            if let Err(undo) = inner.leave_pod(&config.pod.uid) {
                tracing::warn!(sandbox = id, error = %undo, "undoing a failed sandbox");
            }
            Err(error)
        }
    }
}

async fn make(inner: &Arc<Inner>, mut record: SandboxRecord) -> Result<SandboxRecord> {
    let config = record.config.clone();
    let dir = inner.sandbox_dir(&record.id);
    for part in ["ns", "shm"] {
        fs::create_dir_all(dir.join(part)).context(|| format!("create {}", dir.display()))?;
    }
    fs::create_dir_all(&config.log_directory)
        .context(|| format!("create {}", config.log_directory.display()))?;
    // From here on a crash leaves something to clean up, and the record says what.
    save(inner, &record)?;
    let hostname = hostname(&config);
    write_public(&dir.join("hostname"), format!("{hostname}\n").as_bytes())?;
    write_public(
        &dir.join("resolv.conf"),
        resolv_conf(&config.dns).as_bytes(),
    )?;
    let group = inner.pod_group(&config.pod.uid);
    let pause_group = format!("{group}/pause");
    let cgroups = Arc::clone(&inner.cgroups);
    let shared_pid = config.share_process_namespace && !config.host_pid;
    let placement = shared_pid.then(|| cgroups.placement(&pause_group));
    let limits = config.resources.clone();
    let grouped = blocking(move || {
        cgroups
            .create(&group, &limits, None)
            .and_then(|()| match shared_pid {
                true => cgroups.create(&pause_group, &Resources::default(), None),
                false => Ok(()),
            })
            .context(|| "make the pod's cgroup".to_owned())
    });
    let spec = SandboxSpec {
        dir: dir.clone(),
        hostname: (!config.host_network).then(|| config.hostname.clone()),
        net: !config.host_network,
        ipc: !config.host_ipc,
        pid: shared_pid,
        sysctls: config
            .sysctls
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        placement,
    };
    let namespaces = async {
        let mut stream = inner.zygote.send(op::SANDBOX, &spec, &[]).await?;
        let (_, body) = zygote::answer(&mut stream).await?;
        zygote::body::<SandboxMade>(&body)
    };
    if shared_pid {
        // The pause process is cloned into its group, which must be there.
        grouped.await?;
        record.pause = namespaces.await?.pause;
    } else {
        let (grouped, made) = futures::join!(grouped, namespaces);
        grouped?;
        made?;
    }
    if let Some(netns) = netns(inner, &record) {
        record.ips = inner.network.attach(&record.id, &config, &netns).await?;
    }
    record.complete = true;
    save(inner, &record)?;
    Ok(record)
}

/// Changes the limits of the pod as a whole.
pub(super) async fn update(inner: &Arc<Inner>, id: &str, resources: &Resources) -> Result<()> {
    let sandbox = inner.sandbox(id)?;
    let uid = sandbox.record.lock().config.pod.uid.clone();
    let group = inner.pod_group(&uid);
    let cgroups = Arc::clone(&inner.cgroups);
    let resources = resources.clone();
    blocking(move || {
        cgroups
            .update(&group, &resources)
            .context(|| format!("limit cgroup {group}"))
    })
    .await
}

/// Only sysctls that are the sandbox's own may be set.
fn check_sysctls(config: &SandboxConfig) -> Result<()> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    for name in config.sysctls.keys() {
        let dotted = name.replace('/', ".");
        let climbs = dotted.split('.').any(str::is_empty);
        let ok = if dotted.starts_with("net.") {
            !config.host_network
        } else if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            !config.host_ipc
        } else {
            false
        };
        if !ok || climbs {
            return Err(crate::contract::RuntimeError::Unsupported(format!(
                "sysctl {name:?}: it is not separate for this pod"
            )));
        }
    }
    Ok(())
}

fn write_public(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let public = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::write(path, bytes)
        .and_then(|()| fs::set_permissions(path, public))
        .context(|| format!("write {}", path.display()))
}

/// The text of /etc/resolv.conf.
pub(super) fn resolv_conf(dns: &DnsConfig) -> String {
    let mut out = String::new();
    if !dns.searches.is_empty() {
        out.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        out.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        out.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    out
}

/// Stops a sandbox; one that is not there is stopped.
pub(super) async fn stop(inner: &Arc<Inner>, id: &str) -> Result<()> {
    let Ok(sandbox) = inner.sandbox(id) else {
        return Ok(());
    };
    let _turn = sandbox.turn.lock().await;
    stop_now(inner, &sandbox).await
}

async fn stop_now(inner: &Arc<Inner>, sandbox: &Sandbox) -> Result<()> {
    let record = sandbox.record.lock().clone();
    if record.stopped && !record.attached {
        return Ok(());
    }
    // No container may start in it from here on.
    sandbox.record.lock().stopped = true;
    let members: Vec<_> = inner
        .containers
        .lock()
        .values()
        .filter(|container| container.record.sandbox_id == record.id)
        .cloned()
        .collect();
    let stops = members
        .iter()
        .map(|c| container::stop(inner, &c.record.id, Duration::ZERO));
    for result in futures::future::join_all(stops).await {
        result?;
    }
    let record = dismantle(inner, &record).await?;
    save(inner, &record)?;
    *sandbox.record.lock() = record;
    Ok(())
}

/// Gives back everything that a sandbox holds but its directory.
pub(super) async fn dismantle(inner: &Arc<Inner>, record: &SandboxRecord) -> Result<SandboxRecord> {
    let mut record = record.clone();
    if record.attached
        && let Some(netns) = netns(inner, &record)
    {
        inner
            .network
            .detach(&record.id, &record.config, &netns)
            .await?;
    }
    record.attached = false;
    record.stopped = true;
    let group = inner.pod_group(&record.config.pod.uid);
    let cgroups = Arc::clone(&inner.cgroups);
    let dir = inner.sandbox_dir(&record.id);
    let pause = record.pause.take().is_some();
    blocking(move || {
        if pause {
            let pause_group = format!("{group}/pause");
            cgroups
                .kill(&pause_group)
                .and_then(|()| container::remove_group(&*cgroups, &pause_group))
                .context(|| "end the pod's pause process".to_owned())?;
        }
        unpin(&dir)
    })
    .await?;
    Ok(record)
}

/// Takes the mounts below a sandbox's directory away.
pub(super) fn unpin(dir: &std::path::Path) -> Result<()> {
    for name in ["ns/net", "ns/ipc", "ns/uts", "ns/pid", "shm"] {
        let path = dir.join(name);
        match umount2(&path, MntFlags::MNT_DETACH) {
            // Not mounted (any more), or never made.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(errno) => return Err(errno).context(|| format!("unmount {}", path.display())),
        }
    }
    Ok(())
}

/// Removes a sandbox and its containers; one that is not there is removed.
pub(super) async fn remove(inner: &Arc<Inner>, id: &str) -> Result<()> {
    let Ok(sandbox) = inner.sandbox(id) else {
        return Ok(());
    };
    let _turn = sandbox.turn.lock().await;
    stop_now(inner, &sandbox).await?;
    let members: Vec<String> = inner
        .containers
        .lock()
        .values()
        .filter(|container| container.record.sandbox_id == id)
        .map(|container| container.record.id.clone())
        .collect();
    for member in members {
        container::remove(inner, &member).await?;
    }
    let uid = sandbox.record.lock().config.pod.uid.clone();
    inner.discard(&inner.sandbox_dir(id))?;
    inner.sandboxes.lock().remove(id);
    let inner = Arc::clone(inner);
    blocking(move || inner.leave_pod(&uid)).await
}

/// All sandboxes, the oldest first.
pub(super) fn list(inner: &Inner) -> Vec<SandboxStatus> {
    let all: Vec<_> = inner.sandboxes.lock().values().cloned().collect();
    let mut out: Vec<SandboxStatus> = all
        .iter()
        .map(|sandbox| {
            let ready = sandbox.ready();
            let record = sandbox.record.lock();
            SandboxStatus {
                id: record.id.clone(),
                pod: record.config.pod.clone(),
                state: if ready {
                    SandboxState::Ready
                } else {
                    SandboxState::NotReady
                },
                created_at: record.created_at,
                ips: record.ips.clone(),
                netns: if ready { netns(inner, &record) } else { None },
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }
        })
        .collect();
    out.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    out
}
