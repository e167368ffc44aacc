//! The versioned key-value store: the trait, the embedded engine and the suite both must pass.
//!
//! What lives here: the words of the store ([`KeyValue`], [`Range`], [`Txn`], [`EventBatch`]), the
//! [`Store`] trait with etcd's meaning of revisions, transactions, watches and compaction, the
//! engine that serves it inside one process ([`embedded`]), and the conformance [`suite`] that
//! every engine must pass. What never does: anything that knows what an object is. Keys and
//! values are bytes here, and the direction of dependency ends here.

pub mod embedded;
mod error;
mod model;
mod store;
pub mod suite;

pub use error::StoreError;
pub use model::{
    Compare, Event, EventBatch, EventKind, KeyValue, Op, OpResult, Range, RangeResult, Revision,
    StoreStats, Txn, TxnResult, prefix_end,
};
pub use store::{Store, WatchStream};
