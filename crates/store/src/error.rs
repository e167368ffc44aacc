//! What can go wrong in a store. Engines map their own failures onto these, and nothing here
//! prints its source twice.

use std::path::PathBuf;
use std::sync::Arc;

use crate::model::Revision;

/// Why the store did not do as asked. Cheap to clone: one failed fsync answers a whole group.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The revision asked for lies before the last compaction.
    #[error("revision {requested} has been compacted; the oldest one kept is {compacted}")]
    Compacted {
        /// The revision asked for.
        requested: Revision,
        /// The revision that was compacted last; it and all later ones can be read.
        compacted: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future; the store is at {current}")]
    FutureRevision {
        /// The revision asked for.
        requested: Revision,
        /// The current revision.
        current: Revision,
    },
    /// The disk is full: the write was refused and nothing of it is kept. Reads go on, and writes
    /// work again once there is space.
    #[error("no space left for {}: free some disk space, then write again", path.display())]
    Full {
        /// The file or directory that could not grow.
        path: PathBuf,
    },
    /// The disk is nearly full: writes that add something are refused while there is still room to
    /// delete, to compact and to start. Reads go on.
    #[error(
        "only {free} bytes are left for {}, less than the {reserve} kept in reserve: free some disk \
         space, or delete objects",
        path.display()
    )]
    AlmostFull {
        /// The directory that could not grow much longer.
        path: PathBuf,
        /// Bytes that are left.
        free: u64,
        /// Bytes below which writes are refused.
        reserve: u64,
    },
    /// A system call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// Another process has the store open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// What is on disk is not what was written. The store refuses to guess.
    #[error("{} is damaged: {detail}", path.display())]
    Corrupt {
        /// The damaged file or directory.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Those who keep the store do not answer, or cannot serve.
    #[error("the store can't be reached: {detail}")]
    Unavailable {
        /// What they or the network said.
        detail: String,
        /// Whether a write may have been carried out all the same.
        uncertain: bool,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The transaction is bigger than the store takes.
    #[error("{what} of {size} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size, in bytes or operations.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The transaction makes no sense, whatever the state of the store.
    #[error("invalid transaction: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl StoreError {
    /// Wraps a failed system call; a full disk becomes [`StoreError::Full`].
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: std::io::Error,
    ) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let path = path.into();
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::Full { path },
            _ => Self::Io {
                action,
                path,
                source: Arc::new(source),
            },
        }
    }
}
