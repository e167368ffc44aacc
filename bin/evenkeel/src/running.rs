//! Which process serves a data directory: a file with its id, locked as long as it lives.
//!
//! The lock says whether anybody runs, and ends with the process however that ends; the id in the
//! file says whom to signal. A file without a lock is left over and means nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

/// Name of the file in the data directory.
const FILE: &str = "evenkeel.pid";

/// The claim on a data directory; given up when dropped.
#[derive(Debug)]
pub(crate) struct Running(File);

impl Running {
    /// Claims a data directory for this process.
    ///
    /// # Errors
    /// Another process has it, or the file can't be written.
    pub(crate) fn claim(data: &Path) -> anyhow::Result<Self> {
        let path = data.join(FILE);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("can't open {}", path.display()))?;
        if !locked_within(&file, PATIENCE) {
            let mut holder = String::new();
            file.read_to_string(&mut holder)
                .with_context(|| format!("can't read {}", path.display()))?;
            anyhow::bail!(
                "data directory {} is in use by another evenkeel (process {}); stop it, or choose \
                 another directory with --data-dir",
                data.display(),
                holder.trim()
            );
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("can't write {}", path.display()))?;
        Ok(Self(file))
    }
}

/// How long who was just ended may keep the lock: a child that it was starting has it until that
/// runs its own program.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether the lock could be taken. Blocks.
fn locked_within(file: &File, patience: Duration) -> bool {
    let begun = Instant::now();
    loop {
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        if begun.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The lock ends with the descriptor; an empty file names nobody in the meantime.
        if let Err(error) = self.0.set_len(0) {
            tracing::debug!(%error, "the process id can't be taken back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_claimed_once_and_soon_after_it_is_given_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Running::claim(dir.path()).expect("nobody has it");
        let refused = Running::claim(dir.path()).expect_err("it is taken");
        let holder = format!("process {}", std::process::id());
        assert!(refused.to_string().contains(&holder), "{refused}");
        let of_a_child = first.0.try_clone().expect("a copy");
        drop(first);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                drop(of_a_child);
            });
            Running::claim(dir.path()).expect("the child has gone on");
        });
    }
}
