//! nftables over netlink: tables, chains, sets, maps, elements and rules are encoded here and
//! carried out in one atomic batch (linux/netfilter/nf_tables.h).
//!
//! It encodes what it is given and knows nothing of services. The `nft` command is not used: it
//! costs 50 ms a change.

mod batch;
mod expr;
mod types;

pub use batch::{Batch, NftError, commit, remove_table, table_exists};
pub use expr::{AnonymousMap, CmpOp, CtDirection, CtKey, Expr, MetaKey, PayloadBase, RejectKind};
pub use types::{Data, Family, Hook, Kind, MapData, Set, Verdict};

#[cfg(test)]
mod tests;
