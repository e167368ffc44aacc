//! Pods: what they are, what to do for them, and the workers that do it.
//!
//! [`plan`](plan::plan) and [`status`](status::compute) are pure; [`worker`] carries plans out
//! through [`ops`]. Nothing outside this module starts or stops a container.

pub(crate) mod conditions;
pub mod hooks;
pub mod kill;
pub mod memory;
pub mod message;
pub mod model;
pub mod observed;
pub mod ops;
pub mod plan;
pub mod pull;
pub mod resize;
pub mod start;
pub mod status;
pub mod status_patch;
pub mod worker;
