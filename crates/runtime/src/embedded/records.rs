//! What is kept on disk about sandboxes and containers.
//!
//! `sandbox.json` and `container.json` are written once when a thing is complete, `started.json`
//! and `exit.json` by the shim; each is whole or absent. A directory without its record is
//! half-made and is removed at the next start.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::contract::{ContainerConfig, SandboxConfig};

/// A sandbox, as kept in `sandbox.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) id: String,
    pub(super) config: SandboxConfig,
    /// ns since the epoch.
    pub(super) created_at: i64,
    pub(super) ips: Vec<IpAddr>,
    /// Set once everything is there; until then the sandbox is half-made.
    pub(super) complete: bool,
    /// Stopped on purpose, or its boot is over.
    pub(super) stopped: bool,
    /// The network has not been given back yet.
    pub(super) attached: bool,
    /// First process of a shared PID namespace.
    #[serde(default)]
    pub(super) pause: Option<i32>,
}

/// A container, as kept in `container.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) id: String,
    pub(super) sandbox_id: String,
    pub(super) pod_uid: String,
    pub(super) config: ContainerConfig,
    /// ns since the epoch.
    pub(super) created_at: i64,
    pub(super) image_id: String,
    /// Absolute.
    pub(super) log_path: PathBuf,
    /// Signal number.
    pub(super) stop_signal: i32,
}
