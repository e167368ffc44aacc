//! What may be given out only once, also by several servers on one store: service addresses and
//! node ports.
//!
//! [`crate::admission::Allocate`] picks from what its server has seen, which another server may have
//! given out a moment ago. So the write of a service claims what the service has, in the same
//! transaction: a key for each address and port, which must be absent, and goes with the service.
//! Services written before there were claims have none; their addresses are seen by everybody.

use std::collections::BTreeSet;

use bytes::Bytes;
use evenkeel_api::Status;
use evenkeel_api::row::ResourceDef;
use evenkeel_store::{Compare, KeyValue, Op, OpResult, Txn, TxnResult};
use serde_json::Value;

use crate::admission::service_uses;
use crate::object::Object;

/// The reason of [`taken`], by which the verbs know it.
const REASON: &str = "ClaimTaken";

fn key(used: &str) -> Bytes {
    Bytes::from(format!("/registry/claims/service/{used}"))
}

/// Whether objects of a kind claim anything.
pub(crate) fn may_claim(row: &ResourceDef) -> bool {
    row.gvk.kind == "Service" && row.gvk.group.is_empty()
}

/// Adds to a transaction that writes a service the claims that it gains and loses; answers whether
/// it gains one.
pub(crate) fn add(
    txn: &mut Txn,
    row: &ResourceDef,
    before: Option<&Object>,
    after: Option<&Value>,
) -> bool {
    if !may_claim(row) {
        return false;
    }
    let uses = |value: &Value| {
        service_uses(value)
            .into_iter()
            .collect::<BTreeSet<String>>()
    };
    let before = before.map(|seen| uses(&seen.value())).unwrap_or_default();
    let after = after.map(uses).unwrap_or_default();
    for lost in before.difference(&after) {
        txn.success.push(Op::Delete { key: key(lost) });
    }
    for gained in after.difference(&before) {
        txn.compare.push(Compare::ModRevision {
            key: key(gained),
            revision: 0,
        });
        txn.success.push(Op::Put {
            key: key(gained),
            value: Bytes::new(),
        });
    }
    after.difference(&before).next().is_some()
}

/// Whether a transaction failed for a claim and not for its object, which is as it `should_be`.
pub(crate) fn lost(result: &TxnResult, should_be: impl Fn(Option<&KeyValue>) -> bool) -> bool {
    if result.succeeded {
        return false;
    }
    let object = result.results.iter().find_map(|result| match result {
        OpResult::Range(read) => Some(read.kvs.first()),
        _ => None,
    });
    object.is_some_and(should_be)
}

/// Another server has just given out what this write claims.
pub(crate) fn taken() -> Status {
    Status::failure(
        409,
        REASON,
        "an address or port of the service was given out at the same moment; try again",
    )
}

/// Whether a status is [`taken`].
pub(crate) fn is_taken(status: &Status) -> bool {
    status.reason == REASON
}
