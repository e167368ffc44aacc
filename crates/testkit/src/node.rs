//! A node with the real agent over a pretended runtime.

use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_client::SharedClock;
use evenkeel_node::testing::{FakeImages, FakeRuntime};
use evenkeel_node::{Agent, NodeConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A node; it ends when dropped.
#[derive(Debug)]
pub struct FakeNode {
    /// Says what containers do.
    pub runtime: FakeRuntime,
    /// Says which images are there.
    pub images: Arc<FakeImages>,
    _agent: AbortOnDropHandle<()>,
}

impl FakeNode {
    pub(crate) fn start(
        name: &str,
        client: kube::Client,
        clock: SharedClock,
        root: PathBuf,
        stop: CancellationToken,
    ) -> Self {
        let runtime = FakeRuntime::new(Arc::clone(&clock));
        let images = Arc::new(FakeImages::new());
        let agent = Agent::new(NodeConfig {
            name: name.to_owned(),
            client,
            runtime: Arc::new(runtime.clone()),
            images: images.clone(),
            root: root.join("agent"),
            volumes: root.join("volumes"),
            log_root: root.join("logs"),
            cluster_dns: vec!["10.96.0.10".parse().expect("an address")],
            cluster_domain: "cluster.local".to_owned(),
            node_ip: "192.0.2.1".parse().expect("an address"),
            kubelet_port: 10250,
            pod_cidr: None,
            max_pods: 110,
            static_pods: None,
            unsafe_sysctls: Default::default(),
            eviction_hard: Default::default(),
            labels: Default::default(),
            clock,
            api_server_host: "10.96.0.1".to_owned(),
            api_server_port: 443,
            version: "v1.37.0".to_owned(),
        })
        .expect("an agent");
        let agent = AbortOnDropHandle::new(tokio::spawn(async move {
            agent.run(stop).await.expect("the agent runs");
        }));
        Self {
            runtime,
            images,
            _agent: agent,
        }
    }
}
