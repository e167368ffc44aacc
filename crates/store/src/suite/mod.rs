//! The conformance suite that every engine must pass.
//!
//! A case is given an empty store and panics at what it does not like, naming file and line. The
//! cases say what the trait promises and nothing that only one engine can know, so that a real
//! etcd is held to the same words. What an engine promises beyond them (files, locks, crashes) is
//! tested beside that engine.

mod compaction;
mod concurrency;
pub mod history;
mod reads;
mod watches;
mod writes;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;

use crate::error::StoreError;
use crate::model::{
    EventBatch, EventKind, KeyValue, Op, OpResult, Range, RangeResult, Revision, Txn, TxnResult,
};
use crate::store::{Store, WatchStream};

/// How long a case waits for something that must happen, before it fails.
const BOUND: Duration = Duration::from_secs(20);

/// One case: its name, and what it does with an empty store.
pub type Case = (&'static str, fn(Arc<dyn Store>) -> BoxFuture<'static, ()>);

/// All cases, in an order in which the first failure says most.
#[must_use]
pub fn cases() -> Vec<Case> {
    let areas = [
        reads::CASES,
        writes::CASES,
        compaction::CASES,
        watches::CASES,
        concurrency::CASES,
    ];
    areas.concat()
}

/// Runs every case, each on a store that `make` returns: empty, and used by nobody else.
///
/// # Panics
/// At the first promise that the engine does not keep.
pub async fn run_all<F, S>(make: F)
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn Store>>,
{
    for (name, case) in cases() {
        tracing::info!(name, "conformance case");
        case(make().await).await;
    }
}

/// Declares a module's cases, so that none can be written and forgotten.
macro_rules! declare_cases {
    ($($name:ident),+ $(,)?) => {
        pub(super) const CASES: &[crate::suite::Case] = &[
            $((stringify!($name), |store| Box::pin($name(crate::suite::Probe::new(store))))),+
        ];
    };
}
use declare_cases;

/// A store with the short words that the cases are written in.
#[derive(Clone)]
struct Probe {
    store: Arc<dyn Store>,
}

impl Probe {
    fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    #[track_caller]
    fn must<T>(result: Result<T, StoreError>, what: &str) -> T {
        match result {
            Ok(value) => value,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    async fn revision(&self) -> Revision {
        Self::must(self.store.revision().await, "revision")
    }

    async fn put(&self, key: &str, value: &str) -> Revision {
        self.txn(Txn::put(key.to_owned(), value.to_owned()))
            .await
            .revision
    }

    async fn delete(&self, key: &str) -> Revision {
        self.txn(Txn::delete(key.to_owned())).await.revision
    }

    async fn txn(&self, txn: Txn) -> TxnResult {
        Self::must(self.store.txn(txn).await, "transaction")
    }

    async fn range(&self, range: Range) -> RangeResult {
        Self::must(self.store.range(range).await, "range")
    }

    async fn get(&self, key: &str) -> Option<KeyValue> {
        self.range(Range::key(key.to_owned())).await.kvs.pop()
    }

    /// Keys and values of a prefix, as of a revision.
    async fn list(&self, prefix: &str, revision: Option<Revision>) -> Vec<(String, String)> {
        let range = Range {
            revision,
            ..Range::prefix(prefix.to_owned())
        };
        pairs(&self.range(range).await.kvs)
    }

    async fn compact(&self, revision: Revision) {
        Self::must(self.store.compact(revision).await, "compact");
    }

    async fn watch(&self, prefix: &str, from: Option<Revision>) -> Watching {
        let Range { start, end, .. } = Range::prefix(prefix.to_owned());
        self.watch_interval(start, end, from).await
    }

    async fn watch_interval(
        &self,
        start: Bytes,
        end: Option<Bytes>,
        from: Option<Revision>,
    ) -> Watching {
        Watching {
            stream: Self::must(self.store.watch(start, end, from).await, "watch"),
        }
    }
}

/// A watch with the short words that the cases are written in.
struct Watching {
    stream: WatchStream,
}

impl Watching {
    async fn item(&mut self) -> Option<Result<Arc<EventBatch>, StoreError>> {
        match tokio::time::timeout(BOUND, self.stream.next()).await {
            Ok(item) => item,
            Err(_) => panic!("a watch said nothing for {} s", BOUND.as_secs()),
        }
    }

    /// The next batch, be it a progress note.
    async fn any(&mut self) -> Arc<EventBatch> {
        match self.item().await {
            Some(item) => Probe::must(item, "watch"),
            None => panic!("a watch ended without an error"),
        }
    }

    /// The next batch with events.
    async fn next(&mut self) -> Arc<EventBatch> {
        loop {
            let batch = self.any().await;
            if !batch.is_progress() {
                return batch;
            }
        }
    }

    /// The next progress note; fails at an event.
    async fn progress(&mut self) -> Revision {
        let batch = self.any().await;
        assert!(
            batch.is_progress(),
            "a progress note was due, not {batch:?}"
        );
        batch.revision
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pairs(kvs: &[KeyValue]) -> Vec<(String, String)> {
    kvs.iter()
        .map(|kv| (text(&kv.key), text(&kv.value)))
        .collect()
}

/// `key=value` for a put, `-key` for a deletion.
fn told(batch: &EventBatch) -> Vec<String> {
    let event = |event: &crate::model::Event| match event.kind {
        EventKind::Put => format!("{}={}", text(&event.kv.key), text(&event.kv.value)),
        EventKind::Delete => format!("-{}", text(&event.kv.key)),
    };
    batch.events.iter().map(event).collect()
}

fn put(key: &str, value: &str) -> Op {
    Op::Put {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
    }
}

fn delete(key: &str) -> Op {
    Op::Delete {
        key: key.to_owned().into(),
    }
}

fn read(result: &OpResult) -> &RangeResult {
    match result {
        OpResult::Range(read) => read,
        other => panic!("a range was answered with {other:?}"),
    }
}
