//! The trait that every engine serves, with etcd's semantics.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::error::StoreError;
use crate::model::{EventBatch, Range, RangeResult, Revision, StoreStats, Txn, TxnResult};

/// A running watch. It ends after its first error.
pub type WatchStream = BoxStream<'static, Result<Arc<EventBatch>, StoreError>>;

/// Somebody who is told when a write that was announced does not come any more.
pub(crate) trait Awaits: Send + Sync {
    /// One write fewer is to be waited for.
    fn ended(&self);
}

/// A write that is on its way ([`Store::announce`]), until this is dropped.
#[derive(Default)]
pub struct Announced(Option<Arc<dyn Awaits>>);

impl Announced {
    pub(crate) fn to(awaiting: Arc<dyn Awaits>) -> Self {
        Self(Some(awaiting))
    }
}

impl std::fmt::Debug for Announced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Announced")
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(awaiting) = &self.0 {
            awaiting.ended();
        }
    }
}

/// A versioned key-value store. Everything is linearizable: a read that begins after a write was
/// answered sees that write.
pub trait Store: Send + Sync + 'static {
    /// Reads keys.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] for a revision that cannot be
    /// read (any more, yet).
    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeResult, StoreError>>;

    /// Carries out a transaction and answers once it is durable. A transaction that changes
    /// nothing makes no revision. The transaction takes effect also when the future is dropped
    /// after its first poll.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`] mean that nothing of it was kept, or that it
    /// cannot be told; [`StoreError::TooLarge`] and [`StoreError::Invalid`] that it never can be.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>>;

    /// Says that a transaction will come soon: an engine that makes several durable at once may hold
    /// the others back for it, for a moment. What is announced need not come. Dropping the answer
    /// takes it back, and so it is to be kept until the transaction is answered.
    fn announce(&self) -> Announced {
        Announced::default()
    }

    /// Watches a key (`end` is `None`) or an interval (as in [`Range`]), from the revision `from`
    /// on, which may lie in the past or the future; `None` begins with the next revision.
    ///
    /// The stream yields every matching event once, in order, all of one revision in one batch. A
    /// batch without events is a progress note: one comes when the watch has caught up for the
    /// first time, and one for each [`Store::request_progress`]. A reader may be as slow as it
    /// likes: what it has not read yet is read from the engine's history, and if compaction
    /// overtakes it, the stream ends with [`StoreError::Compacted`].
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if `from` lies before the last compaction.
    fn watch(
        &self,
        start: Bytes,
        end: Option<Bytes>,
        from: Option<Revision>,
    ) -> BoxFuture<'_, Result<WatchStream, StoreError>>;

    /// Asks every open watch to send a progress note once it has delivered all events up to the
    /// current revision, which is returned. Notes that were not read yet are merged.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    fn request_progress(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Forgets history before `revision`: what a range at `revision` or later and a watch from
    /// `revision` on needs is kept, everything older is given up.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if that was done before, [`StoreError::FutureRevision`].
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The current revision, linearizable.
    ///
    /// # Errors
    /// Only engines that must ask somebody fail.
    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Figures about the store.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the size of a file cannot be read.
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, StoreError>>;

    /// Whether writes are taken: an alarm about space says no, before or when it is used up. Reads
    /// go on all the same.
    ///
    /// # Errors
    /// What writes are refused with.
    fn writable(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
