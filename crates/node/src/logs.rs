//! Log files of containers: rotation and removal.
//!
//! The runtime writes a log and opens it again when told; how large it may grow and how many old
//! ones stay is the agent's to say. Rotation renames, so that a reader that follows the file goes
//! on with the old one to its end.

use std::path::{Path, PathBuf};

use crate::volume::blocking;

/// Size at which a log is put aside, bytes.
pub(crate) const MAX_SIZE: u64 = 10 << 20;
/// Log files of one container, the current one included.
pub(crate) const MAX_FILES: usize = 5;

/// Files that hold older parts of a log, the oldest first.
#[must_use]
pub(crate) fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Puts a log aside if it has grown too large; true when the writer must open it again.
///
/// # Errors
/// What failed, with the path.
pub(crate) fn rotate(log: &Path, stamp: &str) -> Result<bool, String> {
    let text = |error: std::io::Error| format!("{}: {error}", log.display());
    match std::fs::metadata(log) {
        Ok(meta) if meta.len() >= MAX_SIZE => {}
        _ => return Ok(false),
    }
    let mut aside = log.as_os_str().to_owned();
    aside.push(format!(".{stamp}"));
    std::fs::rename(log, &aside).map_err(text)?;
    let old = rotated(log);
    let surplus = (old.len() + 1).saturating_sub(MAX_FILES);
    for file in old.iter().take(surplus) {
        std::fs::remove_file(file).map_err(text)?;
    }
    Ok(true)
}

/// Removes a container's log with its older parts; what is gone already is fine.
pub(crate) async fn remove(log: PathBuf) {
    let removed = blocking(move || {
        for file in rotated(&log).into_iter().chain([log]) {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("{}: {error}", file.display()));
                }
                _ => {}
            }
        }
        Ok(())
    })
    .await;
    if let Err(error) = removed {
        tracing::warn!(error, "log not removed");
    }
}
