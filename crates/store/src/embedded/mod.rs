//! The embedded engine: etcd's semantics inside one process, on a log kept by a storage library.
//!
//! The current state and the heads of all kept versions are in memory ([`index`]); one thread
//! writes ([`writer`]) what comes together ([`queue`]); watches read a shared tail of recent batches and, behind it, the log
//! ([`hub`], [`watch`]). What never lives here: anything periodic. The engine works when it is
//! asked to, and an idle store costs nothing.

mod core;
mod evaluate;
mod hub;
mod index;
mod load;
mod log;
mod queue;
mod record;
mod restore;
mod space;
mod sqlite;
mod wal;
mod watch;
mod writer;

pub use restore::Found;
pub use space::usual_reserve;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::core::Core;
use self::hub::Interest;
use self::queue::{Queue, Request};
use self::writer::Desk;
use crate::error::StoreError;
use crate::model::{Range, RangeResult, Revision, StoreStats, Txn, TxnResult};
use crate::store::{Announced, Store, WatchStream};
use crate::validate::validate;

/// How an embedded store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Bytes of recent events kept in memory for watches; older ones are read from disk.
    pub tail_bytes: usize,
    /// The most batches of recent events kept in memory.
    pub tail_batches: usize,
    /// Bytes of the disk that are kept free: with less, writes that add something are refused with
    /// [`StoreError::AlmostFull`]. 0 refuses nothing before the disk is full.
    pub reserve_bytes: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            tail_bytes: 4 << 20,
            tail_batches: 4096,
            reserve_bytes: 0,
        }
    }
}

/// A store in one directory, owned by this process. Dropping it closes it.
///
/// Current values are answered from memory at once; what reads history waits for the disk on the
/// blocking threads of the tokio runtime that it is called in. A transaction that nobody else's is
/// beside is made durable in its caller's thread while the disk is quick (half a millisecond), and by
/// the writer's otherwise.
pub struct EmbeddedStore {
    core: Arc<Core>,
    queue: Arc<Queue>,
    desk: Arc<Desk>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store in the directory `path`, which is created if it is missing. Blocks while
    /// the state is read.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if a process has it open, [`StoreError::Corrupt`] if what is on disk
    /// is not what was written, [`StoreError::Io`] and [`StoreError::Full`] from the system.
    pub fn open(path: &Path, options: EmbeddedOptions) -> Result<Self, StoreError> {
        let log = Box::new(sqlite::SqliteLog::open(path)?);
        Self::with_log(path, log, &options)
    }

    fn with_log(
        path: &Path,
        log: Box<dyn log::Log>,
        options: &EmbeddedOptions,
    ) -> Result<Self, StoreError> {
        let (index, garbage) = load::load(&*log)?;
        let hub = hub::Hub::new(index.revision, options.tail_bytes, options.tail_batches);
        let core = Arc::new(Core {
            index: index.into(),
            hub: hub.into(),
            log,
            counters: core::Counters::default(),
            space: space::Space::new(path, options.reserve_bytes),
        });
        let queue = Arc::new(Queue::default());
        let desk = Desk::new(Arc::clone(&core), Arc::clone(&queue), garbage);
        let desk = Arc::new(desk);
        let writer = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| StoreError::io("start the writer of", path, e))?;
        Ok(Self {
            core,
            queue,
            desk,
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Carries out what waits, refuses what comes after it, ends all watches and gives the
    /// directory free once the last watch is dropped. Blocks until the writer has ended. Nothing
    /// is lost without it: whatever was answered is durable.
    pub fn close(&self) {
        self.queue.close();
        // The lock is held while joining, so that a second caller waits as well.
        let mut writer = self.writer.lock();
        if writer.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer panicked");
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(request(answer));
        answered.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for EmbeddedStore {
    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeResult, StoreError>> {
        async move {
            let looked = self.core.lookup(&range)?;
            if looked.0.found.iter().all(|item| item.fetch.is_none()) {
                return self.core.complete(&range, looked);
            }
            let core = Arc::clone(&self.core);
            tokio::task::spawn_blocking(move || core.complete(&range, looked))
                .await
                .unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        async move {
            validate(&txn)?;
            let (answer, answered) = oneshot::channel();
            if let Some(request) = self.desk.alone(Request::Txn(txn, answer)) {
                self.queue.send(request);
            }
            answered.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    fn announce(&self) -> Announced {
        self.queue.announce();
        Announced::to(Arc::clone(&self.queue) as Arc<_>)
    }

    fn watch(
        &self,
        start: Bytes,
        end: Option<Bytes>,
        from: Option<Revision>,
    ) -> BoxFuture<'_, Result<WatchStream, StoreError>> {
        futures::future::ready(watch::open(&self.core, Interest { start, end }, from)).boxed()
    }

    fn request_progress(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        futures::future::ready(Ok(self.core.hub.lock().request_progress())).boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(move |answer| Request::Compact(revision, answer))
            .boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        futures::future::ready(Ok(self.core.index.read().revision)).boxed()
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, StoreError>> {
        futures::future::ready(self.core.stats()).boxed()
    }

    fn writable(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        futures::future::ready(self.core.space.check(0)).boxed()
    }
}
