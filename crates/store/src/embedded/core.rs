//! What the writer, the readers and the watches of one open store share.
//!
//! Invariant: the index and the hub change together, under the index's write lock, and only after
//! the log has made the change durable. So nobody ever sees what a power cut could take back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::hub::{Hub, Interest};
use super::index::{Found, FoundRange, Index};
use super::log::{Log, Record, RecordId};
use super::space::Space;
use crate::error::StoreError;
use crate::model::{
    Event, EventBatch, EventKind, KeyValue, Range, RangeResult, Revision, StoreStats,
};

/// How much history one read of a watch takes, in bytes of keys and values.
const READ_BYTES: usize = 1 << 20;
/// Over so many groups the pace is a mean.
const PACE: u64 = 8;

/// The shared state of one open store.
pub(crate) struct Core {
    pub(crate) index: RwLock<Index>,
    pub(crate) hub: Mutex<Hub>,
    pub(crate) log: Box<dyn Log>,
    pub(crate) counters: Counters,
    pub(crate) space: Space,
}

/// Figures that the writer counts up.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    txns: AtomicU64,
    fsyncs: AtomicU64,
    fsync_nanos: AtomicU64,
    fsync_max_nanos: AtomicU64,
    /// What a group takes lately; 0 before the first.
    pace_nanos: AtomicU64,
}

impl Counters {
    /// Counts one group of `txns` transactions that took `elapsed` to become durable.
    pub(crate) fn group(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.fsync_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.fsync_max_nanos.fetch_max(nanos, Ordering::Relaxed);
        // Only who holds the writer counts.
        let pace = match self.pace_nanos.load(Ordering::Relaxed) {
            0 => nanos,
            pace => pace - pace / PACE + nanos / PACE,
        };
        self.pace_nanos.store(pace.max(1), Ordering::Relaxed);
    }

    /// How long a group takes lately to become durable; `None` before the first.
    pub(crate) fn pace(&self) -> Option<Duration> {
        let nanos = self.pace_nanos.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    pub(crate) fn txns(&self, txns: usize) {
        self.txns.fetch_add(txns as u64, Ordering::Relaxed);
    }
}

impl Core {
    /// Answers a range whose values are all in memory, or says what is missing.
    pub(crate) fn lookup(&self, range: &Range) -> Result<(FoundRange, Revision), StoreError> {
        let index = self.index.read();
        Ok((index.range(range)?, index.revision))
    }

    /// Fetches what a lookup left in the log. Blocks on the disk where something was left.
    pub(crate) fn complete(
        &self,
        range: &Range,
        (found, revision): (FoundRange, Revision),
    ) -> Result<RangeResult, StoreError> {
        let FoundRange { found, count } = found;
        let mut kvs = Vec::with_capacity(found.len());
        for item in found {
            kvs.push(match self.fetch(item)? {
                Some(kv) => kv,
                None => {
                    // Compaction may have overtaken us; if it did not, a record is missing.
                    let read = range.revision.unwrap_or(0);
                    self.index.read().check_compacted(read)?;
                    return Err(self
                        .log
                        .corrupt(format!("a record of revision {read} is gone")));
                }
            });
        }
        let more = !range.count_only && kvs.len() < count;
        Ok(RangeResult {
            kvs,
            more,
            count,
            revision,
        })
    }

    fn fetch(&self, item: Found) -> Result<Option<KeyValue>, StoreError> {
        let Some(id) = item.fetch else {
            return Ok(Some(item.kv));
        };
        let record = self.log.get(id)?;
        Ok(record.map(|record| KeyValue {
            value: record.value,
            ..item.kv
        }))
    }

    /// Reads the history of a watch, beginning at `from`, not beyond `until`. Returns the matching
    /// batches and the last revision looked at. Blocks on the disk.
    pub(crate) fn history(
        &self,
        interest: &Interest,
        from: Revision,
        until: Revision,
    ) -> Result<(Vec<Arc<EventBatch>>, Revision), StoreError> {
        self.index.read().check_compacted(from)?;
        let mut records: Vec<Record> = Vec::new();
        let (mut bytes, mut whole) = (0, 0);
        let mut expected = RecordId {
            revision: from,
            sub: 0,
        };
        let mut gap = None;
        self.log.scan(from, &mut |record| {
            if record.id != expected {
                gap = Some(record.id);
                return false;
            }
            expected = record.successor();
            bytes += record.key.len() + record.value.len();
            let (last, revision) = (record.last, record.id.revision);
            records.push(record);
            if last {
                whole = records.len();
            }
            !(last && (revision >= until || bytes >= READ_BYTES))
        })?;
        records.truncate(whole);
        // Whatever is read after this check was there: compaction first says so, then drops.
        let index = self.index.read();
        index.check_compacted(from)?;
        let Some(end) = records.last().map(|record| record.id.revision) else {
            let found = gap.map_or_else(String::new, |id| format!(", found {}", id.revision));
            return Err(self.log.corrupt(format!("revision {from} is gone{found}")));
        };
        let before: Vec<Option<Found>> = records
            .iter()
            .map(|r| index.before(&r.key, r.id.revision))
            .collect();
        drop(index);
        let mut batches: Vec<EventBatch> = Vec::new();
        for (record, before) in records.into_iter().zip(before) {
            let wanted =
                crate::model::covers(&interest.start, interest.end.as_deref(), &record.key);
            if !wanted {
                continue;
            }
            let prev = match before {
                Some(found) => self.fetch(found)?,
                None => None,
            };
            let revision = record.id.revision;
            let event = record.into_event(prev);
            match batches.last_mut() {
                Some(batch) if batch.revision == revision => batch.events.push(event),
                _ => batches.push(EventBatch {
                    revision,
                    events: vec![event],
                }),
            }
        }
        Ok((batches.into_iter().map(Arc::new).collect(), end))
    }

    pub(crate) fn stats(&self) -> Result<StoreStats, StoreError> {
        let size_on_disk = self.log.size_on_disk()?;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let index = self.index.read();
        Ok(StoreStats {
            revision: index.revision,
            compacted: index.compacted,
            keys: index.live(),
            live_bytes: index.live_bytes(),
            history: index.history(),
            size_on_disk,
            txns: load(&self.counters.txns),
            fsyncs: load(&self.counters.fsyncs),
            fsync_total: Duration::from_nanos(load(&self.counters.fsync_nanos)),
            fsync_max: Duration::from_nanos(load(&self.counters.fsync_max_nanos)),
            watchers: self.hub.lock().watchers(),
        })
    }
}

impl Record {
    /// The id that the next record of a log without gaps has.
    pub(crate) fn successor(&self) -> RecordId {
        let RecordId { revision, sub } = self.id;
        if self.last {
            RecordId {
                revision: revision + 1,
                sub: 0,
            }
        } else {
            RecordId {
                revision,
                sub: sub + 1,
            }
        }
    }

    fn into_event(self, prev: Option<KeyValue>) -> Event {
        let kind = if self.version == 0 {
            EventKind::Delete
        } else {
            EventKind::Put
        };
        let kv = KeyValue {
            key: self.key,
            value: self.value,
            create_revision: self.create_revision,
            mod_revision: self.id.revision,
            version: self.version,
        };
        Event { kind, kv, prev }
    }
}
