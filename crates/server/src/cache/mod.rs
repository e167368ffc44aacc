//! The watch cache: every get, list and watch is served from here, not from the engine.
//!
//! One task follows the store and hands each change to the cache of its kind. A kind keeps its
//! objects in key order and a bounded log of recent changes. A watcher is a cursor into that log:
//! it owns no buffer, costs a writer nothing, and can't skip: when the log has moved past its
//! cursor, the watch goes on from the store's own history, or ends with 410 where that is gone.

mod feed;
mod kind;

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::row::{ResourceDef, Rows, Storage};
use parking_lot::RwLock;
use tokio::sync::watch;

pub use feed::FeedError;
pub use kind::{Change, ChangeKind, KindCache, event_line};

/// The caches of all kinds.
#[derive(Debug)]
pub struct Caches {
    kinds: RwLock<HashMap<String, Arc<KindCache>>>,
    revision: watch::Sender<u64>,
}

impl Caches {
    /// Empty caches for all stored rows.
    #[must_use]
    pub fn new(rows: &Rows) -> Self {
        let kinds = rows
            .iter()
            .filter(|row| row.storage == Storage::Stored)
            .map(|row| {
                (
                    row.store_prefix(),
                    Arc::new(KindCache::new(Arc::clone(row))),
                )
            })
            .collect();
        Self {
            kinds: RwLock::new(kinds),
            revision: watch::Sender::new(0),
        }
    }

    /// The cache of a row's objects.
    #[must_use]
    pub fn of(&self, row: &ResourceDef) -> Option<Arc<KindCache>> {
        self.kinds.read().get(&row.store_prefix()).cloned()
    }

    /// The cache whose prefix a store key has, with the rest of the key.
    #[must_use]
    pub fn by_key<'k>(&self, key: &'k str) -> Option<(Arc<KindCache>, &'k str)> {
        let kinds = self.kinds.read();
        let rest = key.strip_prefix("/registry/")?;
        let first = rest.find('/')? + 1;
        let short = "/registry/".len() + first;
        if let Some(cache) = kinds.get(&key[..short]) {
            return Some((Arc::clone(cache), &key[short..]));
        }
        let second = rest[first..].find('/')? + 1;
        let long = short + second;
        kinds
            .get(&key[..long])
            .map(|cache| (Arc::clone(cache), &key[long..]))
    }

    /// The revision up to which all caches are complete.
    #[must_use]
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Waits until all caches are complete up to a revision.
    pub async fn reach(&self, revision: u64) {
        if self.revision() >= revision {
            return;
        }
        let mut seen = self.revision.subscribe();
        // The sender lives in `self`, so that waiting can't fail while `self` is borrowed.
        drop(seen.wait_for(|reached| *reached >= revision).await);
    }

    fn advance(&self, revision: u64) {
        self.revision.send_if_modified(|reached| {
            let later = revision > *reached;
            *reached = revision.max(*reached);
            later
        });
    }
}
