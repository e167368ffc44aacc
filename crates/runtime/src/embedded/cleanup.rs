//! Removing everything of an instance from the machine, without its runtime running.

use std::fs;
use std::path::Path;

use super::container::remove_group;
use super::sandbox::unpin;
use crate::cgroup;
use crate::contract::Result;
use crate::files::{self, Context as _};

/// Ends every process, and removes every mount, namespace pin and cgroup of `instance` with the
/// state at `root`. Succeeds when there is nothing. The runtime on that root must not be running.
///
/// Network links and addresses belong to the sandbox network, which cleans up for itself.
///
/// # Errors
/// When something can't be removed; calling again continues.
pub fn cleanup(root: &Path, instance: &str) -> Result<()> {
    let group = format!("evenkeel-{instance}");
    let cgroups = cgroup::detect().context(|| "look for cgroups".to_owned())?;
    cgroups
        .kill(&group)
        .context(|| format!("kill cgroup {group}"))?;
    remove_group(&*cgroups, &group).context(|| format!("remove cgroup {group}"))?;
    let sandboxes = root.join("sandboxes");
    for id in files::entries(&sandboxes).context(|| format!("list {}", sandboxes.display()))? {
        unpin(&sandboxes.join(id))?;
    }
    for part in [
        "sandboxes",
        "containers",
        "seccomp",
        "trash",
        "boot",
        "lock",
    ] {
        let path = root.join(part);
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        files::absent_ok(removed).context(|| format!("remove {}", path.display()))?;
    }
    // The root itself only when nothing of others is in it.
    fs::remove_dir(root).ok();
    Ok(())
}
