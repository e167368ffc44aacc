//! What the helper processes are told: everything decided, nothing left to choose.
//!
//! The runtime resolves images, paths, limits and rights into these plain structs; the helper
//! carries them out. They are kept as `spec.json` beside the container, so that they can be read
//! by whoever looks into a failure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::Placement;
use crate::contract::Propagation;
use crate::wire::Started;

/// A program and the rights it runs with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Program and arguments; never empty.
    pub(crate) args: Vec<String>,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    /// Working directory inside.
    pub(crate) cwd: String,
    /// Capabilities as bits.
    pub(crate) capabilities: u64,
    /// `no_new_privs`.
    pub(crate) no_new_privs: bool,
    /// File with the compiled seccomp filter.
    pub(crate) seccomp: Option<PathBuf>,
    /// -1000 to 1000.
    pub(crate) oom_score_adj: Option<i32>,
    /// On a pseudo terminal.
    pub(crate) tty: bool,
}

/// Whom the program runs as, before the image's files were asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct UserSpec {
    /// USER of the image: `name`, `uid`, `name:group`, `uid:gid` or empty.
    pub(crate) image: String,
    /// Replaces the image's user.
    pub(crate) uid: Option<u32>,
    /// Replaces the group.
    pub(crate) gid: Option<u32>,
    /// Supplementary groups beside those of the image's /etc/group.
    pub(crate) groups: Vec<u32>,
    /// Leave out those of the image's /etc/group.
    #[serde(default)]
    pub(crate) strict_groups: bool,
    /// Refuse uid 0.
    pub(crate) non_root: bool,
}

/// The overlay that becomes the root.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Root {
    /// Directory that the names in `lower` are relative to, which keeps the mount data short.
    pub(crate) layers: PathBuf,
    /// Layer directories, the topmost first.
    pub(crate) lower: Vec<String>,
    /// Writable layer.
    pub(crate) upper: PathBuf,
    /// The overlay's scratch directory.
    pub(crate) work: PathBuf,
    /// Where it is mounted before pivoting; an empty directory.
    pub(crate) target: PathBuf,
    /// Read-only in the end.
    pub(crate) readonly: bool,
}

/// Namespaces to join by file; `None` means the host's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    /// Network.
    pub(crate) net: Option<PathBuf>,
    /// System V IPC and message queues.
    pub(crate) ipc: Option<PathBuf>,
    /// Host name.
    pub(crate) uts: Option<PathBuf>,
    /// The pod's shared PID namespace.
    pub(crate) pid: Option<PathBuf>,
    /// A PID namespace of its own (neither the pod's nor the host's).
    pub(crate) own_pid: bool,
}

/// A host file or directory seen inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bind {
    /// On the host; empty where there are layers.
    pub(crate) source: PathBuf,
    /// An image's files instead.
    #[serde(default)]
    pub(crate) layers: Option<Layers>,
    /// Inside, absolute.
    pub(crate) target: PathBuf,
    /// Read-only, with everything mounted below it.
    pub(crate) readonly: bool,
    /// How later mounts show.
    pub(crate) propagation: Propagation,
}

/// The files of an image, seen without running it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Layers {
    /// Directory that the names in `lower` are relative to.
    pub(crate) dir: PathBuf,
    /// Layer directories, the topmost first.
    pub(crate) lower: Vec<String>,
    /// What of them; empty for all.
    pub(crate) sub_path: PathBuf,
    /// An empty directory to mount them at for a moment.
    pub(crate) at: PathBuf,
}

/// A device node to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Device {
    /// Inside, absolute.
    pub(crate) path: PathBuf,
    /// Block device, else character device.
    pub(crate) block: bool,
    /// Major number.
    pub(crate) major: u32,
    /// Minor number.
    pub(crate) minor: u32,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
}

/// A container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    /// 64 hex digits.
    pub(crate) id: String,
    /// Its program.
    pub(crate) process: Process,
    /// As whom.
    pub(crate) user: UserSpec,
    /// Its root.
    pub(crate) root: Root,
    /// Where it joins.
    pub(crate) namespaces: Namespaces,
    /// In mounting order.
    pub(crate) binds: Vec<Bind>,
    /// Beside the standard ones.
    pub(crate) devices: Vec<Device>,
    /// Its cgroup.
    pub(crate) placement: Placement,
    /// Writable /sys and cgroups of the host, nothing masked.
    pub(crate) privileged: bool,
    /// /proc without masked and read-only paths.
    pub(crate) unmasked: bool,
    /// /dev/shm comes from here.
    pub(crate) shm: PathBuf,
    /// Log file, absolute; no log when absent.
    pub(crate) log: Option<PathBuf>,
    /// Keep a stdin pipe.
    pub(crate) stdin: bool,
    /// Close it after the first attach.
    pub(crate) stdin_once: bool,
}

/// A container's start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StartRequest {
    /// The container's directory, which holds `spec.json`.
    pub(crate) dir: PathBuf,
}

/// A program to run in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExecSpec {
    /// The running container.
    pub(crate) container: Started,
    /// The program.
    pub(crate) process: Process,
    /// The container's cgroup.
    pub(crate) placement: Placement,
    /// Descriptors for stdin, stdout and stderr follow the request, in this order, where true.
    pub(crate) stdio: [bool; 3],
}

/// A sandbox's namespaces.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct SandboxSpec {
    /// The sandbox's directory.
    pub(crate) dir: PathBuf,
    /// Host name to set in a UTS namespace of its own; the host's when absent.
    pub(crate) hostname: Option<String>,
    /// A network namespace of its own.
    pub(crate) net: bool,
    /// An IPC namespace of its own.
    pub(crate) ipc: bool,
    /// A PID namespace that the containers share, held by a process that only reaps.
    pub(crate) pid: bool,
    /// Name with dots, value.
    pub(crate) sysctls: Vec<(String, String)>,
    /// Cgroup of the reaping process.
    pub(crate) placement: Option<Placement>,
}

/// What a sandbox helper answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct SandboxMade {
    /// The reaping process.
    pub(crate) pause: Option<i32>,
}
