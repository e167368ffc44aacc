//! Removal of the log files of containers that nobody asks about any more. Rotation is in
//! [`crate::server::rotate`], beside the code that reads rotated logs.

use std::path::{Path, PathBuf};

use crate::volume::blocking;

/// Files that hold older parts of a log, the oldest first.
#[must_use]
fn rotated(log: &Path) -> Vec<PathBuf> {
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
