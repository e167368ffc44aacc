//! The watch cache: every get, list and watch is served from here, not from the engine.
//!
//! One task follows the store and hands each change to the cache of its kind. A kind keeps its
//! objects in key order and a bounded log of recent changes. A watcher is a cursor into that log:
//! it owns no buffer, costs a writer nothing, and can't skip: when the log has moved past its
//! cursor, the watch goes on from the store's own history, or ends with 410 where that is gone.

mod change;
mod feed;
mod followed;
mod herald;
mod kind;

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::row::{ResourceDef, Rows, Storage, Text};
use evenkeel_store::{Range, Store, StoreError};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::definitions::Kinds;
use crate::object::Object;
use crate::seal::Seal;

pub use change::{Change, ChangeKind, event_line, metadata_line};
pub use feed::FeedError;
pub(crate) use followed::Followed;
pub use kind::KindCache;

/// The caches of all kinds.
///
/// Built-in kinds are cached from the start. A version of a custom kind is cached from the first
/// request for it on ([`Self::start`]), and until its definition changes; so is another form of a
/// built-in kind, which hardly anybody asks for.
#[derive(Debug)]
pub struct Caches {
    /// By the prefix of store keys; kinds that are forms of one thing have a cache each, and so do
    /// the versions of a custom kind.
    prefixes: RwLock<HashMap<String, Vec<Arc<KindCache>>>>,
    /// Those of built-in kinds in their stored form, by the name of the kind: they never change, so that
    /// they are found without a lock and without writing a prefix. Every request looks for dozens.
    builtin: HashMap<Text, Vec<Arc<KindCache>>>,
    kinds: Arc<Kinds>,
    revision: watch::Sender<u64>,
}

/// Is it cached from the first request for it on only?
pub(crate) fn is_on_demand(row: &ResourceDef) -> bool {
    row.custom.is_some() || row.view.is_some()
}

impl Caches {
    /// Empty caches for all stored built-in rows.
    #[must_use]
    pub fn new(rows: &Rows, kinds: Arc<Kinds>) -> Self {
        let mut prefixes: HashMap<String, Vec<Arc<KindCache>>> = HashMap::new();
        let mut builtin: HashMap<Text, Vec<Arc<KindCache>>> = HashMap::new();
        let stored = |row: &&Arc<ResourceDef>| row.storage == Storage::Stored;
        for row in rows.iter().filter(stored).filter(|row| !is_on_demand(row)) {
            let cache = Arc::new(KindCache::new(Arc::clone(row)));
            let kind = builtin.entry(row.gvk.kind.clone()).or_default();
            kind.push(Arc::clone(&cache));
            prefixes.entry(row.store_prefix()).or_default().push(cache);
        }
        Self {
            prefixes: RwLock::new(prefixes),
            builtin,
            kinds,
            revision: watch::Sender::new(0),
        }
    }

    /// The rows that are served, exchanged by the feed.
    #[must_use]
    pub fn kinds(&self) -> &Arc<Kinds> {
        &self.kinds
    }

    /// The cache of a row's objects; `None` when there is none or it is not filled yet.
    #[must_use]
    pub fn of(&self, row: &ResourceDef) -> Option<Arc<KindCache>> {
        let is_its = |cache: &&Arc<KindCache>| cache.row().gvk == row.gvk;
        if !is_on_demand(row) {
            let caches = self.builtin.get(&row.gvk.kind)?;
            return caches.iter().find(is_its).cloned();
        }
        let prefixes = self.prefixes.read();
        let caches = prefixes.get(&row.store_prefix())?;
        let found = caches.iter().find(is_its);
        found.filter(|cache| cache.is_live()).cloned()
    }

    /// The cache of a row's objects, filled now if it has not been yet.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn start(
        &self,
        row: &Arc<ResourceDef>,
        store: &dyn Store,
        seal: &Seal,
    ) -> Result<Arc<KindCache>, StoreError> {
        if let Some(cache) = self.of(row) {
            return Ok(cache);
        }
        let cache = self.waiting(row);
        // One fills, others wait for it.
        let filling = cache.filling().lock().await;
        if cache.is_live() {
            return Ok(Arc::clone(&cache));
        }
        // From here on the feed keeps changes for this cache; the range shows all before them.
        let found = store.range(Range::prefix(row.store_prefix())).await?;
        for kv in &found.kvs {
            seal.insist(&kv.value).await;
        }
        let (prefix, resource) = (row.store_prefix(), row.stored_group_resource());
        let objects = found.kvs.into_iter().filter_map(|kv| {
            let key = String::from_utf8_lossy(&kv.key);
            let path = key.strip_prefix(prefix.as_str())?.to_owned();
            let plain = seal
                .unseal(&resource, &kv.key, &kv.value)
                .map_err(|error| error.to_string());
            let object = plain.and_then(|plain| {
                Object::read(row, plain, kv.mod_revision).map_err(|error| error.to_string())
            });
            object
                .inspect_err(|error| tracing::error!(%key, error, "a stored object can't be read"))
                .ok()
                .map(|object| (path, object))
        });
        cache.filled(objects, found.revision);
        drop(filling);
        Ok(cache)
    }

    /// The cache of a row, made if there is none.
    fn waiting(&self, row: &Arc<ResourceDef>) -> Arc<KindCache> {
        let mut prefixes = self.prefixes.write();
        let caches = prefixes.entry(row.store_prefix()).or_default();
        let same = |cache: &&Arc<KindCache>| cache.row().gvk == row.gvk;
        if let Some(cache) = caches.iter().find(same) {
            return Arc::clone(cache);
        }
        let cache = Arc::new(KindCache::waiting(Arc::clone(row)));
        caches.push(Arc::clone(&cache));
        cache
    }

    /// Gives up the caches whose type is not served any more, or is another one now.
    fn retire(&self) {
        let rows = self.kinds.rows();
        let current = |cache: &Arc<KindCache>| {
            let row = cache.row();
            let Some(custom) = &row.custom else {
                return true;
            };
            rows.by_kind(&row.gvk.group, &row.gvk.version, &row.gvk.kind)
                .and_then(|now| now.custom.as_ref())
                .is_some_and(|now| now.is_same(custom))
        };
        self.prefixes.write().retain(|_, caches| {
            caches.retain(|cache| {
                let kept = current(cache);
                if !kept {
                    cache.retire();
                }
                kept
            });
            !caches.is_empty()
        });
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
