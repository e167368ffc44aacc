//! `fsGroup`: everything in a volume belongs to the pod's group, and the group may write it.
//!
//! As kubelet's `SetVolumeOwnership`: directories hand the group down, links are not followed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;

use super::atomic::text;

/// What the group may do with files.
const FILES: u32 = 0o660;
/// And with directories, which also hand it down.
const DIRECTORIES: u32 = 0o2770;

/// Gives a tree to a group. `only_on_mismatch`: nothing is done where the root is right already.
///
/// # Errors
/// What could not be changed.
pub fn give(root: &Path, group: u32, only_on_mismatch: bool) -> Result<(), String> {
    let meta = fs::symlink_metadata(root).map_err(|error| text(root, &error))?;
    if only_on_mismatch && meta.gid() == group && meta.mode() & DIRECTORIES == DIRECTORIES {
        return Ok(());
    }
    // The root last: it says that all below is done.
    below(root, group)?;
    one(root, &meta, group)
}

fn below(directory: &Path, group: u32) -> Result<(), String> {
    for entry in fs::read_dir(directory).map_err(|error| text(directory, &error))? {
        let path = entry.map_err(|error| text(directory, &error))?.path();
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            // Somebody who uses the volume has just removed it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(text(&path, &error)),
        };
        if meta.is_dir() {
            below(&path, group)?;
        }
        one(&path, &meta, group)?;
    }
    Ok(())
}

fn one(path: &Path, meta: &fs::Metadata, group: u32) -> Result<(), String> {
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    match lchown(path, None, Some(group)) {
        Err(error) if !gone(&error) => return Err(text(path, &error)),
        _ => {}
    }
    if meta.is_symlink() {
        return Ok(());
    }
    let wanted = if meta.is_dir() { DIRECTORIES } else { FILES };
    let mode = (meta.mode() & 0o7777) | wanted;
    match fs::set_permissions(path, fs::Permissions::from_mode(mode)) {
        Err(error) if !gone(&error) => Err(text(path, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_becomes_the_groups_and_is_left_alone_when_its_root_is_right() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: groups are root's to change");
            return;
        }
        let home = tempfile::tempdir().expect("a directory");
        let root = home.path().join("v");
        fs::create_dir_all(root.join("d")).expect("a directory");
        fs::write(root.join("d/f"), "x").expect("a file");
        fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o604)).expect("a mode");
        give(&root, 2000, false).expect("it is given");
        let meta = |path: &str| fs::metadata(root.join(path)).expect("it is there");
        assert_eq!(
            (meta("d/f").gid(), meta("d/f").mode() & 0o7777),
            (2000, 0o664)
        );
        assert_eq!(meta("d").mode() & 0o2770, 0o2770);
        lchown(root.join("d/f"), None, Some(0)).expect("root again");
        give(&root, 2000, true).expect("nothing to do");
        assert_eq!(meta("d/f").gid(), 0);
        give(&root, 2000, false).expect("it is given again");
        assert_eq!(meta("d/f").gid(), 2000);
    }
}
