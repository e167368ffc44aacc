//! cgroup v2, the unified hierarchy.
//!
//! Limits come in v1 units, as the CRI has them; shares become weights by the formula of KEP-2254
//! so that 2..262144 spans 1..10000.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::{
    Cgroups, DeviceRule, Placement, Usage, cgroup_mounts, devices, keyed, make, number,
    processes_below, remove_tree, write,
};
use crate::contract::Resources;
use crate::sys;

/// Controllers that are enabled for our groups, where the kernel has them.
const USED: [&str; 3] = ["cpu", "memory", "pids"];

/// The v2 hierarchy.
#[derive(Debug)]
pub(crate) struct V2 {
    root: PathBuf,
}

impl V2 {
    /// `None` when no v2 tree is mounted.
    pub(crate) fn from_mountinfo(mountinfo: &str) -> Option<Self> {
        cgroup_mounts(mountinfo)
            .find(|(kind, _, _)| *kind == "cgroup2")
            .map(|(_, root, _)| Self { root })
    }

    /// Lets the groups below `dir` have the used controllers.
    fn enable(dir: &Path) -> io::Result<()> {
        let available = fs::read_to_string(dir.join("cgroup.controllers"))?;
        let enabled = fs::read_to_string(dir.join("cgroup.subtree_control"))?;
        let missing: Vec<String> = USED
            .iter()
            .filter(|name| available.split_whitespace().any(|have| have == **name))
            .filter(|name| !enabled.split_whitespace().any(|have| have == **name))
            .map(|name| format!("+{name}"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        write(&dir.join("cgroup.subtree_control"), &missing.join(" "))
    }

    fn limit(dir: &Path, resources: &Resources) -> io::Result<()> {
        // A controller that the kernel lacks leaves its limit without a file to write to; the
        // reference's runtimes refuse such a limit, and so does the write.
        if let Some(shares) = resources.cpu_shares {
            write(&dir.join("cpu.weight"), &weight(shares).to_string())?;
        }
        if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
            let period = resources
                .cpu_period
                .filter(|period| *period > 0)
                .unwrap_or(100_000);
            let quota = match resources.cpu_quota {
                Some(quota) if quota > 0 => quota.to_string(),
                _ => "max".to_owned(),
            };
            write(&dir.join("cpu.max"), &format!("{quota} {period}"))?;
        }
        if let Some(limit) = resources.memory_limit {
            let value = if limit > 0 {
                limit.to_string()
            } else {
                "max".to_owned()
            };
            write(&dir.join("memory.max"), &value)?;
            let swap = dir.join("memory.swap.max");
            if limit > 0 && swap.exists() {
                write(&swap, "0")?;
            }
        }
        if let Some(limit) = resources.pids_limit {
            let value = if limit > 0 {
                limit.to_string()
            } else {
                "max".to_owned()
            };
            write(&dir.join("pids.max"), &value)?;
        }
        Ok(())
    }
}

/// cpu.weight for cpu.shares.
pub(super) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

impl Cgroups for V2 {
    fn create(
        &self,
        path: &str,
        resources: &Resources,
        devices: Option<&[DeviceRule]>,
    ) -> io::Result<()> {
        let mut dir = self.root.clone();
        for part in path.split('/') {
            Self::enable(&dir)?;
            dir.push(part);
            make(&dir)?;
        }
        Self::limit(&dir, resources)?;
        let leaf = devices.is_some();
        if leaf && dir.join("memory.oom.group").exists() {
            // As kubelet asks for on v2: a container is killed as a whole.
            write(&dir.join("memory.oom.group"), "1")?;
        }
        if let Some(rules) = devices {
            let handle = File::open(&dir)?;
            sys::attach_device_program(handle.as_fd(), &devices::program(rules)).map_err(
                |error| {
                    io::Error::new(
                        error.kind(),
                        format!("attach the device filter to {}: {error}", dir.display()),
                    )
                },
            )?;
        }
        Ok(())
    }

    fn placement(&self, path: &str) -> Placement {
        let dir = self.root.join(path);
        Placement {
            join: Vec::new(),
            oom: Some(dir.join("memory.events")),
            kill: Some(dir.join("cgroup.kill")),
            into: Some(dir),
            controllers: Vec::new(),
            unified: true,
        }
    }

    fn update(&self, path: &str, resources: &Resources) -> io::Result<()> {
        Self::limit(&self.root.join(path), resources)
    }

    fn usage(&self, path: &str) -> io::Result<Usage> {
        let dir = self.root.join(path);
        let cpu = fs::read_to_string(dir.join("cpu.stat"))?;
        let mut usage = Usage {
            cpu_ns: keyed(&cpu, "usage_usec").unwrap_or(0).saturating_mul(1000),
            ..Usage::default()
        };
        if let Ok(memory) = number(&dir.join("memory.current")) {
            let stat = fs::read_to_string(dir.join("memory.stat"))?;
            usage.memory = memory;
            usage.working_set = memory.saturating_sub(keyed(&stat, "inactive_file").unwrap_or(0));
        }
        usage.pids = number(&dir.join("pids.current")).unwrap_or(0);
        Ok(usage)
    }

    fn kill(&self, path: &str) -> io::Result<()> {
        let dir = self.root.join(path);
        match write(&dir.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        // Before Linux 5.14: freeze, kill, thaw.
        let freeze = dir.join("cgroup.freeze");
        crate::files::absent_ok(fs::write(&freeze, "1"))?;
        for pid in self.processes(path)? {
            if let Ok(handle) = sys::pidfd_open(pid) {
                // A process that is gone needs no signal.
                sys::pidfd_send_signal(handle.as_fd(), libc::SIGKILL).ok();
            }
        }
        crate::files::absent_ok(fs::write(&freeze, "0"))
    }

    fn processes(&self, path: &str) -> io::Result<Vec<i32>> {
        processes_below(&self.root.join(path))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        remove_tree(&self.root.join(path))
    }
}
