//! Taking a pod's directory down: unmount what is mounted below it, then remove it.
//!
//! Nothing is removed while anything is still mounted below: a bind mount leads to files that are
//! not the pod's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use super::atomic::{set_mode, text};

/// Makes a directory with its parents. The mode is set whatever the umask says; parents are only
/// for the agent.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), String> {
    match fs::create_dir_all(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(text(path, &error)),
    }
    set_mode(path, mode)
}

/// Mount points of this process at or below `root`.
pub(crate) fn mounts_below(root: &Path) -> Result<Vec<PathBuf>, String> {
    let table = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| text(Path::new("/proc/self/mountinfo"), &error))?;
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|path| path.starts_with(root))
        .collect())
}

/// Is something mounted right there?
pub(crate) fn is_mount(path: &Path) -> Result<bool, String> {
    Ok(mounts_below(path)?.iter().any(|mounted| mounted == path))
}

/// `\040` and its like, as the kernel writes spaces.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let bytes = field.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Unmounts everything below `dir`, the last mounted first.
///
/// # Errors
/// What could not be unmounted.
pub fn unmount_below(dir: &Path) -> Result<(), String> {
    for path in mounts_below(dir)?.into_iter().rev() {
        match unmount(&path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(format!("unmount {}: {error}", path.display())),
        }
    }
    Ok(())
}

/// Unmounts and removes a pod's directory. Succeeds when there is nothing to remove.
///
/// # Errors
/// What is still mounted or could not be removed.
pub fn remove_pod_dir(dir: &Path) -> Result<(), String> {
    if fs::symlink_metadata(dir).is_err() {
        return Ok(());
    }
    unmount_below(dir)?;
    if let Some(left) = mounts_below(dir)?.first() {
        return Err(format!("{} is still mounted", left.display()));
    }
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(text(dir, &error)),
    }
}
