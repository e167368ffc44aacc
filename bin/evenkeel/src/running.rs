//! Which process serves a data directory: a file with its id, locked as long as it lives.
//!
//! The lock says whether anybody runs, and ends with the process however that ends; the id in the
//! file says whom to signal. A file without a lock is left over and means nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

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
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
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

impl Drop for Running {
    fn drop(&mut self) {
        // The lock ends with the descriptor; an empty file names nobody in the meantime.
        if let Err(error) = self.0.set_len(0) {
            tracing::debug!(%error, "the process id can't be taken back");
        }
    }
}
