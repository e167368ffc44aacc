//! A cluster in a process, for tests: the real door over the real embedded store in a directory
//! of its own, the real loops and scheduler, and nodes whose containers are pretended.
//!
//! No socket is opened and no right is needed. Requests take the whole pipeline, from authorization
//! to the fsync; only TLS is left out. What never lives here: a second implementation of anything
//! that the product has.

#![allow(
    clippy::missing_panics_doc,
    reason = "a test that can't be set up must panic"
)]

mod cluster;
mod node;
mod request;
mod wait;

pub use cluster::{ADMIN, Cluster};
pub use node::FakeNode;
pub use request::{Caller, Lines, Reply, revision};
pub use wait::{BOUND, until};
