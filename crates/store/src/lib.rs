//! The versioned key-value store: the trait, its two engines and the suite both must pass.
//!
//! What lives here: the words of the store ([`KeyValue`], [`Range`], [`Txn`], [`EventBatch`]), the
//! [`Store`] trait with etcd's meaning of revisions, transactions, watches and compaction, the
//! engine that serves it inside one process ([`embedded`]), the one that hands it to a cluster of
//! etcd ([`etcd`]), and the conformance [`suite`] that every engine must pass. What never does: anything that knows what an object is. Keys and
//! values are bytes here, and the direction of dependency ends here.

pub mod embedded;
mod error;
pub mod etcd;
mod model;
pub mod snapshot;
mod store;
pub mod suite;
mod validate;

pub use error::StoreError;
pub use model::{
    Compare, Event, EventBatch, EventKind, KeyValue, Op, OpResult, Range, RangeResult, Revision,
    StoreStats, Txn, TxnResult, prefix_end,
};
pub use store::{Announced, Store, WatchStream};
