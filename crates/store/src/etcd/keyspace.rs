//! Where our keys and revisions are in an etcd that may be others' as well.
//!
//! Every key stands behind a prefix. Behind the prefix, what begins with [`OWN`] is the engine's:
//! invisible to readers, refused to writers. Revisions are etcd's plus an offset that is fixed when
//! a store is moved into an etcd, so that they go on growing where the other store had come to.

use bytes::Bytes;

use super::proto;
use crate::error::StoreError;
use crate::model::{
    Compare, Event, EventKind, KeyValue, Op, OpResult, Range, RangeResult, Revision, Txn, covers,
};

/// Keys that begin so are the engine's own; they stand behind all others.
const OWN: &[u8] = b"\xff\xff\xff";

/// Where our keys and revisions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keyspace {
    pub(super) prefix: Bytes,
    /// What is added to etcd's revisions.
    pub(super) offset: Revision,
}

/// `i64` of a number that etcd counts; beyond it nothing is.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of etcd, which has none below zero.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn join(parts: &[&[u8]]) -> Bytes {
    Bytes::from(parts.concat())
}

impl Keyspace {
    /// A key of the engine's own.
    pub(super) fn own(&self, name: &str) -> Bytes {
        join(&[&self.prefix, OWN, name.as_bytes()])
    }

    /// All keys of the engine's own, as an interval.
    pub(super) fn owns(&self) -> (Bytes, Bytes) {
        (self.own(""), join(&[&self.prefix, OWN, b"\xff"]))
    }

    fn wire(&self, key: &[u8]) -> Bytes {
        join(&[&self.prefix, key])
    }

    /// The first key of an interval; the smallest key there is is one zero byte.
    pub(super) fn wire_start(&self, start: &[u8]) -> Bytes {
        if start.is_empty() && self.prefix.is_empty() {
            return Bytes::from_static(b"\0");
        }
        self.wire(start)
    }

    fn wire_end(&self, end: Option<&[u8]>) -> Bytes {
        match end {
            None => Bytes::new(),
            Some(end) if end.is_empty() || end > OWN => self.own(""),
            Some(end) => self.wire(end),
        }
    }

    /// A revision as etcd counts it; `None` when it lies before the store moved there.
    pub(super) fn to_wire(&self, revision: Revision) -> Option<i64> {
        let wire = revision.checked_sub(self.offset).filter(|wire| *wire > 0)?;
        i64::try_from(wire).ok()
    }

    pub(super) fn to_ours(&self, revision: i64) -> Revision {
        unsigned(revision).saturating_add(self.offset)
    }

    pub(super) fn header(&self, header: Option<&proto::Header>) -> Revision {
        self.to_ours(header.map_or(0, |header| header.revision))
    }

    /// Key and value are copied into one allocation: they would hold on to the whole message.
    pub(super) fn kv(&self, kv: &proto::KeyValue) -> KeyValue {
        let key = kv.key.strip_prefix(&*self.prefix).unwrap_or_default();
        let mut both = join(&[key, &kv.value]);
        let value = both.split_off(key.len());
        let revision = |wire: i64| if wire > 0 { self.to_ours(wire) } else { 0 };
        KeyValue {
            key: both,
            value,
            create_revision: revision(kv.create_revision),
            mod_revision: revision(kv.mod_revision),
            version: unsigned(kv.version),
        }
    }

    pub(super) fn event(&self, event: &proto::Event) -> Event {
        Event {
            kind: if event.kind == 1 {
                EventKind::Delete
            } else {
                EventKind::Put
            },
            kv: self.kv(event.kv.as_ref().unwrap_or(&proto::KeyValue::default())),
            prev: event.prev_kv.as_ref().map(|prev| self.kv(prev)),
        }
    }

    /// The request for a range; `None` when nothing can be in it.
    pub(super) fn range(&self, range: &Range, revision: i64) -> Option<proto::RangeRequest> {
        let end = range.end.as_deref();
        if range.start.starts_with(OWN)
            || end.is_none() && range.start.is_empty()
            || end.is_some_and(|end| !end.is_empty() && end <= &*range.start)
        {
            return None;
        }
        Some(proto::RangeRequest {
            key: if end.is_some() {
                self.wire_start(&range.start)
            } else {
                self.wire(&range.start)
            },
            range_end: self.wire_end(end),
            limit: signed(range.limit as u64),
            revision,
            keys_only: range.keys_only,
            count_only: range.count_only,
        })
    }

    pub(super) fn ranged(&self, response: &proto::RangeResponse) -> RangeResult {
        RangeResult {
            kvs: response.kvs.iter().map(|kv| self.kv(kv)).collect(),
            more: response.more,
            count: usize::try_from(response.count).unwrap_or(0),
            revision: self.header(response.header.as_ref()),
        }
    }

    fn compare(&self, compare: &Compare) -> proto::Compare {
        use proto::Wanted;
        // A revision from before the move is that of no key: no key has -1.
        let revision = |revision: Revision| match revision {
            0 => 0,
            other => self.to_wire(other).unwrap_or(-1),
        };
        let (target, key, wanted) = match compare {
            Compare::Version { key, version } => (0, key, Wanted::Version(signed(*version))),
            Compare::CreateRevision { key, revision: at } => {
                (1, key, Wanted::CreateRevision(revision(*at)))
            }
            Compare::ModRevision { key, revision: at } => {
                (2, key, Wanted::ModRevision(revision(*at)))
            }
            Compare::Value { key, value } => (3, key, Wanted::Value(value.clone())),
        };
        proto::Compare {
            target,
            key: self.wire(key),
            wanted: Some(wanted),
        }
    }

    fn op(&self, op: &Op) -> Result<proto::RequestOp, StoreError> {
        use proto::Request;
        let deletion = |key: Bytes, range_end: Bytes| {
            Request::DeleteRange(proto::DeleteRangeRequest {
                key,
                range_end,
                prev_kv: true,
            })
        };
        // Stands in for what can't touch anything: no key of ours has this name.
        let nothing = || self.own("nothing");
        let request = match op {
            Op::Put { key, .. } if key.starts_with(OWN) => {
                return Err(StoreError::Invalid {
                    reason: "a key begins as those of the engine itself",
                });
            }
            Op::Put { key, value } => Request::Put(proto::PutRequest {
                key: self.wire(key),
                value: value.clone(),
                prev_kv: true,
            }),
            Op::Delete { key } if key.is_empty() || key.starts_with(OWN) => {
                deletion(nothing(), Bytes::new())
            }
            Op::Delete { key } => deletion(self.wire(key), Bytes::new()),
            Op::DeleteRange { start, end }
                if start.starts_with(OWN) || !end.is_empty() && end <= start =>
            {
                deletion(nothing(), Bytes::new())
            }
            Op::DeleteRange { start, end } => {
                deletion(self.wire_start(start), self.wire_end(Some(end)))
            }
            Op::Range(range) => {
                let revision = match range.revision.filter(|revision| *revision > 0) {
                    None => 0,
                    Some(at) => self.to_wire(at).ok_or(StoreError::Compacted {
                        requested: at,
                        compacted: self.offset + 1,
                    })?,
                };
                let empty = || proto::RangeRequest {
                    key: nothing(),
                    revision,
                    ..proto::RangeRequest::default()
                };
                Request::Range(self.range(range, revision).unwrap_or_else(empty))
            }
        };
        Ok(proto::RequestOp {
            request: Some(request),
        })
    }

    pub(super) fn txn(&self, txn: &Txn) -> Result<proto::TxnRequest, StoreError> {
        let ops = |ops: &[Op]| {
            ops.iter()
                .map(|op| self.op(op))
                .collect::<Result<Vec<_>, StoreError>>()
        };
        Ok(proto::TxnRequest {
            compare: txn.compare.iter().map(|c| self.compare(c)).collect(),
            success: ops(&txn.success)?,
            failure: ops(&txn.failure)?,
        })
    }

    /// What an operation did.
    pub(super) fn done(&self, response: &proto::ResponseOp, revision: Revision) -> OpResult {
        use proto::Response;
        match &response.response {
            Some(Response::Put(put)) => OpResult::Put {
                prev: put.prev_kv.as_ref().map(|kv| self.kv(kv)),
            },
            Some(Response::DeleteRange(deleted)) => OpResult::Delete {
                prev: deleted.prev_kvs.iter().map(|kv| self.kv(kv)).collect(),
            },
            Some(Response::Range(range)) => OpResult::Range(RangeResult {
                revision,
                ..self.ranged(range)
            }),
            None => OpResult::Range(RangeResult::default()),
        }
    }

    /// Whether an event of etcd concerns somebody who watches `start` to `end`.
    pub(super) fn concerns(&self, start: &[u8], end: Option<&[u8]>, wire: &[u8]) -> bool {
        wire.strip_prefix(&*self.prefix)
            .is_some_and(|key| !key.starts_with(OWN) && covers(start, end, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_before_a_move_are_nobodys() {
        let keys = Keyspace {
            prefix: Bytes::from_static(b"/p"),
            offset: 100,
        };
        assert_eq!((keys.to_wire(100), keys.to_wire(101)), (None, Some(1)));
        assert_eq!(keys.to_ours(1), 101);
        let swap = Txn {
            compare: vec![Compare::ModRevision {
                key: Bytes::from_static(b"k"),
                revision: 7,
            }],
            ..Txn::default()
        };
        let wire = keys.txn(&swap).expect("a transaction");
        assert_eq!(
            wire.compare[0].wanted,
            Some(proto::Wanted::ModRevision(-1)),
            "such a comparison must fail, not mean that the key is absent"
        );
    }

    #[test]
    fn the_engines_own_keys_are_out_of_reach() {
        let keys = Keyspace {
            prefix: Bytes::from_static(b"/p"),
            offset: 0,
        };
        let all = keys.range(&Range::prefix(""), 0).expect("a request");
        assert_eq!(&all.key[..], b"/p");
        assert_eq!(&all.range_end[..], b"/p\xff\xff\xff");
        let own = Op::Put {
            key: Bytes::from_static(b"\xff\xff\xffoffset"),
            value: Bytes::new(),
        };
        let txn = Txn {
            success: vec![own],
            ..Txn::default()
        };
        assert!(matches!(keys.txn(&txn), Err(StoreError::Invalid { .. })));
        assert!(!keys.concerns(b"", Some(b""), &keys.own("offset")));
    }
}
