//! What no engine carries out, whatever its state: limits, and transactions without a meaning.

use std::ops::Bound;

use bytes::Bytes;

use crate::error::StoreError;
use crate::model::{Op, Txn, covers};

/// The most bytes of keys and values in one transaction.
pub(crate) const MAX_TXN_BYTES: usize = 16 << 20;
/// The most operations and conditions in one transaction.
pub(crate) const MAX_TXN_OPS: usize = 4096;
/// The longest key, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 64 << 10;

/// Refuses what can never be carried out, whatever the state. Both branches are looked at, so
/// that a transaction does not fail only on the day when the other branch is taken.
pub(crate) fn validate(txn: &Txn) -> Result<(), StoreError> {
    let ops = txn
        .compare
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    if ops > MAX_TXN_OPS {
        let what = "the number of operations";
        return Err(StoreError::TooLarge {
            what,
            size: ops,
            limit: MAX_TXN_OPS,
        });
    }
    validate_branch(&txn.success)?;
    validate_branch(&txn.failure)
}

fn validate_branch(ops: &[Op]) -> Result<(), StoreError> {
    let mut size = 0;
    let mut puts = std::collections::BTreeSet::<Bytes>::new();
    for op in ops {
        let Op::Put { key, value } = op else { continue };
        if key.is_empty() {
            return Err(StoreError::Invalid {
                reason: "a key is empty",
            });
        }
        if key.len() > MAX_KEY_BYTES {
            let (what, size) = ("the length of a key", key.len());
            return Err(StoreError::TooLarge {
                what,
                size,
                limit: MAX_KEY_BYTES,
            });
        }
        size += key.len() + value.len();
        if !puts.insert(key.clone()) {
            return Err(StoreError::Invalid {
                reason: "a key is put twice",
            });
        }
    }
    if size > MAX_TXN_BYTES {
        let what = "the size of a transaction in bytes";
        return Err(StoreError::TooLarge {
            what,
            size,
            limit: MAX_TXN_BYTES,
        });
    }
    for op in ops {
        let hit = match op {
            Op::Delete { key } => puts.contains(key),
            Op::DeleteRange { start, end } => puts
                .range::<[u8], _>((Bound::Included(&start[..]), Bound::Unbounded))
                .next()
                .is_some_and(|k| covers(start, Some(end), k)),
            _ => false,
        };
        if hit {
            return Err(StoreError::Invalid {
                reason: "a key is both put and deleted",
            });
        }
    }
    Ok(())
}
