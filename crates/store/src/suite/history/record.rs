//! Clients that do something at random and write down what they ask and are told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{Asked, Entry, OBSERVER, Told};
use crate::error::StoreError;
use crate::model::{Compare, EventKind, Op, OpResult, Range, Revision, Txn};
use crate::store::Store;

/// So many keys all clients share.
const KEYS: u64 = 6;
type Sink = Box<dyn Fn(&Entry) + Send + Sync>;

struct Inner {
    store: Arc<dyn Store>,
    entries: Mutex<Vec<Entry>>,
    /// Called under the lock: for who passes entries on to another process.
    sink: Option<Sink>,
    next: AtomicU64,
    acknowledged: AtomicU64,
    observed: AtomicU64,
}

/// Carries out random calls on a store and records them. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

/// A small generator of numbers: the same seed, the same calls.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}

impl Recorder {
    /// Records what is done to `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with(store, 1, None)
    }

    /// As [`Self::new`], numbering calls from `first` on, and handing every entry to `sink` as it
    /// happens.
    #[must_use]
    pub fn with(store: Arc<dyn Store>, first: u64, sink: Option<Sink>) -> Self {
        Self(Arc::new(Inner {
            store,
            entries: Mutex::default(),
            sink,
            next: AtomicU64::new(first.max(1)),
            acknowledged: AtomicU64::new(0),
            observed: AtomicU64::new(0),
        }))
    }

    /// What has been recorded.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.0.entries.lock().clone()
    }

    /// How many writes have been acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.0.acknowledged.load(Ordering::SeqCst)
    }

    /// Up to which revision the observer has come.
    #[must_use]
    pub fn observed(&self) -> Revision {
        self.0.observed.load(Ordering::SeqCst)
    }

    fn note(&self, entry: Entry) {
        let mut entries = self.0.entries.lock();
        match &self.0.sink {
            Some(sink) => sink(&entry),
            None => entries.push(entry),
        }
    }

    fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::SeqCst)
    }

    /// Starts the observer, from the revision `from` on; `None`: with the next one.
    #[must_use]
    pub fn observe(&self, from: Option<Revision>) -> JoinHandle<()> {
        let recorder = self.clone();
        let before = from.map_or(0, |from| from.saturating_sub(1));
        self.0.observed.fetch_max(before, Ordering::SeqCst);
        spawn(async move {
            recorder.follow(OBSERVER, "", from).await;
        })
    }

    /// Opens watches on a prefix again and again, each from a revision of the recent past, until
    /// told to stop.
    #[must_use]
    pub fn watch_some(&self, prefix: &str, stop: Arc<AtomicBool>) -> JoinHandle<()> {
        let (recorder, prefix) = (self.clone(), prefix.to_owned());
        spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let watch = recorder.number();
                let from = recorder.observed();
                let follow = recorder.follow(watch, &prefix, Some(from.max(1)));
                let brief = std::time::Duration::from_millis(300);
                if tokio::time::timeout(brief, follow).await.is_ok() {
                    // It ended at once: that revision is compacted by now.
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        })
    }

    async fn follow(&self, watch: u64, prefix: &str, from: Option<Revision>) {
        let from = match from {
            Some(from) => from,
            None => match self.0.store.revision().await {
                Ok(revision) => revision + 1,
                Err(_) => return,
            },
        };
        let Range { start, end, .. } = Range::prefix(prefix.to_owned());
        let Ok(mut stream) = self.0.store.watch(start, end, Some(from)).await else {
            return;
        };
        self.note(Entry::Watch(watch, prefix.to_owned(), from));
        while let Some(Ok(batch)) = stream.next().await {
            for event in &batch.events {
                let value = (event.kind == EventKind::Put).then(|| text(&event.kv.value));
                self.note(Entry::Event(
                    watch,
                    batch.revision,
                    text(&event.kv.key),
                    value,
                    event.kv.create_revision,
                    event.kv.version,
                ));
            }
            if watch == OBSERVER {
                self.0.observed.fetch_max(batch.revision, Ordering::SeqCst);
            }
        }
    }

    /// Makes random calls until told to stop.
    pub async fn client(&self, client: u64, seed: u64, stop: &AtomicBool) {
        let mut random = Random::new(seed);
        let mut seen: HashMap<String, Revision> = HashMap::new();
        while !stop.load(Ordering::SeqCst) {
            let id = self.number();
            let key = format!("k/{}", random.below(KEYS));
            let value = format!(
                "{client}-{id}-{}",
                "x".repeat(usize::try_from(random.below(600)).unwrap_or(0))
            );
            let asked = match random.below(20) {
                0..6 => Asked::Put(key, value),
                6..8 => Asked::Pair(key, format!("k/{}/twin", random.below(KEYS)), value),
                8..14 => {
                    let at = seen.get(&key).copied().unwrap_or(0);
                    Asked::Swap(key, at, value)
                }
                14..16 => Asked::Delete(key),
                _ => Asked::Read,
            };
            self.note(Entry::Call(id, asked.clone()));
            let told = self.ask(&asked).await;
            match &told {
                Told::Done(true, _) => {
                    self.0.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                Told::State(_, kvs) => {
                    seen = kvs.iter().map(|(key, _, at)| (key.clone(), *at)).collect();
                }
                _ => {}
            }
            let failed = matches!(told, Told::Unknown | Told::Refused);
            self.note(Entry::Return(id, told));
            if failed {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }

    async fn ask(&self, asked: &Asked) -> Told {
        let bytes = |text: &String| Bytes::from(text.clone());
        let put = |key: &String, value: &String| Op::Put {
            key: bytes(key),
            value: bytes(value),
        };
        let (compare, success) = match asked {
            Asked::Put(key, value) => (None, vec![put(key, value)]),
            Asked::Pair(one, two, value) => (None, vec![put(one, value), put(two, value)]),
            Asked::Swap(key, revision, value) => {
                let compare = Compare::ModRevision {
                    key: bytes(key),
                    revision: *revision,
                };
                (Some(compare), vec![put(key, value)])
            }
            Asked::Delete(key) => (None, vec![Op::Delete { key: bytes(key) }]),
            Asked::Read => {
                return match self.0.store.range(Range::prefix("")).await {
                    Ok(read) => {
                        let kvs = read.kvs.iter();
                        let kvs = kvs.map(|kv| (text(&kv.key), text(&kv.value), kv.mod_revision));
                        Told::State(read.revision, kvs.collect())
                    }
                    Err(_) => Told::Refused,
                };
            }
        };
        let txn = Txn {
            compare: compare.into_iter().collect(),
            success,
            failure: Vec::new(),
        };
        match self.0.store.txn(txn).await {
            // A deletion of nothing makes no revision: it is a read of the key's absence.
            Ok(done)
                if done.succeeded
                    && done.results.iter().all(
                        |result| matches!(result, OpResult::Delete { prev } if prev.is_empty()),
                    ) =>
            {
                Told::Done(false, done.revision)
            }
            Ok(done) => Told::Done(done.succeeded, done.revision),
            Err(
                StoreError::Unavailable {
                    uncertain: false, ..
                }
                | StoreError::Full { .. }
                | StoreError::AlmostFull { .. },
            ) => Told::Refused,
            Err(_) => Told::Unknown,
        }
    }
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    #[allow(
        clippy::disallowed_methods,
        reason = "whoever started it ends it by its handle"
    )]
    tokio::spawn(work)
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
