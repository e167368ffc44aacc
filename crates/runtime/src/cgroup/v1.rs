//! cgroup v1, with or without a v2 tree beside it (hybrid).
//!
//! Of the controllers, those are used that hold a limit or a figure: cpu, cpuacct, memory, pids,
//! devices. Each further hierarchy would cost a move of the process per container. Where a v2
//! tree is mounted beside them, groups are made there too, because its `cgroup.kill` is atomic;
//! else the freezer takes that part.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{
    Cgroups, DeviceRule, Placement, Usage, cgroup_mounts, keyed, make, number, processes_below,
    remove_tree, write,
};
use crate::contract::Resources;
use crate::sys;

/// Controllers that are used, where mounted.
const USED: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "devices"];

/// The v1 hierarchies of this machine.
#[derive(Debug)]
pub(crate) struct V1 {
    /// Distinct mount points with the controllers they carry.
    hierarchies: Vec<(PathBuf, Vec<String>)>,
    /// The v2 tree of a hybrid layout, if it can kill.
    unified: Option<PathBuf>,
}

impl V1 {
    /// `None` when no used controller is on v1.
    pub(crate) fn from_mountinfo(mountinfo: &str) -> Option<Self> {
        let mut hierarchies: Vec<(PathBuf, Vec<String>)> = Vec::new();
        let mut unified = None;
        let mut freezer = None;
        for (kind, point, options) in cgroup_mounts(mountinfo) {
            if kind == "cgroup2" {
                unified.get_or_insert(point);
                continue;
            }
            let has = |name: &str| options.split(',').any(|option| option == name);
            let used: Vec<String> = USED
                .iter()
                .filter(|name| has(name))
                .map(|name| (*name).to_owned())
                .collect();
            if !used.is_empty() && !hierarchies.iter().any(|(_, names)| *names == used) {
                hierarchies.push((point, used));
            } else if has("freezer") {
                freezer.get_or_insert(point);
            }
        }
        if hierarchies.is_empty() {
            return None;
        }
        // cgroup.kill came with Linux 5.14; the root group never has it, so ask by version.
        let unified = unified.filter(|_| kernel_at_least(5, 14));
        if unified.is_none()
            && let Some(point) = freezer
        {
            hierarchies.push((point, vec!["freezer".to_owned()]));
        }
        Some(Self {
            hierarchies,
            unified,
        })
    }

    fn dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        self.hierarchies
            .iter()
            .find(|(_, names)| names.iter().any(|name| name == controller))
            .map(|(point, _)| point.join(path))
    }

    /// Every directory that belongs to the group.
    fn dirs(&self, path: &str) -> impl Iterator<Item = PathBuf> {
        self.hierarchies
            .iter()
            .map(|(point, _)| point)
            .chain(&self.unified)
            .map(move |point| point.join(path))
    }

    fn limit(&self, path: &str, resources: &Resources) -> io::Result<()> {
        if let Some(dir) = self.dir("cpu", path) {
            if let Some(shares) = resources.cpu_shares {
                write(&dir.join("cpu.shares"), &shares.to_string())?;
            }
            if let Some(period) = resources.cpu_period
                && period > 0
            {
                write(&dir.join("cpu.cfs_period_us"), &period.to_string())?;
            }
            if let Some(quota) = resources.cpu_quota {
                write(&dir.join("cpu.cfs_quota_us"), &quota.to_string())?;
            }
        }
        if let (Some(dir), Some(limit)) = (self.dir("memory", path), resources.memory_limit) {
            limit_memory(&dir, limit)?;
        }
        if let (Some(dir), Some(limit)) = (self.dir("pids", path), resources.pids_limit) {
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

/// Sets memory and, where swap is accounted, memory plus swap to the same figure: a container
/// swaps nothing. The two are ordered, so the one that makes room goes first.
fn limit_memory(dir: &Path, limit: i64) -> io::Result<()> {
    let value = if limit > 0 {
        limit.to_string()
    } else {
        "-1".to_owned()
    };
    let memory = dir.join("memory.limit_in_bytes");
    let both = dir.join("memory.memsw.limit_in_bytes");
    if !both.exists() {
        return write(&memory, &value);
    }
    if write(&memory, &value).is_ok() {
        return write(&both, &value);
    }
    write(&both, &value)?;
    write(&memory, &value)
}

impl Cgroups for V1 {
    fn create(
        &self,
        path: &str,
        resources: &Resources,
        devices: Option<&[DeviceRule]>,
    ) -> io::Result<()> {
        for dir in self.dirs(path) {
            match fs::create_dir(&dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => make_all(&dir, path)?,
            }
        }
        self.limit(path, resources)?;
        if let (Some(dir), Some(rules)) = (self.dir("devices", path), devices) {
            write(&dir.join("devices.deny"), "a")?;
            let allow = dir.join("devices.allow");
            for rule in rules {
                write(&allow, &rule.line())?;
            }
        }
        Ok(())
    }

    fn placement(&self, path: &str) -> Placement {
        let join = self
            .hierarchies
            .iter()
            .map(|(point, _)| point.join(path).join("cgroup.procs"))
            .collect();
        let into = self.unified.as_ref().map(|point| point.join(path));
        let kill = into.as_ref().map(|dir| dir.join("cgroup.kill"));
        let controllers = self
            .hierarchies
            .iter()
            .filter_map(|(point, _)| {
                // Mounting again takes the very same set of controllers, used or not.
                let name = point.file_name()?.to_str()?.to_owned();
                Some((name.clone(), name))
            })
            .collect();
        Placement {
            join,
            into,
            oom: self
                .dir("memory", path)
                .map(|dir| dir.join("memory.oom_control")),
            kill,
            controllers,
            unified: self.unified.is_some(),
        }
    }

    fn update(&self, path: &str, resources: &Resources) -> io::Result<()> {
        self.limit(path, resources)
    }

    fn usage(&self, path: &str) -> io::Result<Usage> {
        let mut usage = Usage::default();
        if let Some(dir) = self.dir("cpuacct", path) {
            usage.cpu_ns = number(&dir.join("cpuacct.usage"))?;
        }
        if let Some(dir) = self.dir("memory", path) {
            usage.memory = number(&dir.join("memory.usage_in_bytes"))?;
            let stat = fs::read_to_string(dir.join("memory.stat"))?;
            let inactive = keyed(&stat, "total_inactive_file").unwrap_or(0);
            usage.working_set = usage.memory.saturating_sub(inactive);
        }
        if let Some(dir) = self.dir("pids", path) {
            usage.pids = number(&dir.join("pids.current"))?;
        }
        Ok(usage)
    }

    fn kill(&self, path: &str) -> io::Result<()> {
        if let Some(unified) = &self.unified {
            let mut tree = Vec::new();
            super::deepest_first(&unified.join(path), &mut tree);
            // Killing the top reaches everything below.
            return match tree.last() {
                Some(dir) => match write(&dir.join("cgroup.kill"), "1") {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other,
                },
                None => Ok(()),
            };
        }
        let freezer = self
            .dir("freezer", path)
            .map(|dir| dir.join("freezer.state"));
        if let Some(state) = &freezer {
            // Frozen processes can't fork away while they are being counted.
            crate::files::absent_ok(fs::write(state, "FROZEN"))?;
        }
        let processes = self.processes(path)?;
        for pid in processes {
            if let Ok(handle) = sys::pidfd_open(pid) {
                use std::os::fd::AsFd as _;
                // A process that is gone needs no signal.
                sys::pidfd_send_signal(handle.as_fd(), libc::SIGKILL).ok();
            }
        }
        if let Some(state) = &freezer {
            crate::files::absent_ok(fs::write(state, "THAWED"))?;
        }
        Ok(())
    }

    fn processes(&self, path: &str) -> io::Result<Vec<i32>> {
        match self.dirs(path).next() {
            Some(dir) => processes_below(&dir),
            None => Ok(Vec::new()),
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        for dir in self.dirs(path) {
            remove_tree(&dir)?;
        }
        Ok(())
    }
}

/// Makes a group's directory with the parents that its relative path names.
fn make_all(dir: &Path, path: &str) -> io::Result<()> {
    let mut parents: Vec<&Path> = dir.ancestors().take(path.split('/').count()).collect();
    parents.reverse();
    parents.into_iter().try_for_each(make)
}

/// Whether the running kernel is at least this version.
fn kernel_at_least(major: u32, minor: u32) -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut parts = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let running = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    running >= (major, minor)
}
