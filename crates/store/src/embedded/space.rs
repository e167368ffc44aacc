//! Stops writing before the disk is full: SQLite can go on after that, but a server can't start on
//! it, nor give space back, and everything else on the disk fails as well.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::StoreError;
use crate::model::{Op, Txn};

/// How long an answer of the system is good. Within it nobody writes more than is kept in reserve.
const FRESH: Duration = Duration::from_millis(500);

/// Watches the space that is left where a store is.
#[derive(Debug)]
pub(crate) struct Space {
    path: PathBuf,
    /// Bytes below which writes are refused; 0: never.
    reserve: u64,
    seen: Mutex<Option<(Instant, u64)>>,
}

impl Space {
    pub(crate) fn new(path: &Path, reserve: u64) -> Self {
        Self {
            path: path.to_owned(),
            reserve,
            seen: Mutex::new(None),
        }
    }

    /// Whether there is room for writes.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.reserve == 0 {
            return Ok(());
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "the age of a measurement of this machine's disk"
        )]
        let now = Instant::now();
        let mut seen = self.seen.lock();
        let free = match *seen {
            // Only good news is kept: who has made room is let in at once.
            Some((at, free)) if free >= self.reserve && now.duration_since(at) < FRESH => free,
            _ => {
                // What cannot be measured is not refused: the write itself will tell.
                let free = rustix::fs::statvfs(&self.path).map_or(u64::MAX, |found| {
                    found.f_bavail.saturating_mul(found.f_frsize)
                });
                *seen = Some((now, free));
                free
            }
        };
        if free >= self.reserve {
            return Ok(());
        }
        Err(StoreError::AlmostFull {
            path: self.path.clone(),
            free,
            reserve: self.reserve,
        })
    }
}

/// Whether a transaction may add something. Deletions are let through: they are the way out.
pub(crate) fn adds(txn: &Txn) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .any(|op| matches!(op, Op::Put { .. }))
}

/// What is kept free by default: a twentieth of the disk, 256 MiB at most.
#[must_use]
pub fn usual_reserve(dir: &Path) -> u64 {
    let whole =
        rustix::fs::statvfs(dir).map_or(0, |found| found.f_blocks.saturating_mul(found.f_frsize));
    (whole / 20).min(256 << 20)
}
