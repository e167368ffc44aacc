//! How much disk a directory takes.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes of a block as `stat` counts them, whatever the file system's own size.
const BLOCK: u64 = 512;

/// Bytes allocated below `path`, itself included, on its own file system. What can't be read
/// counts nothing; a file with several names counts once.
#[must_use]
pub fn usage(path: &Path) -> u64 {
    usage_and_names(path).0
}

/// As [`usage`], with how many files and directories there are, `path` included.
#[must_use]
pub fn usage_and_names(path: &Path) -> (u64, u64) {
    let Ok(root) = fs::symlink_metadata(path) else {
        return (0, 0);
    };
    let device = root.dev();
    let mut seen = HashSet::new();
    let mut total = root.blocks() * BLOCK;
    let mut names: u64 = 1;
    let mut left = vec![path.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else {
                continue;
            };
            if meta.dev() != device
                || (meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino()))
            {
                continue;
            }
            total = total.saturating_add(meta.blocks().saturating_mul(BLOCK));
            names += 1;
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    (total, names)
}
