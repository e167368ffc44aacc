//! The built-in runtime.
//!
//! What lives here: the runtime's view of its sandboxes and containers, and the steps that make
//! and remove them. What never lives here: system calls that change this process (the helper's
//! part, `shim`), image content (`image`), addresses (the network behind `SandboxNetwork`).
//!
//! Below its root: `sandboxes/<id>/` (record, namespace pins, generated files),
//! `containers/<id>/` (records, writable layer, the shim's socket), `seccomp/` (compiled filters),
//! `trash/` (what is being removed), `boot` (the kernel's boot id of the last start).

mod adopt;
mod build;
mod cleanup;
mod container;
mod exec;
mod records;
mod sandbox;
mod streams;
mod watch;
mod zygote;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::cgroup::{self, Cgroups};
use crate::contract::{
    ContainerConfig, ContainerEvent, ContainerStats, ContainerStatus, ExecOutput, ExecRequest,
    Resources, Result, Runtime, RuntimeError, SandboxConfig, SandboxNetwork, SandboxStatus,
    StreamSession,
};
use crate::files::Context as _;
use crate::image::ImageStore;
pub use cleanup::cleanup;
use container::Container;
use sandbox::Sandbox;
use zygote::Zygote;

/// What an [`EmbeddedRuntime`] is made of.
pub struct EmbeddedOptions {
    /// Directory of persistent state, for example `<data-dir>/node`.
    pub root: PathBuf,
    /// Short name, unique on this machine: cgroups live below `evenkeel-<instance>`.
    pub instance: String,
    /// Connects sandboxes.
    pub network: Arc<dyn SandboxNetwork>,
    /// Where images come from.
    pub images: Arc<ImageStore>,
    /// Program to execute for the helper, normally `/proc/self/exe`.
    pub helper: PathBuf,
    /// Arguments that make that program call [`crate::helper_main`] with what follows them.
    pub helper_args: Vec<String>,
}

/// The built-in runtime. Cloning gives another handle on the same one.
#[derive(Clone)]
pub struct EmbeddedRuntime {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    root: PathBuf,
    /// `evenkeel-<instance>`.
    group: String,
    network: Arc<dyn SandboxNetwork>,
    images: Arc<ImageStore>,
    cgroups: Arc<dyn Cgroups>,
    zygote: Zygote,
    sandboxes: Mutex<HashMap<String, Arc<Sandbox>>>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    /// Sandboxes by pod uid: a pod's group goes with the last of them.
    pods: Mutex<HashMap<String, usize>>,
    events: broadcast::Sender<ContainerEvent>,
    /// Held for as long as this runtime lives: one per root.
    _lock: fs::File,
}

impl EmbeddedRuntime {
    /// Opens the runtime on its root and adopts what it finds there. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// When the root can't be used or another process uses it, or when this machine lacks what
    /// containers need.
    pub fn new(options: EmbeddedOptions) -> Result<Self> {
        let EmbeddedOptions {
            root,
            instance,
            network,
            images,
            helper,
            helper_args,
        } = options;
        if root
            .as_os_str()
            .to_string_lossy()
            .contains([':', ',', '\\'])
        {
            return Err(RuntimeError::Invalid(format!(
                "{}: an overlay can't be mounted from a path with ':', ',' or '\\'",
                root.display()
            )));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(RuntimeError::Unsupported(
                "running containers without root; start as root".to_owned(),
            ));
        }
        for dir in ["sandboxes", "containers", "seccomp", "trash"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).context(|| format!("create {}", dir.display()))?;
        }
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&root, private).context(|| format!("protect {}", root.display()))?;
        let lock = fs::File::create(root.join("lock"))
            .context(|| format!("open {}/lock", root.display()))?;
        lock_within(&lock, LOCKED_WITHIN)
            .context(|| format!("another process uses {}", root.display()))?;
        let cgroups = cgroup::detect().context(|| "look for cgroups".to_owned())?;
        let group = format!("evenkeel-{instance}");
        let zygote = Zygote::new(
            helper,
            helper_args,
            Arc::clone(&cgroups),
            format!("{group}/shims"),
        );
        zygote.warm()?;
        let (events, _) = broadcast::channel(1024);
        let inner = Arc::new(Inner {
            root,
            group,
            network,
            images,
            cgroups,
            zygote,
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            pods: Mutex::default(),
            events,
            _lock: lock,
        });
        adopt::adopt(&inner)?;
        Ok(Self { inner })
    }
}

impl Inner {
    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.root.join("sandboxes").join(id)
    }

    fn container_dir(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    fn pod_group(&self, pod_uid: &str) -> String {
        format!("{}/pod{}", self.group, pod_uid.replace('/', "_"))
    }

    fn container_group(&self, pod_uid: &str, id: &str) -> String {
        format!("{}/{id}", self.pod_group(pod_uid))
    }

    /// Counts a sandbox of a pod.
    fn join_pod(&self, uid: &str) {
        *self.pods.lock().entry(uid.to_owned()).or_default() += 1;
    }

    /// Counts one sandbox of a pod less; the last takes the pod's group along.
    fn leave_pod(&self, uid: &str) -> Result<()> {
        // Held during the removal, so that a new sandbox of the same pod makes its group after.
        let mut pods = self.pods.lock();
        let left = pods.get(uid).map_or(0, |count| count.saturating_sub(1));
        if left > 0 {
            pods.insert(uid.to_owned(), left);
            return Ok(());
        }
        pods.remove(uid);
        let group = self.pod_group(uid);
        container::remove_group(&*self.cgroups, &group).context(|| format!("remove cgroup {group}"))
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        self.sandboxes
            .lock()
            .get(id)
            .cloned()
            .ok_or_else(|| RuntimeError::NotFound {
                kind: "sandbox",
                id: id.to_owned(),
            })
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.containers
            .lock()
            .get(id)
            .cloned()
            .ok_or_else(|| RuntimeError::NotFound {
                kind: "container",
                id: id.to_owned(),
            })
    }

    /// Takes a directory away at once and deletes its content without holding anyone up.
    fn discard(&self, dir: &std::path::Path) -> Result<()> {
        let doomed = self.root.join("trash").join(crate::files::random_id());
        match fs::rename(dir, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context(|| format!("remove {}", dir.display())),
        }
        // What a crash leaves there goes at the next start.
        tokio::task::spawn_blocking(move || {
            destroy(&doomed);
        });
        Ok(())
    }
}

/// How long a predecessor that is ending, or a process it was just making, may keep the lock.
const LOCKED_WITHIN: Duration = Duration::from_secs(2);

/// Takes a lock, waiting a little for who is about to let go. Blocks.
fn lock_within(lock: &fs::File, patience: Duration) -> std::io::Result<()> {
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(errno) if errno != rustix::io::Errno::WOULDBLOCK || begun.elapsed() > patience => {
                return Err(errno.into());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// How long the deletion of a directory is tried. A helper that was at work when its runtime was
/// killed goes on for a moment and may make a file or pin a namespace in what is being deleted.
const DESTROYED_WITHIN: Duration = Duration::from_secs(10);

/// Deletes a directory from the trash, again and again while a helper still writes there. Blocks.
fn destroy(dir: &std::path::Path) {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        let removed = fs::remove_dir_all(dir).or_else(|error| {
            sandbox::unpin(dir)
                .map_err(|_| error)
                .and_then(|()| fs::remove_dir_all(dir))
        });
        let error = match removed {
            Ok(()) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Something in it vanished, or all of it did.
                if !dir.exists() {
                    return;
                }
                error
            }
            Err(error) => error,
        };
        if begun.elapsed() > DESTROYED_WITHIN {
            // The next start tries again.
            tracing::warn!(path = %dir.display(), %error, "emptying the trash");
            return;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(RuntimeError::Io {
                context: "runtime work".into(),
                source: error.into(),
            })
        })
}

impl Runtime for EmbeddedRuntime {
    fn version(&self) -> String {
        format!("evenkeel://{}", env!("CARGO_PKG_VERSION"))
    }

    fn run_sandbox<'a>(&'a self, config: &'a SandboxConfig) -> BoxFuture<'a, Result<String>> {
        Box::pin(sandbox::run(&self.inner, config))
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(sandbox::stop(&self.inner, id))
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(sandbox::remove(&self.inner, id))
    }

    fn list_sandboxes(&self) -> BoxFuture<'_, Result<Vec<SandboxStatus>>> {
        Box::pin(async move { Ok(sandbox::list(&self.inner)) })
    }

    fn create_container<'a>(
        &'a self,
        sandbox_id: &'a str,
        config: &'a ContainerConfig,
    ) -> BoxFuture<'a, Result<String>> {
        Box::pin(container::create(&self.inner, sandbox_id, config))
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(container::start(&self.inner, id))
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>> {
        Box::pin(container::stop(&self.inner, id, grace))
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(container::remove(&self.inner, id))
    }

    fn list_containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>>> {
        Box::pin(async move {
            let all: Vec<_> = self.inner.containers.lock().values().cloned().collect();
            let mut out: Vec<_> = all.iter().map(|container| container.status()).collect();
            out.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
            Ok(out)
        })
    }

    fn container_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>> {
        Box::pin(async move { Ok(self.inner.container(id)?.status()) })
    }

    fn container_stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStats>> {
        Box::pin(container::stats(&self.inner, id))
    }

    fn update_resources<'a>(
        &'a self,
        id: &'a str,
        resources: &'a Resources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(container::update(&self.inner, id, resources))
    }

    fn update_sandbox<'a>(
        &'a self,
        id: &'a str,
        resources: &'a Resources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(sandbox::update(&self.inner, id, resources))
    }

    fn reopen_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(container::reopen_log(&self.inner, id))
    }

    fn exec<'a>(
        &'a self,
        id: &'a str,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<StreamSession>> {
        Box::pin(exec::exec(&self.inner, id, request))
    }

    fn exec_sync<'a>(
        &'a self,
        id: &'a str,
        command: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ExecOutput>> {
        Box::pin(exec::exec_sync(&self.inner, id, command, timeout))
    }

    fn attach<'a>(
        &'a self,
        id: &'a str,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<StreamSession>> {
        Box::pin(exec::attach(&self.inner, id, request))
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.inner.events.subscribe()
    }
}
