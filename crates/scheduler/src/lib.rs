//! Queue, framework, plugins and bind: which node a pod runs on.
//!
//! Deciding ([`cycle::schedule_one`] over a [`snapshot::Snapshot`], [`core::Core`]) is pure;
//! [`scheduler::Scheduler`] carries it out through the door. What never lives here: the store,
//! anything a node does with the pod, an opinion about how many pods there should be.

pub mod affinity;
pub mod bind;
mod condition;
pub mod config;
pub mod core;
pub mod cycle;
pub mod descheduling;
pub mod devices;
pub mod extenders;
pub mod framework;
mod group_status;
pub mod groups;
mod inputs;
pub mod plugins;
pub mod pod;
mod preempt;
pub mod profile;
pub mod queue;
pub mod resources;
pub mod scheduler;
pub mod snapshot;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod what_if;

pub use scheduler::{Scheduler, run};
pub use trace::{Trace, Traces};
