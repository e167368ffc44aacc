//! The words of the store: what is read, written, compared and told to watchers.
//!
//! Plain data with etcd's meaning and no behaviour of its own, so that every engine and every
//! caller share it. Keys and values are [`Bytes`]: handing one on costs a pointer, not a copy.

use std::time::Duration;

use bytes::Bytes;

/// A point in the store's history. An empty store stands at 1; every transaction that changes
/// something adds one; it never falls, not even when everything is deleted and compacted.
pub type Revision = u64;

/// One key at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value, exactly the bytes that were put. Empty for a deletion and under `keys_only`.
    pub value: Bytes,
    /// The revision that created the key; a key that is deleted and put again is created anew.
    pub create_revision: Revision,
    /// The revision of the last change.
    pub mod_revision: Revision,
    /// How often the key was put since it was created, starting at 1. 0 for a deletion.
    pub version: u64,
}

/// What to read: one key or an interval of keys, now or at an earlier revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    /// The key, or the first key of the interval.
    pub start: Bytes,
    /// One past the last key; `None` reads the single key `start`; empty bytes mean no upper end.
    pub end: Option<Bytes>,
    /// Read as of this revision; `None` reads the current state.
    pub revision: Option<Revision>,
    /// Return at most so many keys; 0 means all.
    pub limit: usize,
    /// Return only the count.
    pub count_only: bool,
    /// Return keys and their revisions with empty values.
    pub keys_only: bool,
}

impl Range {
    /// Reads one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self {
            start: key.into(),
            ..Self::default()
        }
    }

    /// Reads every key that begins with `prefix`; the empty prefix reads all keys.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = Some(prefix_end(&start));
        Self {
            start,
            end,
            ..Self::default()
        }
    }

    /// Reads the keys from `start` up to but without `end`.
    pub fn interval(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self {
            start: start.into(),
            end: Some(end.into()),
            ..Self::default()
        }
    }

    /// The same range as of `revision`.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    /// The same range with at most `limit` keys returned; 0 means all.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// The same range, counted only.
    #[must_use]
    pub fn count_only(mut self) -> Self {
        self.count_only = true;
        self
    }

    /// The same range without values.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }
}

/// The end of the interval of all keys that begin with `prefix`: the prefix with its last byte
/// raised. Empty (no upper end) when there is no such key, as for the empty prefix.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    Bytes::from(end)
}

/// Whether `key` lies in the interval that [`Range`] and watches describe with `start` and `end`.
pub(crate) fn covers(start: &[u8], end: Option<&[u8]>, key: &[u8]) -> bool {
    match end {
        None => key == start,
        Some(end) => key >= start && (end.is_empty() || key < end),
    }
}

/// The answer to a [`Range`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeResult {
    /// The keys in byte order.
    pub kvs: Vec<KeyValue>,
    /// Whether `limit` left keys out.
    pub more: bool,
    /// All keys of the range at the revision read, also those that `limit` left out.
    pub count: usize,
    /// The store's current revision, taken in the same instant as the keys.
    pub revision: Revision,
}

/// A condition on one key. All of a transaction's conditions must hold for it to succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key was last changed at `revision`; 0 means that it is absent.
    ModRevision {
        /// The key.
        key: Bytes,
        /// The expected revision.
        revision: Revision,
    },
    /// The key was created at `revision`; 0 means that it is absent.
    CreateRevision {
        /// The key.
        key: Bytes,
        /// The expected revision.
        revision: Revision,
    },
    /// The key was put `version` times since it was created; 0 means that it is absent.
    Version {
        /// The key.
        key: Bytes,
        /// The expected number of puts.
        version: u64,
    },
    /// The key is there and has this value.
    Value {
        /// The key.
        key: Bytes,
        /// The expected value.
        value: Bytes,
    },
}

/// One step of a transaction. Steps see what earlier steps of the same transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key. A key may be put only once in a transaction.
    Put {
        /// The key; not empty.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Deletes one key; nothing happens when it is absent.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Deletes every key of an interval.
    DeleteRange {
        /// The first key.
        start: Bytes,
        /// One past the last key; empty means no upper end.
        end: Bytes,
    },
    /// Reads.
    Range(Range),
}

/// What one [`Op`] did, in the order of the operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// A put, with what it replaced.
    Put {
        /// The key as it was before.
        prev: Option<KeyValue>,
    },
    /// A delete of one key or of an interval, with what it removed in key order.
    Delete {
        /// The keys as they were before.
        prev: Vec<KeyValue>,
    },
    /// A read.
    Range(RangeResult),
}

/// Compare and swap: when all of `compare` holds, `success` is carried out, else `failure`;
/// atomically, and at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// The conditions; none means success.
    pub compare: Vec<Compare>,
    /// What to do when all conditions hold.
    pub success: Vec<Op>,
    /// What to do when one does not.
    pub failure: Vec<Op>,
}

impl Txn {
    /// Puts one key without a condition.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let op = Op::Put {
            key: key.into(),
            value: value.into(),
        };
        Self {
            success: vec![op],
            ..Self::default()
        }
    }

    /// Deletes one key without a condition.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self {
            success: vec![Op::Delete { key: key.into() }],
            ..Self::default()
        }
    }
}

/// The answer to a [`Txn`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether all conditions held.
    pub succeeded: bool,
    /// The store's revision after the transaction: its own when it changed something.
    pub revision: Revision,
    /// One result for each operation of the branch that was carried out.
    pub results: Vec<OpResult>,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created or changed.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the change. For a deletion only the key and `mod_revision`, the revision of
    /// the deletion, are set.
    pub kv: KeyValue,
    /// The key before the change; `None` when it was absent, or when the version before has been
    /// compacted away.
    pub prev: Option<KeyValue>,
}

/// All events of one revision that a watch covers. Revisions strictly increase along a watch,
/// except that a progress note may repeat the revision of the batch before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBatch {
    /// The revision of the events. For a progress note: every event up to and including this
    /// revision has been delivered.
    pub revision: Revision,
    /// The events in the order of the transaction; none makes this a progress note.
    pub events: Vec<Event>,
}

impl EventBatch {
    /// Whether this batch carries no event and only tells how far the watch has come.
    #[must_use]
    pub fn is_progress(&self) -> bool {
        self.events.is_empty()
    }
}

/// Figures about the store, for metrics and status. Counters start at 0 when the store opens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// The current revision.
    pub revision: Revision,
    /// The revision that was compacted last; 0 before the first compaction.
    pub compacted: Revision,
    /// Live keys.
    pub keys: usize,
    /// Bytes of live keys and values, all held in memory.
    pub live_bytes: u64,
    /// Older versions and deletions that are kept until they are compacted.
    pub history: usize,
    /// Bytes that the files take on disk.
    pub size_on_disk: u64,
    /// Transactions answered.
    pub txns: u64,
    /// Groups of transactions that were made durable with one fsync.
    pub fsyncs: u64,
    /// Time spent making groups durable, in total.
    pub fsync_total: Duration,
    /// The longest time that one group took to become durable.
    pub fsync_max: Duration,
    /// Open watches.
    pub watchers: usize,
}
