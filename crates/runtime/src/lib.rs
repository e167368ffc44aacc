//! Containers: sandboxes, images and layers, and the runtime that is built in.
//!
//! What lives here: the [`Runtime`] and [`Images`] contracts, shaped after the Kubernetes
//! Container Runtime Interface so that a CRI socket can stand in for the built-in runtime, and
//! the built-in implementation (namespaces, cgroups, overlay, seccomp).
//!
//! What never lives here: pods, the API, networking policy. The runtime is told what to run; it
//! does not know why.

pub mod contract;

pub use contract::*;
