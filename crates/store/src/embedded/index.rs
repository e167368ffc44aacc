//! The in-memory side of MVCC: every key with its current value, and where its older versions are.
//!
//! Reads of the current state are answered from here alone. Of the past only the heads of versions
//! are kept (40 bytes each); their values are in the log, and the caller fetches them there. No
//! I/O and no locking here: this is plain data that the writer changes and readers look at.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use super::log::RecordId;
use crate::error::StoreError;
use crate::model::{EventBatch, EventKind, KeyValue, Range, Revision};

/// One change of one key, without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// Where the change is in the log.
    pub(crate) id: RecordId,
    /// The revision that created the key; 0 marks a deletion.
    pub(crate) create_revision: Revision,
    /// Puts since the creation; 0 for a deletion.
    pub(crate) version: u64,
}

impl Version {
    fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub(crate) fn kv(&self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            value,
            create_revision: self.create_revision,
            mod_revision: self.id.revision,
            version: self.version,
        }
    }
}

/// All kept versions of one key.
#[derive(Debug)]
struct Chain {
    head: Version,
    /// The head's value; empty for a deletion.
    value: Bytes,
    /// The versions before the head, oldest first.
    older: Vec<Version>,
}

impl Chain {
    /// The newest version at or before `revision`.
    fn at(&self, revision: Revision) -> Option<Version> {
        if self.head.id.revision <= revision {
            return Some(self.head);
        }
        let after = self.older.partition_point(|v| v.id.revision <= revision);
        after.checked_sub(1).map(|i| self.older[i])
    }
}

/// A key that a range found: whole, or with its value still in the log.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) kv: KeyValue,
    /// Where the value must be fetched.
    pub(crate) fetch: Option<RecordId>,
}

/// What a range found.
#[derive(Debug, Default)]
pub(crate) struct FoundRange {
    pub(crate) found: Vec<Found>,
    pub(crate) count: usize,
}

/// The state of the store at one revision, with the heads of its history.
#[derive(Debug)]
pub(crate) struct Index {
    keys: BTreeMap<Bytes, Chain>,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    /// Keys that have an older version, with the revision that superseded it, in order.
    superseded: VecDeque<(Revision, Bytes)>,
    /// Keys that were deleted, with the revision of the deletion, in order.
    deleted: VecDeque<(Revision, Bytes)>,
    live: usize,
    live_bytes: u64,
    versions: usize,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            revision: 1,
            compacted: 0,
            superseded: VecDeque::new(),
            deleted: VecDeque::new(),
            live: 0,
            live_bytes: 0,
            versions: 0,
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Versions and deletions that are not the current value of a key.
    pub(crate) fn history(&self) -> usize {
        self.versions - self.live
    }

    /// The current value of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<KeyValue> {
        let (key, chain) = self.keys.get_key_value(key)?;
        if chain.head.is_tombstone() {
            return None;
        }
        Some(chain.head.kv(key.clone(), chain.value.clone()))
    }

    /// The version of `key` that a change at `revision` replaced; `None` if there was none or if
    /// it has been compacted away.
    pub(crate) fn before(&self, key: &[u8], revision: Revision) -> Option<Found> {
        let (key, chain) = self.keys.get_key_value(key)?;
        let version = chain.at(revision.checked_sub(1)?)?;
        if version.is_tombstone() {
            return None;
        }
        Some(self.found(key, chain, version, false))
    }

    /// The live keys of an interval in their current state, in order.
    pub(crate) fn current<'a>(
        &'a self,
        start: &[u8],
        end: Option<&'a [u8]>,
    ) -> impl Iterator<Item = KeyValue> + 'a {
        self.interval(start, end)
            .filter(|(_, chain)| !chain.head.is_tombstone())
            .map(|(key, chain)| chain.head.kv(key.clone(), chain.value.clone()))
    }

    fn interval<'a>(
        &'a self,
        start: &[u8],
        end: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Chain)> + 'a {
        let upper = match end {
            None => Bound::Included(start),
            Some([]) => Bound::Unbounded,
            // An interval that ends before it begins is empty; BTreeMap would panic on it.
            Some(end) if end <= start => Bound::Excluded(start),
            Some(end) => Bound::Excluded(end),
        };
        let lower = match upper {
            Bound::Excluded(end) if end == start => None,
            _ => Some(Bound::Included(start)),
        };
        lower
            .map(|lower| self.keys.range::<[u8], _>((lower, upper)))
            .into_iter()
            .flatten()
    }

    fn found(&self, key: &Bytes, chain: &Chain, version: Version, keys_only: bool) -> Found {
        let is_head = version == chain.head;
        let value = if is_head && !keys_only {
            chain.value.clone()
        } else {
            Bytes::new()
        };
        let fetch = (!is_head && !keys_only).then_some(version.id);
        Found {
            kv: version.kv(key.clone(), value),
            fetch,
        }
    }

    /// Whether a range or watch at `revision` can be answered.
    pub(crate) fn check(&self, requested: Revision) -> Result<(), StoreError> {
        if requested > self.revision {
            return Err(StoreError::FutureRevision {
                requested,
                current: self.revision,
            });
        }
        self.check_compacted(requested)
    }

    pub(crate) fn check_compacted(&self, requested: Revision) -> Result<(), StoreError> {
        if requested < self.compacted {
            return Err(StoreError::Compacted {
                requested,
                compacted: self.compacted,
            });
        }
        Ok(())
    }

    /// Looks a range up, at its revision or now.
    pub(crate) fn range(&self, range: &Range) -> Result<FoundRange, StoreError> {
        let revision = match range.revision {
            None | Some(0) => self.revision,
            Some(revision) => {
                self.check(revision)?;
                revision
            }
        };
        let limit = if range.limit == 0 {
            usize::MAX
        } else {
            range.limit
        };
        let mut result = FoundRange::default();
        for (key, chain) in self.interval(&range.start, range.end.as_deref()) {
            let Some(version) = chain.at(revision).filter(|v| !v.is_tombstone()) else {
                continue;
            };
            result.count += 1;
            if !range.count_only && result.found.len() < limit {
                result
                    .found
                    .push(self.found(key, chain, version, range.keys_only));
            }
        }
        Ok(result)
    }

    /// Takes over one revision, which must be the next one.
    pub(crate) fn apply(&mut self, batch: &EventBatch) {
        for (sub, event) in (0u32..).zip(&batch.events) {
            let id = RecordId {
                revision: batch.revision,
                sub,
            };
            let version = match event.kind {
                EventKind::Put => Version {
                    id,
                    create_revision: event.kv.create_revision,
                    version: event.kv.version,
                },
                EventKind::Delete => Version {
                    id,
                    create_revision: 0,
                    version: 0,
                },
            };
            self.insert(event.kv.key.clone(), event.kv.value.clone(), version);
        }
        self.revision = batch.revision;
    }

    /// Adds one version, newer than all that are known of its key. `value` is empty for a
    /// deletion.
    pub(crate) fn insert(&mut self, key: Bytes, value: Bytes, version: Version) {
        let revision = version.id.revision;
        let size = |key: &Bytes, value: &Bytes| (key.len() + value.len()) as u64;
        self.versions += 1;
        if version.is_tombstone() {
            self.deleted.push_back((revision, key.clone()));
        } else {
            self.live += 1;
            self.live_bytes += size(&key, &value);
        }
        match self.keys.entry(key) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(Chain {
                    head: version,
                    value,
                    older: Vec::new(),
                });
            }
            std::collections::btree_map::Entry::Occupied(mut slot) => {
                self.superseded.push_back((revision, slot.key().clone()));
                let key_len = slot.key().len() as u64;
                let chain = slot.get_mut();
                if !chain.head.is_tombstone() {
                    self.live -= 1;
                    self.live_bytes -= key_len + chain.value.len() as u64;
                }
                chain.older.push(chain.head);
                chain.head = version;
                chain.value = value;
            }
        }
    }

    /// Forgets what only revisions before `revision` need, and returns the records that the log
    /// may drop. A deletion at `revision` itself stays until the next compaction, because a watch
    /// from `revision` on must still see it.
    pub(crate) fn compact(&mut self, revision: Revision) -> Vec<RecordId> {
        let mut garbage = Vec::new();
        self.compacted = revision;
        while self
            .superseded
            .front()
            .is_some_and(|(at, _)| *at <= revision)
        {
            let Some((_, key)) = self.superseded.pop_front() else {
                break;
            };
            let Some(chain) = self.keys.get_mut(&key) else {
                continue;
            };
            let keep = if chain.head.id.revision <= revision {
                chain.older.len()
            } else {
                chain
                    .older
                    .partition_point(|v| v.id.revision <= revision)
                    .saturating_sub(1)
            };
            garbage.extend(chain.older.drain(..keep).map(|v| v.id));
            if chain.older.is_empty() {
                chain.older = Vec::new();
            }
        }
        while self.deleted.front().is_some_and(|(at, _)| *at < revision) {
            let Some((at, key)) = self.deleted.pop_front() else {
                break;
            };
            let Some(chain) = self.keys.get_mut(&key) else {
                continue;
            };
            if chain.head.id.revision == at {
                garbage.push(chain.head.id);
                self.keys.remove(&key);
            } else if chain.older.first().is_some_and(|v| v.id.revision == at) {
                // The key came back later: its deletion is the oldest version that is left.
                garbage.push(chain.older.remove(0).id);
            }
        }
        self.versions -= garbage.len();
        garbage
    }
}
