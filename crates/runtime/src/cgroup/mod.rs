//! Control groups: one trait, two implementations (v1 and hybrid, v2), detected at start.
//!
//! What lives here: limits, membership, figures, killing and removal of groups. What never lives
//! here: what the limits should be. Groups are named by a path relative to the hierarchy's root,
//! `evenkeel-<instance>/pod<uid>/<container id>`, the same in every hierarchy.

mod devices;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::contract::Resources;

pub(crate) use devices::{DeviceRule, default_rules};
pub(crate) use v1::V1;
pub(crate) use v2::V2;

/// How a process gets into a group, and what the shim looks at when the container ends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Placement {
    /// `cgroup.procs` (v1: `tasks` hierarchies) files to write `0` to.
    pub(crate) join: Vec<PathBuf>,
    /// A v2 directory to be cloned into, which costs less than a later move.
    pub(crate) into: Option<PathBuf>,
    /// A file with an `oom_kill N` line.
    pub(crate) oom: Option<PathBuf>,
    /// `cgroup.kill`, where there is one.
    pub(crate) kill: Option<PathBuf>,
    /// What to mount below /sys/fs/cgroup in a container: directory name and mount data, by
    /// controller for v1; empty on pure v2.
    pub(crate) controllers: Vec<(String, String)>,
    /// A v2 tree is mounted beside the v1 ones as `unified`.
    pub(crate) unified: bool,
}

/// A reading of a group's use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time, ns.
    pub(crate) cpu_ns: u64,
    /// Charged memory, bytes.
    pub(crate) memory: u64,
    /// Charged memory less inactive file pages, bytes.
    pub(crate) working_set: u64,
    /// Processes and threads.
    pub(crate) pids: u64,
}

/// What the runtime needs from either version.
pub(crate) trait Cgroups: Send + Sync + 'static {
    /// Makes the group (and its parents) with limits. `devices` replaces the allowed devices;
    /// `None` leaves all allowed.
    fn create(
        &self,
        path: &str,
        resources: &Resources,
        devices: Option<&[DeviceRule]>,
    ) -> io::Result<()>;
    /// How to enter a group that was made.
    fn placement(&self, path: &str) -> Placement;
    /// Changes limits.
    fn update(&self, path: &str, resources: &Resources) -> io::Result<()>;
    /// Reads figures.
    fn usage(&self, path: &str) -> io::Result<Usage>;
    /// Sends SIGKILL to every process in it and below. Returns before they are gone.
    fn kill(&self, path: &str) -> io::Result<()>;
    /// Processes in it and below, by their pid here.
    fn processes(&self, path: &str) -> io::Result<Vec<i32>>;
    /// Removes the group with the groups below. `WouldBlock`-like `EBUSY` while processes remain.
    fn remove(&self, path: &str) -> io::Result<()>;
}

/// Finds out what this machine has.
pub(crate) fn detect() -> io::Result<Arc<dyn Cgroups>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    if let Some(v1) = V1::from_mountinfo(&mounts) {
        return Ok(Arc::new(v1));
    }
    if let Some(v2) = V2::from_mountinfo(&mounts) {
        return Ok(Arc::new(v2));
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "no cgroup hierarchy is mounted; mount cgroup2 at /sys/fs/cgroup",
    ))
}

/// One cgroup mount of /proc/self/mountinfo: type, mount point, super options.
fn cgroup_mounts(mountinfo: &str) -> impl Iterator<Item = (&str, PathBuf, &str)> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        let mut after = after.split(' ');
        let kind = after.next()?;
        if kind != "cgroup" && kind != "cgroup2" {
            return None;
        }
        Some((kind, PathBuf::from(point), after.nth(1)?))
    })
}

/// Writes a value to a control file.
fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("write {value:?} to {}: {error}", path.display()),
        )
    })
}

/// Makes a directory that may be there already.
fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("create cgroup {}: {error}", path.display()),
            )
        }),
    }
}

/// The number after `key ` on a line of its own.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok()).flatten()
    })
}

/// The `oom_kill` counter in a file that [`Placement::oom`] names; 0 when it can't be read.
pub(crate) fn oom_kills(path: &Path) -> u64 {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| keyed(&text, "oom_kill"))
        .unwrap_or(0)
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} has no number", path.display()),
        )
    })
}

/// Groups from the deepest to `dir` itself.
fn deepest_first(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(listing) = fs::read_dir(dir) else {
        return;
    };
    for entry in listing.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            deepest_first(&entry.path(), out);
        }
    }
    out.push(dir.to_path_buf());
}

/// Removes `dir` and the groups below it.
fn remove_tree(dir: &Path) -> io::Result<()> {
    // The usual case is a leaf; only a group with groups below refuses.
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    let mut groups = Vec::new();
    deepest_first(dir, &mut groups);
    for group in groups {
        crate::files::absent_ok(fs::remove_dir(group))?;
    }
    Ok(())
}

/// Processes in `dir` and below, without duplicates.
fn processes_below(dir: &Path) -> io::Result<Vec<i32>> {
    let mut groups = Vec::new();
    deepest_first(dir, &mut groups);
    let mut pids = Vec::new();
    for group in groups {
        match fs::read_to_string(group.join("cgroup.procs")) {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A group whose processes are all being reaped answers this for a moment.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

#[cfg(test)]
mod tests;
