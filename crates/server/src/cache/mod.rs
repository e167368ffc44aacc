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
    /// By the prefix of store keys; kinds that are forms of one thing have a cache each.
    prefixes: RwLock<HashMap<String, Vec<Arc<KindCache>>>>,
    revision: watch::Sender<u64>,
}

impl Caches {
    /// Empty caches for all stored rows.
    #[must_use]
    pub fn new(rows: &Rows) -> Self {
        let mut prefixes: HashMap<String, Vec<Arc<KindCache>>> = HashMap::new();
        for row in rows.iter().filter(|row| row.storage == Storage::Stored) {
            prefixes
                .entry(row.store_prefix())
                .or_default()
                .push(Arc::new(KindCache::new(Arc::clone(row))));
        }
        Self {
            prefixes: RwLock::new(prefixes),
            revision: watch::Sender::new(0),
        }
    }

    /// The cache of a row's objects.
    #[must_use]
    pub fn of(&self, row: &ResourceDef) -> Option<Arc<KindCache>> {
        let prefixes = self.prefixes.read();
        let caches = prefixes.get(&row.store_prefix())?;
        caches
            .iter()
            .find(|cache| cache.row().gvk == row.gvk)
            .cloned()
    }

    /// Hands the caches whose prefix a store key has, with the rest of the key, to `take`.
    fn by_key(&self, key: &str, mut take: impl FnMut(&Arc<KindCache>, &str)) {
        let prefixes = self.prefixes.read();
        let find = || {
            let rest = key.strip_prefix("/registry/")?;
            let first = rest.find('/')? + 1;
            let short = "/registry/".len() + first;
            if let Some(caches) = prefixes.get(&key[..short]) {
                return Some((caches, &key[short..]));
            }
            let second = rest[first..].find('/')? + 1;
            let long = short + second;
            prefixes
                .get(&key[..long])
                .map(|caches| (caches, &key[long..]))
        };
        if let Some((caches, path)) = find() {
            caches.iter().for_each(|cache| take(cache, path));
        }
    }

    fn each(&self, act: impl FnMut(&Arc<KindCache>)) {
        self.prefixes.read().values().flatten().for_each(act);
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
