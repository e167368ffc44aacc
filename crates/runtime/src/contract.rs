//! The contract between the node agent and whatever runs containers.
//!
//! The shapes follow the Container Runtime Interface (cri-api `v1`): a *sandbox* is the shared
//! environment of a pod (network, IPC and UTS namespaces, cgroup parent), *containers* run in it.
//! Every operation is idempotent where CRI asks for it: stopping or removing what is already gone
//! succeeds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc};

/// What a runtime operation answers.
pub type Result<T> = std::result::Result<T, RuntimeError>;

/// Why a runtime operation failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The named sandbox, container or image is not known.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        kind: &'static str,
        /// The id or reference that was asked for.
        id: String,
    },
    /// The request can't be carried out as written (a bad option, a missing file to mount …).
    #[error("{0}")]
    Invalid(String),
    /// The program to run is missing or can't be executed; reported as `StartError`, exit 128.
    #[error("{0}")]
    CannotRun(String),
    /// An image can't be obtained.
    #[error("{message}")]
    Pull {
        /// What kubelet shows: `ErrImagePull`, `InvalidImageName`, `RegistryUnavailable` …
        reason: &'static str,
        /// What went wrong, with the reference.
        message: String,
    },
    /// A system call or file operation failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done, with the object's name.
        context: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The operation did not end in the time it was given.
    #[error("{0} timed out")]
    Timeout(String),
    /// A feature that this runtime does not have, refused by name.
    #[error("unsupported: {0}")]
    Unsupported(String),
}

/// Which pod a sandbox belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// Grows with each new sandbox for the same pod.
    pub attempt: u32,
}

/// What a pod's shared environment looks like.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct SandboxConfig {
    /// The pod.
    pub pod: PodRef,
    /// Host name inside (not used with `host_network`).
    pub hostname: String,
    /// Directory under which container logs are written.
    pub log_directory: PathBuf,
    /// Lines of /etc/resolv.conf.
    pub dns: DnsConfig,
    /// Share the host's network namespace.
    pub host_network: bool,
    /// Share the host's PID namespace.
    pub host_pid: bool,
    /// Share the host's IPC namespace.
    pub host_ipc: bool,
    /// One PID namespace for all containers of the pod.
    pub share_process_namespace: bool,
    /// Namespaced sysctls, for example `net.ipv4.ip_unprivileged_port_start`.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of the pod's cgroup as a whole.
    pub resources: Resources,
    /// Ports published on the host.
    pub port_mappings: Vec<PortMapping>,
    /// Labels, kept with the sandbox and returned as given.
    pub labels: BTreeMap<String, String>,
    /// Annotations, kept with the sandbox and returned as given.
    pub annotations: BTreeMap<String, String>,
}

/// Content of /etc/resolv.conf.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// `search` domains.
    pub searches: Vec<String>,
    /// `options`.
    pub options: Vec<String>,
}

/// A host port that leads to a container port.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the host.
    pub host_port: u16,
    /// Host address, empty for all.
    pub host_ip: String,
}

/// Limits of a cgroup. `None` means no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// CPU weight in cgroup v1 shares (2 to 262144).
    pub cpu_shares: Option<u64>,
    /// CPU time in µs per period.
    pub cpu_quota: Option<i64>,
    /// CPU period in µs (usually 100,000).
    pub cpu_period: Option<u64>,
    /// Memory in bytes.
    pub memory_limit: Option<i64>,
    /// Number of processes.
    pub pids_limit: Option<i64>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
}

/// The state of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SandboxState {
    /// Its namespaces exist and containers can run in it.
    Ready,
    /// It was stopped, or the machine restarted.
    NotReady,
}

/// A sandbox as the runtime sees it.
#[derive(Debug, Clone)]
pub struct SandboxStatus {
    /// Runtime's id, 64 hex digits.
    pub id: String,
    /// The pod.
    pub pod: PodRef,
    /// Whether containers can run in it.
    pub state: SandboxState,
    /// Creation, ns since the epoch.
    pub created_at: i64,
    /// Pod addresses; empty with host network.
    pub ips: Vec<IpAddr>,
    /// The pinned network namespace, when the sandbox has its own.
    pub netns: Option<PathBuf>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub annotations: BTreeMap<String, String>,
}

/// A mount from the host into a container.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// Absolute path inside.
    pub container_path: PathBuf,
    /// Path on the host; a file or a directory that exists. Of no meaning with an `image`.
    pub host_path: PathBuf,
    /// The files of an image instead: read-only, and nothing in them can be executed.
    #[serde(default)]
    pub image: Option<ImageMount>,
    /// Mounted read-only.
    pub readonly: bool,
    /// `None`, `HostToContainer` (rslave) or `Bidirectional` (rshared).
    pub propagation: Propagation,
}

/// What of an image is mounted.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct ImageMount {
    /// Image id or reference, already present.
    pub image: String,
    /// A file or directory in it that must exist; empty for all of it.
    pub sub_path: String,
}

/// How mounts made later on one side show on the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Propagation {
    /// Not at all (rprivate).
    #[default]
    None,
    /// rslave.
    HostToContainer,
    /// rshared.
    Bidirectional,
}

/// What to run.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct ContainerConfig {
    /// Name within the pod.
    pub name: String,
    /// Restart count.
    pub attempt: u32,
    /// Image id or reference, already present.
    pub image: String,
    /// Replaces the image's ENTRYPOINT when not empty.
    pub command: Vec<String>,
    /// Replaces the image's CMD when not empty (CMD is dropped when only `command` is given).
    pub args: Vec<String>,
    /// Empty: the image's.
    pub working_dir: String,
    /// Added to the image's environment.
    pub env: Vec<(String, String)>,
    /// Host files and directories.
    pub mounts: Vec<Mount>,
    /// Devices: (host path, container path, permissions such as `rwm`).
    pub devices: Vec<(PathBuf, PathBuf, String)>,
    /// As given back by status.
    pub labels: BTreeMap<String, String>,
    /// As given back by status.
    pub annotations: BTreeMap<String, String>,
    /// Log file relative to the sandbox's `log_directory`.
    pub log_path: PathBuf,
    /// Keep stdin open.
    pub stdin: bool,
    /// Close stdin after the first attach ends.
    pub stdin_once: bool,
    /// Allocate a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: Resources,
    /// What it may do.
    pub security: Security,
    /// A signal number to stop with instead of the image's STOPSIGNAL (default SIGTERM).
    pub stop_signal: Option<i32>,
    /// Id of a running container whose processes it sees: it joins that PID namespace.
    #[serde(default)]
    pub pid_of: Option<String>,
}

/// What a container may do.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Security {
    /// All capabilities, host devices, no masks, no seccomp.
    pub privileged: bool,
    /// Capabilities added to the default set, without `CAP_`; `ALL` is allowed.
    pub add_capabilities: Vec<String>,
    /// Capabilities removed from the default set; `ALL` is allowed.
    pub drop_capabilities: Vec<String>,
    /// Numeric user; `None` uses the image's USER.
    pub run_as_user: Option<i64>,
    /// Numeric group.
    pub run_as_group: Option<i64>,
    /// Refuse to start as uid 0.
    pub run_as_non_root: bool,
    /// Supplemental groups, fsGroup included.
    pub supplemental_groups: Vec<i64>,
    /// Only those groups: what the image's /etc/group says of the user does not count.
    #[serde(default)]
    pub strict_groups: bool,
    /// Root file system read-only.
    pub readonly_rootfs: bool,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// Which system calls are filtered.
    pub seccomp: Seccomp,
    /// Mount the real /proc without masked and read-only paths.
    pub unmasked_proc: bool,
}

/// System call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Seccomp {
    /// The runtime's default profile.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A profile file on this node, in the OCI `linux.seccomp` JSON form.
    Localhost(PathBuf),
}

/// Life of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended.
    Exited,
    /// The runtime can't tell.
    Unknown,
}

/// A container as the runtime sees it.
#[derive(Debug, Clone)]
pub struct ContainerStatus {
    /// Runtime's id, 64 hex digits.
    pub id: String,
    /// The sandbox it runs in.
    pub sandbox_id: String,
    /// Name within the pod.
    pub name: String,
    /// Restart count it was made with.
    pub attempt: u32,
    /// Where it is in its life.
    pub state: ContainerState,
    /// ns since the epoch; 0 when it has not happened.
    pub created_at: i64,
    /// ns since the epoch; 0 when it has not happened.
    pub started_at: i64,
    /// ns since the epoch; 0 when it has not happened.
    pub finished_at: i64,
    /// Exit code, 128 + signal when killed; 137 with reason `OOMKilled`.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerCannotRun`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The reference it was made from.
    pub image: String,
    /// Digest of the image's configuration (`sha256:…`).
    pub image_id: String,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub annotations: BTreeMap<String, String>,
    /// The log file, absolute.
    pub log_path: PathBuf,
    /// Pid of its first process on the host, when it runs.
    pub pid: Option<i32>,
    /// Whom its first process was started as, once it was.
    pub user: Option<ContainerUser>,
}

/// The numbers of a user, by the image and by what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerUser {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one among them, ascending.
    pub groups: Vec<u32>,
}

/// What a container uses.
#[derive(Debug, Clone, Default)]
pub struct ContainerStats {
    /// When it was read, ns since the epoch.
    pub timestamp: i64,
    /// CPU time used since start, ns.
    pub cpu_usage_ns: u64,
    /// Memory that can't be taken back at once, bytes (usage less inactive file pages).
    pub memory_working_set: u64,
    /// All memory charged, bytes.
    pub memory_usage: u64,
    /// Number of processes.
    pub pids: u64,
    /// Bytes in the writable layer.
    pub rootfs_used_bytes: u64,
}

/// Something that happened without being asked for.
#[derive(Debug, Clone)]
pub struct ContainerEvent {
    /// The container.
    pub container_id: String,
    /// Its sandbox.
    pub sandbox_id: String,
    /// What state it came to.
    pub state: ContainerState,
}

/// A program to run in a running container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Allocate a terminal (stderr is then part of stdout).
    pub tty: bool,
    /// Open stdin.
    pub stdin: bool,
    /// Open stdout.
    pub stdout: bool,
    /// Open stderr.
    pub stderr: bool,
}

/// A stream out of a container.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// A stream into a container. Shutting it down closes stdin.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A program's or container's open streams.
pub struct StreamSession {
    /// Towards it; `None` when not asked for.
    pub stdin: Option<Writer>,
    /// From it.
    pub stdout: Option<Reader>,
    /// From it; always `None` with a terminal.
    pub stderr: Option<Reader>,
    /// Terminal size changes; ignored without a terminal.
    pub resize: mpsc::Sender<TerminalSize>,
    /// Ends with the exit code. For attach: when the container ends or the streams close.
    /// Dropping it before the end kills an exec'd program and merely detaches an attach.
    pub exit: BoxFuture<'static, Result<i32>>,
}

impl std::fmt::Debug for StreamSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamSession").finish_non_exhaustive()
    }
}

/// What a program that ran to its end left.
#[derive(Debug, Clone, Default)]
pub struct ExecOutput {
    /// Standard output, at most 16 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, at most 16 MiB.
    pub stderr: Vec<u8>,
    /// Exit code.
    pub exit_code: i32,
}

/// Connects a sandbox's network namespace; the built-in network or a CNI directory implements it.
pub trait SandboxNetwork: Send + Sync + 'static {
    /// Gives the namespace its link and addresses. Calling it again for the same sandbox answers
    /// the same addresses.
    fn attach<'a>(
        &'a self,
        sandbox_id: &'a str,
        config: &'a SandboxConfig,
        netns: &'a Path,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>>>;

    /// Takes link and addresses back. Succeeds when there is nothing left to take.
    fn detach<'a>(
        &'a self,
        sandbox_id: &'a str,
        config: &'a SandboxConfig,
        netns: &'a Path,
    ) -> BoxFuture<'a, Result<()>>;
}

/// Runs sandboxes and containers. Containers outlive the process that holds a `Runtime`: a new
/// one on the same root finds them again.
pub trait Runtime: Send + Sync + 'static {
    /// Name and version, for `node.status.nodeInfo.containerRuntimeVersion` (`NAME://VERSION`).
    fn version(&self) -> String;

    /// Creates a pod's namespaces, cgroup and network; answers the sandbox's id.
    fn run_sandbox<'a>(&'a self, config: &'a SandboxConfig) -> BoxFuture<'a, Result<String>>;
    /// Kills what still runs in it and gives its network back.
    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Stops it if needed and removes it with its containers.
    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// All sandboxes, ready or not.
    fn list_sandboxes(&self) -> BoxFuture<'_, Result<Vec<SandboxStatus>>>;
    /// One sandbox. An implementation that can tell without listing all should.
    fn sandbox_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<SandboxStatus>> {
        Box::pin(async move {
            let all = self.list_sandboxes().await?;
            all.into_iter()
                .find(|sandbox| sandbox.id == id)
                .ok_or_else(|| RuntimeError::NotFound {
                    kind: "sandbox",
                    id: id.to_owned(),
                })
        })
    }

    /// Prepares a container; answers its id.
    fn create_container<'a>(
        &'a self,
        sandbox_id: &'a str,
        config: &'a ContainerConfig,
    ) -> BoxFuture<'a, Result<String>>;
    /// Starts a created container; returns when its program has been executed.
    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Sends the stop signal, waits up to `grace`, then kills. Zero kills at once.
    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>>;
    /// Removes a container that does not run, its writable layer included; the log stays.
    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// All containers, whatever their state.
    fn list_containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>>>;
    /// One container.
    fn container_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>>;
    /// What it uses now.
    fn container_stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStats>>;
    /// Changes a running container's limits.
    fn update_resources<'a>(
        &'a self,
        id: &'a str,
        resources: &'a Resources,
    ) -> BoxFuture<'a, Result<()>>;
    /// Changes the limits of a sandbox's pod as a whole. A limit that is not given stays.
    fn update_sandbox<'a>(
        &'a self,
        id: &'a str,
        _resources: &'a Resources,
    ) -> BoxFuture<'a, Result<()>> {
        let why = format!("changing the limits of sandbox {id}");
        Box::pin(async move { Err(RuntimeError::Unsupported(why)) })
    }
    /// Makes the log writer open its file again (after rotation).
    fn reopen_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Runs a program in a running container with open streams.
    fn exec<'a>(
        &'a self,
        id: &'a str,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<StreamSession>>;
    /// Runs a program to its end.
    fn exec_sync<'a>(
        &'a self,
        id: &'a str,
        command: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ExecOutput>>;
    /// Connects to a container's own streams.
    fn attach<'a>(
        &'a self,
        id: &'a str,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<StreamSession>>;

    /// Exits and starts as they happen. A receiver that lags must list again.
    fn events(&self) -> broadcast::Receiver<ContainerEvent>;
}

/// Credentials for a registry.
#[derive(Debug, Clone, Default)]
pub struct RegistryAuth {
    /// Basic user name.
    pub username: String,
    /// Basic password.
    pub password: String,
    /// Bearer token; wins over the above.
    pub token: String,
}

/// An image in the local store.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct ImageStatus {
    /// Digest of its configuration (`sha256:…`).
    pub id: String,
    /// Names with tags, normalised (`docker.io/library/nginx:1.24`).
    pub tags: Vec<String>,
    /// Names with digests.
    pub digests: Vec<String>,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// USER of the configuration.
    pub user: String,
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub cmd: Vec<String>,
    /// ns since the epoch when it came into this store.
    pub created_at: i64,
    /// It came from a registry and could be had again.
    #[serde(default)]
    pub pulled: bool,
}

/// The local image store.
pub trait Images: Send + Sync + 'static {
    /// The image a reference names, if present.
    fn status<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<ImageStatus>>>;
    /// Fetches an image from its registry; answers it.
    fn pull<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<&'a RegistryAuth>,
    ) -> BoxFuture<'a, Result<ImageStatus>>;
    /// Reads an OCI layout or docker-archive tar file (plain or gzip). `name` replaces the names
    /// in the archive.
    fn import<'a>(
        &'a self,
        file: &'a Path,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<ImageStatus>>>;
    /// All images.
    fn list(&self) -> BoxFuture<'_, Result<Vec<ImageStatus>>>;
    /// Removes a name, and the image with its layers when no name and no container is left.
    fn remove<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// A shared runtime.
pub type SharedRuntime = Arc<dyn Runtime>;
/// A shared image store.
pub type SharedImages = Arc<dyn Images>;
