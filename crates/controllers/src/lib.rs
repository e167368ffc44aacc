//! Workloads, endpoints, identity and lifecycle: the loops that make declared state true.
//!
//! Each module is one loop: `plan` is pure (what is wanted, what is there → what to do), `apply`
//! carries it out, and killing it between any two steps loses and doubles nothing. What never
//! lives here: a loop that reads the store, a timer where a watch can tell, a decision inside
//! `apply`.

pub mod all;
pub mod balancer;
pub mod bootstrap_signer;
pub mod certificates;
pub mod claim;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod device_taints;
pub mod discovered;
pub mod disruption;
mod ending;
pub mod endpoints;
pub mod error;
pub mod garbage;
pub mod history;
pub mod job;
pub mod namespaces;
pub mod nodes;
pub mod pod_control;
pub mod pod_groups;
pub mod pods;
pub mod policies;
pub mod quota;
pub mod replicaset;
pub mod resource_claims;
pub mod revisions;
pub mod roles;
pub mod scaled;
pub mod service_cidrs;
pub mod statefulset;
pub mod storage_migration;
#[cfg(test)]
mod testing;
pub mod token_secrets;
pub mod told;
pub mod volumes;

pub use all::{Composition, Loop, all};
pub use error::ReconcileError;
