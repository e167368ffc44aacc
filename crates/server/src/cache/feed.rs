//! What fills the caches: everything that is stored at start, then every change.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_store::{EventBatch, EventKind, Range, Store, StoreError, WatchStream, prefix_end};
use futures::StreamExt as _;
use tokio::time::{Instant, MissedTickBehavior};

use super::herald::Herald;
use super::{Caches, KindCache};
use crate::definitions::is_definition;
use crate::object::Object;
use crate::seal::Seal;

/// Everything that the door stores is under this prefix.
const ROOT: &[u8] = b"/registry/";
/// So many revisions are taken in before watchers are told of the first of them.
const CHUNK: usize = 64;
/// Events that were written for watchers are let go of after this time, or twice of it.
const TIDY: Duration = Duration::from_secs(5);

/// Why the caches can't be filled.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The store failed.
    #[error("the store can't be read")]
    Store(#[from] StoreError),
    /// The store's watch ended though the store is open.
    #[error("the store's watch ended")]
    Ended,
}

/// Told of each cache that a batch changes.
type Note<'a> = &'a mut dyn FnMut(&Arc<KindCache>);

impl Caches {
    /// Reads all that is stored; answers the changes that follow.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn fill(&self, store: &dyn Store, seal: &Seal) -> Result<WatchStream, FeedError> {
        let all = store.range(Range::prefix(ROOT)).await?;
        for kv in all.kvs {
            seal.insist(&kv.value).await;
            self.take(&kv.key, &kv.value, kv.mod_revision, seal, None);
        }
        let mut definitions = Vec::new();
        self.each(|cache| {
            cache.loaded(all.revision);
            if is_definition(cache.row()) {
                definitions = cache.list("", None);
            }
        });
        self.kinds().load(&definitions);
        self.advance(all.revision);
        let root = Bytes::from_static(ROOT);
        Ok(store
            .watch(
                root.clone(),
                Some(prefix_end(&root)),
                Some(all.revision + 1),
            )
            .await?)
    }

    /// Follows the store until its watch ends.
    ///
    /// # Errors
    /// The watch failed or ended: the caches are no longer complete, and the door must close.
    pub async fn follow(&self, changes: WatchStream, seal: Arc<Seal>) -> FeedError {
        // What one fsync made durable comes at once: watchers are told of it as a whole, and write it
        // out as one piece instead of event by event.
        let mut chunks = changes.ready_chunks(CHUNK);
        let mut tidy = tokio::time::interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut herald = Herald::new(KindCache::announce);
        loop {
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                () = herald.due() => {
                    herald.tell_due(Instant::now());
                    continue;
                }
                _ = tidy.tick() => {
                    self.each(|cache| cache.forget_lines());
                    continue;
                }
            };
            let Some(chunk) = chunk else {
                return FeedError::Ended;
            };
            let mut changed: Vec<Arc<KindCache>> = Vec::new();
            let (mut reached, mut failed) = (0, None);
            for batch in chunk {
                match batch {
                    Ok(batch) => {
                        // Another server, or a key that is new here: an object that is left out
                        // would look deleted, so nothing goes on before it can be read.
                        for event in &batch.events {
                            if matches!(event.kind, EventKind::Put) {
                                seal.insist(&event.kv.value).await;
                            }
                        }
                        self.apply(&batch, &seal, &mut changed);
                        reached = batch.revision;
                    }
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            let now = Instant::now();
            herald.tell_due(now);
            for cache in changed {
                herald.changed(cache, now);
            }
            self.advance(reached);
            if let Some(error) = failed {
                return FeedError::Store(error);
            }
        }
    }

    /// Takes in a batch; notes the caches whose watchers are to be told.
    fn apply(&self, batch: &EventBatch, seal: &Seal, changed: &mut Vec<Arc<KindCache>>) {
        let mut note = |cache: &Arc<KindCache>| {
            if !changed.iter().any(|known| Arc::ptr_eq(known, cache)) {
                changed.push(Arc::clone(cache));
            }
        };
        for event in &batch.events {
            match event.kind {
                EventKind::Put => self.take(
                    &event.kv.key,
                    &event.kv.value,
                    event.kv.mod_revision,
                    seal,
                    Some(&mut note),
                ),
                EventKind::Delete => {
                    let key = String::from_utf8_lossy(&event.kv.key);
                    let mut others = false;
                    self.by_key(&key, |cache, path| {
                        // Who is told that a definition is gone finds its rows gone too.
                        others |= is_definition(cache.row()) && self.kinds().forget(path);
                        cache.delete(path, event.kv.mod_revision);
                        note(cache);
                    });
                    if others {
                        self.retire();
                    }
                }
            }
        }
    }

    /// Takes in one stored value, and notes the cache that has it; without a note, as one that was
    /// there at the start. A value that can't be read is named and left out: one damaged
    /// object must not keep the whole cluster from starting.
    ///
    /// A definition changes the rows before anybody is told of its revision.
    fn take(
        &self,
        key: &Bytes,
        value: &Bytes,
        revision: u64,
        seal: &Seal,
        mut note: Option<Note<'_>>,
    ) {
        let text = String::from_utf8_lossy(key);
        let mut others = false;
        self.by_key(&text, |cache, path| {
            let object = seal
                .unseal(cache.resource(), key, value)
                .map_err(|error| error.to_string())
                .and_then(|plain| {
                    Object::read(cache.row(), plain, revision).map_err(|error| error.to_string())
                });
            match object {
                Ok(object) => match &mut note {
                    None => cache.load(path, object),
                    Some(note) => {
                        if is_definition(cache.row()) {
                            others = self.kinds().define(&object);
                        }
                        cache.put(path, object);
                        note(cache);
                    }
                },
                Err(error) => tracing::error!(key = %text, error, "a stored object can't be read"),
            }
        });
        if others {
            self.retire();
        }
    }
}
