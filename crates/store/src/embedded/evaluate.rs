//! What a transaction does to the state: pure, without I/O, so that a group of transactions is
//! evaluated in order before any of it is on disk, and forgotten whole if the disk refuses it.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::index::Index;
use crate::error::StoreError;
use crate::model::{
    Compare, Event, EventBatch, EventKind, KeyValue, Op, OpResult, Range, RangeResult, Revision,
    Txn, TxnResult, covers,
};

/// The outcome of one transaction: its answer, and the change it makes, if any.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub(crate) result: TxnResult,
    pub(crate) batch: Option<EventBatch>,
}

/// The committed state with the changes of a group that is not durable yet on top.
pub(crate) struct Pending<'a> {
    base: &'a Index,
    /// The group's changes; `None` marks a deleted key.
    changes: BTreeMap<Bytes, Option<KeyValue>>,
    revision: Revision,
}

impl<'a> Pending<'a> {
    pub(crate) fn new(base: &'a Index) -> Self {
        Self {
            base,
            changes: BTreeMap::new(),
            revision: base.revision,
        }
    }

    fn get(&self, key: &[u8]) -> Option<KeyValue> {
        match self.changes.get(key) {
            Some(changed) => changed.clone(),
            None => self.base.get(key),
        }
    }

    /// The live keys of an interval: two ordered sequences merged, where a change hides its key.
    fn interval(&self, start: &[u8], end: Option<&[u8]>) -> Vec<KeyValue> {
        if end.is_none() {
            return self.get(start).into_iter().collect();
        }
        let mut changed = self
            .changes
            .range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(key, _)| covers(start, end, key))
            .peekable();
        let mut merged = Vec::new();
        for kv in self.base.current(start, end) {
            while let Some((_, change)) = changed.next_if(|(key, _)| **key < kv.key) {
                merged.extend(change.clone());
            }
            match changed.next_if(|(key, _)| **key == kv.key) {
                Some((_, change)) => merged.extend(change.clone()),
                None => merged.push(kv),
            }
        }
        merged.extend(changed.filter_map(|(_, change)| change.clone()));
        merged
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::ModRevision { key, revision } => {
                self.get(key).map_or(0, |kv| kv.mod_revision) == *revision
            }
            Compare::CreateRevision { key, revision } => {
                self.get(key).map_or(0, |kv| kv.create_revision) == *revision
            }
            Compare::Version { key, version } => {
                self.get(key).map_or(0, |kv| kv.version) == *version
            }
            Compare::Value { key, value } => self.get(key).is_some_and(|kv| kv.value == *value),
        }
    }

    /// Evaluates one transaction on top of those before it. On an error nothing has changed.
    /// `past` reads a range at an earlier revision.
    pub(crate) fn evaluate(
        &mut self,
        txn: Txn,
        past: impl Fn(&Range) -> Result<RangeResult, StoreError>,
    ) -> Result<Evaluated, StoreError> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { txn.success } else { txn.failure };
        // Reads of the past can fail, and do not depend on the steps before them: they go first,
        // so that nothing has to be undone.
        let mut history = BTreeMap::new();
        for (at, op) in ops.iter().enumerate() {
            let Op::Range(range) = op else { continue };
            if let Some(requested) = range.revision.filter(|r| *r > 0) {
                if requested > self.revision {
                    return Err(StoreError::FutureRevision {
                        requested,
                        current: self.revision,
                    });
                }
                history.insert(at, past(range)?);
            }
        }
        let mut step = Step {
            events: Vec::new(),
            revision: self.revision + 1,
        };
        let mut results = Vec::with_capacity(ops.len());
        for (at, op) in ops.into_iter().enumerate() {
            results.push(match (op, history.remove(&at)) {
                (Op::Put { key, value }, _) => OpResult::Put {
                    prev: step.put(self, key, value),
                },
                (Op::Delete { key }, _) => OpResult::Delete {
                    prev: step.delete(self, &key, None),
                },
                (Op::DeleteRange { start, end }, _) => OpResult::Delete {
                    prev: step.delete(self, &start, Some(&end)),
                },
                (Op::Range(_), Some(read)) => OpResult::Range(read),
                (Op::Range(range), None) => {
                    let found = self.interval(&range.start, range.end.as_deref());
                    OpResult::Range(cut(found, &range))
                }
            });
        }
        let batch = (!step.events.is_empty()).then_some(EventBatch {
            revision: step.revision,
            events: step.events,
        });
        if let Some(batch) = &batch {
            self.revision = batch.revision;
        }
        for result in &mut results {
            if let OpResult::Range(read) = result {
                read.revision = self.revision;
            }
        }
        let result = TxnResult {
            succeeded,
            revision: self.revision,
            results,
        };
        Ok(Evaluated { result, batch })
    }
}

/// The changes of one transaction while it is evaluated.
struct Step {
    events: Vec<Event>,
    revision: Revision,
}

impl Step {
    fn put(&mut self, state: &mut Pending<'_>, key: Bytes, value: Bytes) -> Option<KeyValue> {
        let prev = state.get(&key);
        let (create_revision, version) = prev
            .as_ref()
            .map_or((self.revision, 1), |p| (p.create_revision, p.version + 1));
        let kv = KeyValue {
            key,
            value,
            create_revision,
            mod_revision: self.revision,
            version,
        };
        state.changes.insert(kv.key.clone(), Some(kv.clone()));
        self.events.push(Event {
            kind: EventKind::Put,
            kv,
            prev: prev.clone(),
        });
        prev
    }

    fn delete(
        &mut self,
        state: &mut Pending<'_>,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Vec<KeyValue> {
        let removed = state.interval(start, end);
        for prev in &removed {
            let kv = KeyValue {
                key: prev.key.clone(),
                value: Bytes::new(),
                create_revision: 0,
                mod_revision: self.revision,
                version: 0,
            };
            state.changes.insert(kv.key.clone(), None);
            self.events.push(Event {
                kind: EventKind::Delete,
                kv,
                prev: Some(prev.clone()),
            });
        }
        removed
    }
}

/// Applies a range's limit and what it wants to see of each key.
fn cut(mut found: Vec<KeyValue>, range: &Range) -> RangeResult {
    let count = found.len();
    if range.count_only {
        found.clear();
    } else if range.limit > 0 {
        found.truncate(range.limit);
    }
    if range.keys_only {
        found.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    let more = !range.count_only && found.len() < count;
    RangeResult {
        kvs: found,
        more,
        count,
        revision: 0,
    }
}
