//! Why is it stuck: the cause chain of anything that is not healthy, and the next step.
//!
//! What lives here: reading an object and what it depends on through the API ([`gather`]), and
//! turning that into a chain of plain sentences ([`chain`], pure). What never lives here: guesses.
//! Every sentence restates what the API says, and a chain ends where the API says no more.

mod chain;
mod decision;
mod gather;
mod groups;
mod storage;
mod workloads;

pub use chain::{Chain, Link};
pub use gather::{ExplainError, why};
