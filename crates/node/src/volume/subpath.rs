//! `subPath`: a part of a volume, found without ever leaving it.
//!
//! A container may replace any component by a symbolic link while we look, so the path is resolved
//! by the kernel below the volume's directory (`openat2` with `RESOLVE_BENEATH`), and what was
//! opened is bound to a place only the agent can write to. The runtime gets that place, not the
//! path.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::mount_bind;

use super::release::{is_mount, make_dir};

/// Binds `sub` of the volume at `volume` to `target`; makes a directory where nothing is there.
///
/// # Errors
/// When the path leaves the volume or can't be bound.
pub fn bind(volume: &Path, sub: &str, target: &Path) -> Result<(), String> {
    let relative = Path::new(sub);
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if relative.is_absolute() || !plain {
        return Err(format!(
            "subPath {sub:?} must be a relative path without '..'"
        ));
    }
    let failed = |error: rustix::io::Errno| {
        format!(
            "failed to prepare subPath {sub:?} of {}: {error}",
            volume.display()
        )
    };
    let root =
        rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let found = match open_beneath(&root, relative) {
        Err(rustix::io::Errno::NOENT) => {
            make_beneath(&root, relative).map_err(failed)?;
            open_beneath(&root, relative).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    let stat = rustix::fs::fstat(&found).map_err(failed)?;
    let is_dir =
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    if fs::symlink_metadata(target).is_ok() && is_mount(target)? {
        return Ok(());
    }
    if is_dir {
        make_dir(target, 0o750)?;
    } else {
        if let Some(parent) = target.parent() {
            make_dir(parent, 0o750)?;
        }
        fs::File::create(target).map_err(|error| format!("{}: {error}", target.display()))?;
    }
    let source = format!("/proc/self/fd/{}", found.as_fd().as_raw_fd());
    mount_bind(source.as_str(), target).map_err(failed)
}

fn open_beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    openat2(
        root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Makes the missing directories one by one, each opened below the one before. Whoever may write
/// to the volume may write to them.
fn make_beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(root)?.st_mode & 0o7777);
    let mut at = open_beneath(root, Path::new("."))?;
    for part in path.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        let name = Path::new(name);
        at = match open_beneath(&at, name) {
            Err(rustix::io::Errno::NOENT) => {
                let dir = openat2(
                    &at,
                    ".",
                    OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                    ResolveFlags::BENEATH,
                )?;
                rustix::fs::mkdirat(&dir, name, mode)?;
                rustix::fs::chmodat(&dir, name, mode, rustix::fs::AtFlags::empty())?;
                open_beneath(&at, name)?
            }
            other => other?,
        };
    }
    Ok(())
}
