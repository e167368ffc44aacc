//! What a node agent is started with.

use std::net::IpAddr;
use std::path::PathBuf;

use evenkeel_api::clock::SharedClock;
use evenkeel_runtime::{SharedImages, SharedRuntime};

use crate::eviction::thresholds::Thresholds;
use crate::sysctl::UnsafeSysctls;

/// Settings of a node agent. Everything from outside is handed in: no environment is read.
#[derive(Clone)]
pub struct NodeConfig {
    /// Name of the node object; the client authenticates as `system:node:NAME`.
    pub name: String,
    /// The way to the API.
    pub client: kube::Client,
    /// What runs containers.
    pub runtime: SharedRuntime,
    /// The local image store.
    pub images: SharedImages,
    /// Directory of the agent's own: pod directories are made below it.
    pub root: PathBuf,
    /// Directory of the volumes that are made on this node.
    pub volumes: PathBuf,
    /// Directory of container logs (`NAMESPACE_NAME_UID/CONTAINER/N.log`).
    pub log_root: PathBuf,
    /// Addresses of the cluster's DNS servers.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Address that the node is reached at.
    pub node_ip: IpAddr,
    /// Port of the node's HTTPS server (`daemonEndpoints.kubeletEndpoint`).
    pub kubelet_port: u16,
    /// Addresses of this node's pods, written into `spec.podCIDR` when the node is registered.
    pub pod_cidr: Option<String>,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// Directory of static pods' files, if there are any.
    pub static_pods: Option<PathBuf>,
    /// Sysctls that pods may set beside the safe ones.
    pub unsafe_sysctls: UnsafeSysctls,
    /// When pods are evicted because the node runs short.
    pub eviction_hard: Thresholds,
    /// Labels beside those that every node has.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Wall clock.
    pub clock: SharedClock,
    /// `KUBERNETES_SERVICE_HOST`, while the service `default/kubernetes` is not there.
    pub api_server_host: String,
    /// `KUBERNETES_SERVICE_PORT`, while the service `default/kubernetes` is not there.
    pub api_server_port: u16,
    /// Version that the node reports (`v1.37.0+evenkeel`).
    pub version: String,
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("name", &self.name)
            .field("root", &self.root)
            .field("node_ip", &self.node_ip)
            .finish_non_exhaustive()
    }
}

/// Why the agent could not go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A directory of the agent can't be made.
    #[error("{0}")]
    Directory(String),
    /// The runtime does not answer.
    #[error("container runtime")]
    Runtime(#[from] evenkeel_runtime::RuntimeError),
    /// The HTTP client that images and probes need can't be made.
    #[error("{0}")]
    Setup(String),
}
