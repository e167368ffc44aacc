//! When a log is rotated, and what becomes of the old ones. The agent calls [`rotate`] now and
//! then for every running container.
//!
//! Names are kubelet's, so that log collectors find them: `0.log` is written,
//! `0.log.20260102-030405` was last, older ones end in `.gz`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use evenkeel_runtime::contract::{Runtime, RuntimeError};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How large and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPolicy {
    /// A larger log is rotated, bytes.
    pub max_size: u64,
    /// Files kept for a container, the one being written included; at least 2.
    pub max_files: usize,
}

impl Default for RotationPolicy {
    /// kubelet's `containerLogMaxSize` 10Mi and `containerLogMaxFiles` 5.
    fn default() -> Self {
        Self {
            max_size: 10 * 1024 * 1024,
            max_files: 5,
        }
    }
}

/// What a rotation does, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotationPlan {
    /// Files to delete: too old, or left by an interrupted compression.
    pub remove: Vec<PathBuf>,
    /// Files to compress to the same name with `.gz`.
    pub compress: Vec<PathBuf>,
    /// The new name of the log being written.
    pub rename_to: PathBuf,
}

/// Why a rotation failed.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// A file operation failed.
    #[error("{context} {}", path.display())]
    Io {
        /// What was being done.
        context: &'static str,
        /// To which file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The runtime did not open the log again; the old name was given back.
    #[error("the runtime did not reopen the log")]
    Reopen(#[source] RuntimeError),
}

/// Decides whether a log of `size` bytes is rotated and how. `siblings` are the file names that
/// lie beside it.
pub fn plan(
    log: &Path,
    size: u64,
    siblings: &[String],
    now: Timestamp,
    policy: RotationPolicy,
) -> Option<RotationPlan> {
    if size <= policy.max_size {
        return None;
    }
    let directory = log.parent()?;
    let name = log.file_name()?.to_str()?;
    let prefix = format!("{name}.");
    let mut plan = RotationPlan::default();
    let mut rotated: Vec<&String> = Vec::new();
    for sibling in siblings {
        let Some(suffix) = sibling.strip_prefix(&prefix) else {
            continue;
        };
        if suffix.ends_with(".tmp") {
            plan.remove.push(directory.join(sibling));
        } else {
            rotated.push(sibling);
        }
    }
    // A file that is there both plain and compressed was compressed; the plain one is left over.
    rotated.retain(|file| {
        let leftover = siblings.contains(&format!("{file}.gz"));
        if leftover {
            plan.remove.push(directory.join(file));
        }
        !leftover
    });
    // Times in names sort as text.
    rotated.sort();
    // Beside the log that is written and the one that becomes old now.
    let kept = policy.max_files.saturating_sub(2);
    let excess = rotated.len().saturating_sub(kept);
    plan.remove
        .extend(rotated.drain(..excess).map(|file| directory.join(file)));
    plan.compress = rotated
        .into_iter()
        .filter(|file| !file.ends_with(".gz"))
        .map(|file| directory.join(file))
        .collect();
    let time = now
        .to_zoned(TimeZone::UTC)
        .strftime("%Y%m%d-%H%M%S")
        .to_string();
    let renamed = format!("{name}.{time}");
    // Twice in a second would overwrite the first; the next call rotates.
    if siblings.contains(&renamed) {
        return None;
    }
    plan.rename_to = directory.join(renamed);
    Some(plan)
}

/// Rotates a container's log if it is too large; true when it was.
///
/// # Errors
/// A file operation or the runtime's reopen failed; the log being written is never lost.
pub async fn rotate(
    runtime: &dyn Runtime,
    container: &str,
    log: &Path,
    now: Timestamp,
    policy: RotationPolicy,
) -> Result<bool, RotationError> {
    let size = match fs::metadata(log) {
        Ok(metadata) => metadata.len(),
        // A container that has not written yet, or whose last reopen failed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return runtime
                .reopen_log(container)
                .await
                .map(|()| false)
                .map_err(RotationError::Reopen);
        }
        Err(source) => return Err(failed("can't read", log, source)),
    };
    if size <= policy.max_size {
        return Ok(false);
    }
    let names = siblings(log).map_err(|source| failed("can't list files beside", log, source))?;
    let Some(plan) = plan(log, size, &names, now, policy) else {
        return Ok(false);
    };
    let steps = plan.clone();
    tokio::task::spawn_blocking(move || prepare(&steps))
        .await
        .map_err(|source| failed("interrupted at", log, io::Error::other(source)))??;
    fs::rename(log, &plan.rename_to).map_err(|source| failed("can't rename", log, source))?;
    if let Err(error) = runtime.reopen_log(container).await {
        fs::rename(&plan.rename_to, log)
            .map_err(|source| failed("can't rename back to", log, source))?;
        return Err(RotationError::Reopen(error));
    }
    Ok(true)
}

fn failed(context: &'static str, path: &Path, source: io::Error) -> RotationError {
    RotationError::Io {
        context,
        path: path.to_owned(),
        source,
    }
}

fn siblings(log: &Path) -> io::Result<Vec<String>> {
    let Some(directory) = log.parent() else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

fn prepare(plan: &RotationPlan) -> Result<(), RotationError> {
    for path in &plan.remove {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("can't remove", path, error));
            }
            _ => {}
        }
    }
    for path in &plan.compress {
        compress(path).map_err(|source| failed("can't compress", path, source))?;
    }
    Ok(())
}

/// Compresses beside the original, which goes only when the compressed file is whole.
fn compress(path: &Path) -> io::Result<()> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let unfinished = with(".tmp");
    let mut from = File::open(path)?;
    let mut to = GzEncoder::new(File::create(&unfinished)?, Compression::default());
    io::copy(&mut from, &mut to)?;
    to.finish()?.flush()?;
    fs::rename(&unfinished, with(".gz"))?;
    fs::remove_file(path)
}
