//! The agent: pod lifecycle, probes, volumes, logs, streaming and status.
//!
//! What lives here: everything one machine does for its pods. [`Agent`] watches the pods bound to
//! its node, gives each a worker ([`pod::worker`]) that brings the runtime in line with it, and
//! reports what is. What to do is decided by pure functions ([`pod::plan`], [`pod::status`],
//! [`spec`]); doing it is thin.
//!
//! What never lives here: scheduling, other nodes, the store. The agent speaks only the API, as
//! `system:node:NAME`, and containers outlive it.

pub mod admission;
pub mod agent;
pub mod backend;
pub mod cdi;
pub mod config;
pub mod context;
pub mod csi;
pub mod devices;
pub mod dra;
pub mod events;
pub mod eviction;
#[doc(hidden)]
pub mod fuzzing;
mod gc;
pub mod images_gc;
mod logs;
pub mod machine;
pub mod objects;
mod orphan;
pub mod pod;
pub mod pod_resources;
pub mod probe;
mod register;
pub mod server;
pub mod services;
pub mod spec;
pub mod static_pods;
pub mod stats;
pub mod sysctl;
pub mod testing;
pub mod view;
pub mod volume;

pub use agent::{Agent, run};
pub use backend::AgentBackend;
pub use config::{NodeConfig, NodeError};
pub use stats::{PodUsage, StatsSampler};
