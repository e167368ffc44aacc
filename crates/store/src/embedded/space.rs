//! Stops writing before the disk is full: SQLite can go on after that, but a server can't start on
//! it, nor give space back, and everything else on the disk fails as well.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::StoreError;
use crate::model::{Op, Txn};

/// How long an answer of the system is good, less what is written meanwhile.
const FRESH: Duration = Duration::from_millis(500);

/// Watches the space that is left where a store is.
#[derive(Debug)]
pub(crate) struct Space {
    path: PathBuf,
    /// Bytes below which writes are refused; 0: never.
    reserve: u64,
    /// When it was measured, and what is left of that at least.
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

    /// Whether there is room for writes of so many bytes.
    pub(crate) fn check(&self, adding: u64) -> Result<(), StoreError> {
        if self.reserve == 0 {
            return Ok(());
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "the age of a measurement of this machine's disk"
        )]
        let now = Instant::now();
        let mut seen = self.seen.lock();
        // A record takes its room in the log, in the table and in half-filled pages of both.
        let adding = adding.saturating_mul(4);
        let free = match &mut *seen {
            // Only good news is kept: who has made room is let in at once.
            Some((at, free))
                if free.saturating_sub(adding) >= self.reserve
                    && now.duration_since(*at) < FRESH =>
            {
                *free -= adding;
                *free
            }
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

/// Bytes of the keys and values that a transaction may add.
pub(crate) fn added(txn: &Txn) -> u64 {
    let bytes = |op: &Op| match op {
        Op::Put { key, value } => key.len() + value.len(),
        Op::Delete { .. } | Op::DeleteRange { .. } | Op::Range(_) => 0,
    };
    txn.success
        .iter()
        .chain(&txn.failure)
        .fold(0, |sum, op| sum.saturating_add(bytes(op) as u64))
}

/// What is kept free by default: a twentieth of the disk, 256 MiB at most.
#[must_use]
pub fn usual_reserve(dir: &Path) -> u64 {
    let whole =
        rustix::fs::statvfs(dir).map_or(0, |found| found.f_blocks.saturating_mul(found.f_frsize));
    (whole / 20).min(256 << 20)
}
