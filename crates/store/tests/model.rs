//! Random work on the embedded engine, held against a model that keeps every state there ever was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use evenkeel_store::{
    Compare, Event, EventBatch, EventKind, KeyValue, Op, Range, Revision, Store, StoreError, Txn,
    WatchStream, prefix_end,
};
use futures::StreamExt;
use proptest::prelude::*;

type State = BTreeMap<Bytes, KeyValue>;

/// Every state since the beginning, and what changed at each revision.
struct Model {
    /// `states[r]` is the state at revision `r`.
    states: Vec<State>,
    events: BTreeMap<Revision, Vec<Event>>,
    compacted: Revision,
}

fn within(key: &Bytes, start: &Bytes, end: Option<&Bytes>) -> bool {
    match end {
        None => key == start,
        Some(end) => key >= start && (end.is_empty() || key < end),
    }
}

impl Model {
    fn new() -> Self {
        Self {
            states: vec![State::new(); 2],
            events: BTreeMap::new(),
            compacted: 0,
        }
    }

    fn revision(&self) -> Revision {
        self.states.len() as Revision - 1
    }

    fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    fn holds(&self, compare: &Compare) -> bool {
        let now = self.now();
        match compare {
            Compare::ModRevision { key, revision } => {
                now.get(key).map_or(0, |kv| kv.mod_revision) == *revision
            }
            Compare::CreateRevision { key, revision } => {
                now.get(key).map_or(0, |kv| kv.create_revision) == *revision
            }
            Compare::Version { key, version } => {
                now.get(key).map_or(0, |kv| kv.version) == *version
            }
            Compare::Value { key, value } => now.get(key).is_some_and(|kv| kv.value == *value),
        }
    }

    fn apply(&mut self, txn: &Txn) -> bool {
        let succeeded = txn.compare.iter().all(|c| self.holds(c));
        let revision = self.revision() + 1;
        let mut state = self.now().clone();
        let mut events = Vec::new();
        for op in if succeeded {
            &txn.success
        } else {
            &txn.failure
        } {
            match op {
                Op::Put { key, value } => {
                    let prev = state.get(key).cloned();
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: prev.as_ref().map_or(revision, |p| p.create_revision),
                        mod_revision: revision,
                        version: prev.as_ref().map_or(1, |p| p.version + 1),
                    };
                    state.insert(key.clone(), kv.clone());
                    events.push(Event {
                        kind: EventKind::Put,
                        kv,
                        prev,
                    });
                }
                Op::Delete { key } => delete(&mut state, &mut events, key, None, revision),
                Op::DeleteRange { start, end } => {
                    delete(&mut state, &mut events, start, Some(end), revision);
                }
                Op::Range(_) => {}
            }
        }
        if !events.is_empty() {
            self.states.push(state);
            self.events.insert(revision, events);
        }
        succeeded
    }

    fn range(&self, range: &Range) -> (Vec<KeyValue>, usize) {
        let at = range.revision.unwrap_or(self.revision());
        let state = &self.states[usize::try_from(at).unwrap()];
        let all: Vec<KeyValue> = state
            .values()
            .filter(|kv| within(&kv.key, &range.start, range.end.as_ref()))
            .cloned()
            .collect();
        let count = all.len();
        let limit = if range.limit == 0 { count } else { range.limit };
        (all.into_iter().take(limit).collect(), count)
    }
}

fn delete(
    state: &mut State,
    events: &mut Vec<Event>,
    start: &Bytes,
    end: Option<&Bytes>,
    revision: Revision,
) {
    let keys: Vec<Bytes> = state
        .keys()
        .filter(|k| within(k, start, end))
        .cloned()
        .collect();
    for key in keys {
        let prev = state.remove(&key);
        let kv = KeyValue {
            key,
            value: Bytes::new(),
            create_revision: 0,
            mod_revision: revision,
            version: 0,
        };
        events.push(Event {
            kind: EventKind::Delete,
            kv,
            prev,
        });
    }
}

/// What is done next. Numbers are taken modulo what makes sense at that moment.
#[derive(Debug, Clone)]
enum Act {
    Txns(Vec<Txn>),
    Range(Range, u64),
    Watch {
        start: Bytes,
        end: Option<Bytes>,
        back: u64,
    },
    ReadWatch(usize),
    Compact(u64),
    Reopen,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a/1", "a/2", "b", "b/1", "c", "d"])
        .prop_map(|key| Bytes::from_static(key.as_bytes()))
}

fn interval() -> impl Strategy<Value = (Bytes, Option<Bytes>)> {
    prop_oneof![
        key().prop_map(|k| (k, None)),
        key().prop_map(|k| (k.clone(), Some(prefix_end(&k)))),
        (key(), key()).prop_map(|(a, b)| (a, Some(b))),
        Just((Bytes::new(), Some(Bytes::new()))),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    (0..4u8, prop_oneof![9 => 0..10usize, 1 => 8000..9000usize])
        .prop_map(|(byte, len)| Bytes::from(vec![byte; len]))
}

fn compare() -> impl Strategy<Value = Compare> {
    prop_oneof![
        (key(), 0..30u64).prop_map(|(key, revision)| Compare::ModRevision { key, revision }),
        (key(), 0..2u64).prop_map(|(key, revision)| Compare::CreateRevision { key, revision }),
        (key(), 0..3u64).prop_map(|(key, version)| Compare::Version { key, version }),
        (key(), value()).prop_map(|(key, value)| Compare::Value { key, value }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (key(), value()).prop_map(|(key, value)| Op::Put { key, value }),
        2 => key().prop_map(|key| Op::Delete { key }),
        1 => (key(), key()).prop_map(|(start, end)| Op::DeleteRange { start, end }),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let ops = || prop::collection::vec(op(), 0..4);
    (prop::collection::vec(compare(), 0..2), ops(), ops()).prop_map(
        |(compare, success, failure)| Txn {
            compare,
            success,
            failure,
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => prop::collection::vec(txn(), 1..6).prop_map(Act::Txns),
        4 => (interval(), 0..3usize, any::<u64>()).prop_map(|((start, end), limit, at)| {
            Act::Range(Range { start, end, limit, ..Range::default() }, at)
        }),
        2 => (interval(), any::<u64>())
            .prop_map(|((start, end), back)| Act::Watch { start, end, back }),
        3 => any::<usize>().prop_map(Act::ReadWatch),
        1 => any::<u64>().prop_map(Act::Compact),
        1 => Just(Act::Reopen),
    ]
}

struct Watching {
    stream: WatchStream,
    start: Bytes,
    end: Option<Bytes>,
    /// The first revision not told yet.
    next: Revision,
}

impl Watching {
    /// What it must tell up to the model's revision.
    fn expected(&self, model: &Model) -> Vec<EventBatch> {
        let batch = |(revision, events): (&Revision, &Vec<Event>)| EventBatch {
            revision: *revision,
            events: events
                .iter()
                .filter(|e| within(&e.kv.key, &self.start, self.end.as_ref()))
                .cloned()
                .collect(),
        };
        let batches = model.events.range(self.next..).map(batch);
        batches.filter(|batch| !batch.events.is_empty()).collect()
    }

    /// Reads until it has told everything; `false` if compaction overtook it.
    async fn catch_up(&mut self, model: &Model, store: &dyn Store) -> bool {
        store.request_progress().await.unwrap();
        let mut expected = self.expected(model).into_iter();
        loop {
            let item = tokio::time::timeout(Duration::from_secs(10), self.stream.next()).await;
            match item
                .expect("a watch fell silent")
                .expect("a watch ended without an error")
            {
                Ok(batch) if batch.is_progress() => {
                    if batch.revision >= model.revision() {
                        assert_eq!(
                            expected.next(),
                            None,
                            "caught up, but not everything was told"
                        );
                        self.next = self.next.max(model.revision() + 1);
                        return true;
                    }
                }
                Ok(batch) => {
                    let mut wanted = expected.next().expect("told what did not happen");
                    // What was there before may have been compacted away, then it is left out.
                    for (wanted, told) in wanted.events.iter_mut().zip(&batch.events) {
                        let gone = |kv: &KeyValue| kv.mod_revision < model.compacted;
                        if told.prev.is_none() && wanted.prev.as_ref().is_some_and(gone) {
                            wanted.prev = None;
                        }
                    }
                    assert_eq!(*batch, wanted);
                    self.next = batch.revision + 1;
                }
                Err(StoreError::Compacted { .. }) => {
                    assert!(model.compacted > self.next.min(model.revision()));
                    return false;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn senseless(txn: &Txn) -> bool {
    let of = |ops: &[Op]| {
        let puts: Vec<&Bytes> = ops
            .iter()
            .filter_map(|op| {
                if let Op::Put { key, .. } = op {
                    Some(key)
                } else {
                    None
                }
            })
            .collect();
        let twice = puts.iter().enumerate().any(|(i, k)| puts[..i].contains(k));
        twice
            || ops.iter().any(|op| match op {
                Op::Delete { key } => puts.contains(&key),
                Op::DeleteRange { start, end } => puts.iter().any(|k| within(k, start, Some(end))),
                _ => false,
            })
    };
    of(&txn.success) || of(&txn.failure)
}

fn open(dir: &Path) -> Arc<EmbeddedStore> {
    // A short tail, so that watches take both ways.
    let options = EmbeddedOptions {
        tail_batches: 4,
        ..EmbeddedOptions::default()
    };
    Arc::new(EmbeddedStore::open(dir, options).expect("open"))
}

async fn check(store: &dyn Store, model: &Model, range: Range) {
    let got = store.range(range.clone()).await;
    match range.revision {
        Some(at) if at < model.compacted => {
            assert!(matches!(got, Err(StoreError::Compacted { .. })), "{got:?}");
        }
        _ => {
            let got = got.expect("range");
            let (kvs, count) = model.range(&range);
            assert_eq!((got.revision, got.count), (model.revision(), count));
            assert_eq!(got.more, kvs.len() < count);
            assert_eq!(got.kvs, kvs, "{range:?}");
        }
    }
}

async fn carry_out(acts: Vec<Act>) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut model = Model::new();
    let mut watches: Vec<Watching> = Vec::new();
    for act in acts {
        match act {
            Act::Txns(txns) => {
                // Polled together, so that they form groups, in this order.
                let all = txns.iter().map(|txn| store.txn(txn.clone()));
                for (txn, done) in txns.iter().zip(futures::future::join_all(all).await) {
                    if senseless(txn) {
                        assert!(matches!(done, Err(StoreError::Invalid { .. })), "{done:?}");
                        continue;
                    }
                    let done = done.expect("transaction");
                    assert_eq!(done.succeeded, model.apply(txn), "{txn:?}");
                    assert_eq!(done.revision, model.revision());
                }
            }
            Act::Range(range, at) => {
                let at = at % model.revision() + 1;
                check(&*store, &model, range.clone()).await;
                check(&*store, &model, range.at(at)).await;
            }
            Act::Watch { start, end, back } => {
                let from = back % (model.revision() + 3);
                let stream = store.watch(start.clone(), end.clone(), Some(from)).await;
                match stream {
                    Ok(stream) => {
                        let next = if from == 0 {
                            model.revision() + 1
                        } else {
                            from
                        };
                        watches.push(Watching {
                            stream,
                            start,
                            end,
                            next,
                        });
                    }
                    Err(StoreError::Compacted { .. }) => assert!(from < model.compacted),
                    Err(error) => panic!("{error}"),
                }
            }
            Act::ReadWatch(which) if !watches.is_empty() => {
                let which = which % watches.len();
                if !watches[which].catch_up(&model, &*store).await {
                    watches.remove(which);
                }
            }
            Act::ReadWatch(_) => {}
            Act::Compact(at) => {
                let at = at % (model.revision() + 2);
                match store.compact(at).await {
                    Ok(()) => model.compacted = at,
                    Err(StoreError::Compacted { .. }) => assert!(at <= model.compacted),
                    Err(StoreError::FutureRevision { .. }) => assert!(at > model.revision()),
                    Err(error) => panic!("{error}"),
                }
            }
            Act::Reopen => {
                watches.clear();
                drop(store);
                store = open(dir.path());
            }
        }
    }
    for watch in &mut watches {
        watch.catch_up(&model, &*store).await;
    }
    drop((watches, store));
    let store = open(dir.path());
    for at in model.compacted.max(1)..=model.revision() {
        check(&*store, &model, Range::prefix("").at(at)).await;
    }
    let stats = store.stats().await.unwrap();
    assert_eq!(
        (stats.keys, stats.compacted),
        (model.now().len(), model.compacted)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_model_does(acts in prop::collection::vec(act(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(carry_out(acts));
    }
}
