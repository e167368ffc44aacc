//! The node of this process: network, images, runtime, agent, and the agent's own API.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use evenkeel_api::clock::SharedClock;
use evenkeel_network::{BuiltInNetwork, NodeNetwork, NodeNetworkConfig};
use evenkeel_node::{Agent, NodeConfig};
use evenkeel_runtime::{EmbeddedOptions, EmbeddedRuntime, ImageOptions, ImageStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Settings;

/// First argument of the hidden helper that containers are started by.
pub(crate) const HELPER: &str = "runtime-helper";
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Place of the cluster's DNS in the service network.
const DNS_PLACE: u32 = 10;

/// The images of a data directory.
pub(crate) fn images(data: &Path, mirrors: &[(String, String)]) -> anyhow::Result<ImageStore> {
    let mut options = ImageOptions::default();
    for (host, url) in mirrors {
        options
            .mirrors
            .entry(host.clone())
            .or_default()
            .push(url.clone());
    }
    let place = data.join("node").join("images");
    ImageStore::open(&place, options)
        .with_context(|| format!("can't open the image store in {}", place.display()))
}

/// How this node's network is laid out.
pub(crate) fn network(settings: &Settings) -> NodeNetworkConfig {
    let instance = settings.instance();
    let state = settings.data_dir.join("node").join("network");
    let mut config = NodeNetworkConfig::new(&instance, &settings.node_name, &state);
    config.bridge = format!("ek-{instance}");
    config.pod_cidr = settings.pod_cidr;
    config.cluster_cidr = settings.cluster_cidr;
    config.service_cidr = settings.service_cidr;
    config.dns_address = settings.service_address(DNS_PLACE);
    config.cluster_domain = CLUSTER_DOMAIN.to_owned();
    config
}

/// What must be known before pods can reach the door: the network is up, its gateway is an
/// address of this machine.
pub(crate) struct Node {
    network: Arc<NodeNetwork>,
    runtime: Arc<EmbeddedRuntime>,
    images: Arc<ImageStore>,
    api: TcpListener,
    pub(crate) gateway: Ipv4Addr,
    /// Where the agent is reached.
    pub(crate) address: Ipv4Addr,
}

/// How a node reaches the API server, and what it serves its own API with.
pub(crate) struct Way {
    /// As the node.
    pub(crate) client: kube::Client,
    /// As what routes services.
    pub(crate) proxy: kube::Client,
    /// Must ask for client certificates of the cluster's authority.
    pub(crate) tls: rustls::ServerConfig,
}

impl Node {
    /// Sets up network, images and runtime, and adopts the containers that run already.
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let config = network(settings);
        let network = tokio::task::spawn_blocking(move || NodeNetwork::start(config))
            .await?
            .context("can't set up the pod network (it needs root; --no-node runs without)")?;
        let images = Arc::new(images(&settings.data_dir, &settings.registry_mirrors)?);
        let runtime = EmbeddedRuntime::new(EmbeddedOptions {
            root: settings.data_dir.join("node"),
            instance: settings.instance(),
            network: Arc::new(BuiltInNetwork(Arc::clone(&network))),
            images: Arc::clone(&images),
            helper: "/proc/self/exe".into(),
            helper_args: vec![HELPER.to_owned()],
        })
        .context("can't start the container runtime")?;
        let gateway = network.gateway();
        let address = settings.node_ip.unwrap_or(gateway);
        let api = TcpListener::bind((address, settings.node_port))
            .await
            .with_context(|| {
                format!(
                    "can't listen on {address}:{} for the node's API; choose another port with \
                 --node-port, another address with --node-ip",
                    settings.node_port
                )
            })?;
        Ok(Self {
            network,
            runtime: Arc::new(runtime),
            images,
            api,
            gateway,
            address,
        })
    }

    /// The port of the node's API.
    pub(crate) fn port(&self) -> anyhow::Result<u16> {
        let address = self.api.local_addr();
        Ok(address.context("the node's socket has no address")?.port())
    }

    /// Runs the agent and the network until told to stop. Containers go on running.
    pub(crate) async fn run(
        self,
        settings: Settings,
        way: Way,
        clock: SharedClock,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let port = self.port()?;
        let Way { client, proxy, tls } = way;
        let agent = Agent::new(NodeConfig {
            name: settings.node_name.clone(),
            client,
            runtime: self.runtime,
            images: self.images,
            root: settings.data_dir.join("node").join("agent"),
            volumes: std::fs::canonicalize(&settings.data_dir)
                .with_context(|| settings.data_dir.display().to_string())?
                .join("volumes"),
            log_root: settings.data_dir.join("node").join("logs"),
            cluster_dns: vec![IpAddr::V4(settings.service_address(DNS_PLACE))],
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            node_ip: IpAddr::V4(self.address),
            kubelet_port: port,
            pod_cidr: Some(settings.pod_cidr.to_string()),
            max_pods: 110,
            labels: Default::default(),
            static_pods: settings.static_pods.clone(),
            unsafe_sysctls: settings.unsafe_sysctls.clone(),
            eviction_hard: settings.eviction_hard.clone(),
            clock,
            api_server_host: settings.service_address(1).to_string(),
            api_server_port: 443,
            version: format!(
                "{}+evenkeel-{}",
                evenkeel_server::describe::KUBERNETES_VERSION,
                env!("CARGO_PKG_VERSION")
            ),
        })
        .context("can't start the node agent")?
        .with_server(self.api, Arc::new(tls));
        let network = Arc::clone(&self.network);
        let routing = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = network.run(proxy).await {
                tracing::error!(%error, "service routing and DNS ended");
            }
        }));
        let outcome = agent.run(stop).await.context("the node agent ended");
        drop(routing);
        outcome
    }
}

/// Removes everything that a node of this data directory left in the kernel: containers, mounts,
/// namespaces, control groups, links, routes and tables. The data stays.
pub(crate) fn clean(settings: &Settings) -> anyhow::Result<()> {
    let root = settings.data_dir.join("node");
    evenkeel_runtime::cleanup(&root, &settings.instance()).context("containers")?;
    evenkeel_network::cleanup(&network(settings)).context("network")?;
    unmount_below(&root)
}

/// Unmounts what the agent mounted for volumes, the innermost first.
fn unmount_below(root: &Path) -> anyhow::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("mounts")?;
    // The fifth field is the mount point, with spaces and the like as octal escapes.
    let mut below: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(root))
        .collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    for point in below {
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("can't unmount {}", point.display()))?;
    }
    Ok(())
}
