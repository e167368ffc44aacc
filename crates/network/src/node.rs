//! One node's network as a whole: what the node agent and the binary hold.
//!
//! It acts in the network namespace of the thread that calls `start`. Everything that blocks is
//! done on tokio's blocking threads or on a thread of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;
use parking_lot::Mutex;

use crate::Nfnetlink;
use crate::announce::Announcer;
use crate::dns::{DnsSockets, Resolver, ResolverConfig, Upstreams};
use crate::health::{Health, HealthChecks};
use crate::hostports::HostPorts;
use crate::ipam::Ipam;
use crate::link::{BridgeConfig, LinkError, PodLinks, forward_ipv6, remove_bridge};
use crate::nft::{Family, NftError, remove_table, table_exists};
use crate::service::{
    Applied, Catalog, HostPort, Objects, Owner, Routes, Service, ServiceKey, Slice, TableConfig,
    local_endpoints, outside_ips, plan, plan_host_ports,
};

const DNS_PORT: u16 = 53;

/// Interface names are at most this long (IFNAMSIZ without the NUL).
const NAME_MAX: usize = 15;

/// Why the network could not be set up, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A setting that can't work.
    #[error("{0}")]
    Config(String),
    /// Links or addresses.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// nftables or conntrack.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A file of the state directory, or a socket.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// What happened.
        source: io::Error,
    },
}

/// What a node's network is to be.
#[derive(Debug, Clone)]
pub struct NodeNetworkConfig {
    /// Tells several instances on one machine apart: part of the table's name.
    pub instance: String,
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Bytes; 1500 fits where nothing is encapsulated.
    pub mtu: u32,
    /// This node's pods; its first address is the bridge's.
    pub pod_cidr: Ipv4Net,
    /// All nodes' pods; not masqueraded.
    pub cluster_cidr: Ipv4Net,
    /// Service addresses.
    pub service_cidr: Ipv4Net,
    /// Where the cluster's DNS answers; within the service CIDR.
    pub dns_address: Ipv4Addr,
    /// `cluster.local`, without dots at the ends.
    pub cluster_domain: String,
    /// Name of the Node object, for traffic policies `Local`.
    pub node_name: String,
    /// Where leases and host ports are kept; made when missing.
    pub state_dir: PathBuf,
    /// Where the host's resolvers are written.
    pub resolv_conf: PathBuf,
}

impl NodeNetworkConfig {
    /// Settings for one node with the addresses that most installations use: pods 10.244.0.0/24
    /// of 10.244.0.0/16, services 10.96.0.0/12, DNS 10.96.0.10.
    pub fn new(instance: &str, node_name: &str, state_dir: &Path) -> Self {
        let net = |a, b, prefix| {
            Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), prefix).expect("at most 32 bits of prefix")
        };
        Self {
            instance: instance.to_owned(),
            bridge: "ek0".into(),
            mtu: 1500,
            pod_cidr: net(10, 244, 24),
            cluster_cidr: net(10, 244, 16),
            service_cidr: net(10, 96, 12),
            dns_address: Ipv4Addr::new(10, 96, 0, 10),
            cluster_domain: "cluster.local".into(),
            node_name: node_name.to_owned(),
            state_dir: state_dir.to_owned(),
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }

    fn table(&self) -> String {
        format!("evenkeel-{}", self.instance)
    }

    fn check(&self) -> Result<(), NetworkError> {
        let refuse = |text: String| Err(NetworkError::Config(text));
        if self.bridge.is_empty()
            || self.bridge.len() > NAME_MAX
            || self.bridge.contains(['/', ' '])
        {
            return refuse(format!(
                "bridge name {:?} is not an interface name",
                self.bridge
            ));
        }
        if !self.cluster_cidr.contains(&self.pod_cidr) {
            let Self {
                pod_cidr,
                cluster_cidr,
                ..
            } = self;
            return refuse(format!(
                "pod CIDR {pod_cidr} is not within cluster CIDR {cluster_cidr}"
            ));
        }
        let Self {
            cluster_cidr,
            service_cidr,
            dns_address,
            ..
        } = self;
        if cluster_cidr.contains(service_cidr) || service_cidr.contains(cluster_cidr) {
            return refuse(format!(
                "service CIDR {service_cidr} overlaps with cluster CIDR {cluster_cidr}"
            ));
        }
        if !service_cidr.contains(dns_address) {
            return refuse(format!(
                "DNS address {dns_address} is not in {service_cidr}"
            ));
        }
        Ok(())
    }
}

/// A change of what is wanted, as a watch tells it.
#[derive(Debug, Clone)]
pub enum Change {
    /// All services there are.
    Services(Vec<Service>),
    /// A service is new or different.
    Service(Service),
    /// A service is gone.
    ServiceGone(ServiceKey),
    /// All slices there are.
    Slices(Vec<Slice>),
    /// A slice is new or different.
    Slice(Slice),
    /// A slice is gone; its own namespace and name.
    SliceGone(ServiceKey),
    /// The zone of this node, as its labels say.
    Zone(Option<String>),
}

/// One node's network.
#[derive(Debug)]
pub struct NodeNetwork {
    config: NodeNetworkConfig,
    links: PodLinks,
    routes: Mutex<Routes>,
    /// Of IPv6 addresses. Locked after `routes`.
    routes6: Mutex<Routes>,
    catalog: Mutex<Catalog>,
    host_ports: Mutex<HostPorts>,
    resolver: Arc<Resolver>,
    dns_sockets: Mutex<Option<DnsSockets>>,
    announcer: Announcer,
    health: HealthChecks,
}

impl NodeNetwork {
    /// Makes or adopts the bridge and the table. A table of an earlier run goes on routing until
    /// the first `apply`, so that a restart refuses nobody. Blocks for some milliseconds.
    ///
    /// # Errors
    /// When a setting can't work, the kernel refuses or the state directory is unusable.
    pub fn start(config: NodeNetworkConfig) -> Result<Arc<Self>, NetworkError> {
        config.check()?;
        let io = |context: &str, source| NetworkError::Io {
            context: context.into(),
            source,
        };
        let leases = config.state_dir.join("leases");
        let ipam = Ipam::open(config.pod_cidr, &leases).map_err(LinkError::from)?;
        let bridge = BridgeConfig {
            name: config.bridge.clone(),
            alias: format!("evenkeel {}", config.instance),
            mtu: config.mtu,
            addresses: vec![config.dns_address],
            routes: vec![config.service_cidr],
        };
        let links = PodLinks::open(bridge, ipam)?;
        let host_ports = HostPorts::open(&config.state_dir.join("hostports"))
            .map_err(|source| io("host port records", source))?;
        let dns = SocketAddr::from((config.dns_address, DNS_PORT));
        let dns_sockets = DnsSockets::bind(&[dns])
            .map_err(|source| io(&format!("cluster DNS on {dns}"), source))?;
        let resolver = Resolver::new(ResolverConfig {
            domain: config.cluster_domain.clone(),
            address: config.dns_address,
            networks: vec![config.service_cidr, config.cluster_cidr],
            upstreams: Upstreams::File {
                path: config.resolv_conf.clone(),
                except: vec![
                    IpAddr::V4(config.dns_address),
                    IpAddr::V4(links.ipam().gateway().addr()),
                ],
            },
        });
        let published = host_ports
            .load()
            .map_err(|source| io("host port records", source))?;
        let mut socket = Nfnetlink::open().map_err(NftError::from)?;
        let fresh = !table_exists(&mut socket, Family::V4, &config.table())?;
        let table = TableConfig {
            family: Family::V4,
            table: config.table(),
            bridge: config.bridge.clone(),
            pod_cidr: Some(config.pod_cidr.into()),
            cluster_cidr: Some(config.cluster_cidr.into()),
            service_cidr: Some(config.service_cidr.into()),
            dns_address: Some(config.dns_address.into()),
            node_name: config.node_name.clone(),
            zone: None,
        };
        // Pods and services have IPv4 addresses only.
        let table6 = TableConfig {
            family: Family::V6,
            pod_cidr: None,
            cluster_cidr: None,
            service_cidr: None,
            dns_address: None,
            ..table.clone()
        };
        let routes6 = Routes::on_demand(Nfnetlink::open().map_err(NftError::from)?, table6);
        let mut routes = Routes::new(socket, table);
        let owners = published.into_iter().map(|(sandbox, (address, ports))| {
            (Owner::Sandbox(sandbox), plan_host_ports(address, &ports))
        });
        if fresh {
            routes.apply(owners)?;
        } else {
            routes.prepare(owners);
        }
        let announcer = Announcer::new(&config.bridge);
        Ok(Arc::new(Self {
            config,
            links,
            routes: Mutex::new(routes),
            routes6: Mutex::new(routes6),
            catalog: Mutex::default(),
            host_ports: Mutex::new(host_ports),
            resolver: Arc::new(resolver),
            dns_sockets: Mutex::new(Some(dns_sockets)),
            announcer,
            health: HealthChecks::new(),
        }))
    }

    /// The settings.
    pub fn config(&self) -> &NodeNetworkConfig {
        &self.config
    }

    /// The bridge's address: pods reach the host by it, whatever the host's other addresses are.
    pub fn gateway(&self) -> Ipv4Addr {
        self.links.ipam().gateway().addr()
    }

    /// All leases: sandbox id and pod address.
    pub fn leases(&self) -> Vec<(String, Ipv4Addr)> {
        self.links.ipam().leases()
    }

    /// Answers DNS questions for as long as it is polled; a second call answers nothing.
    ///
    /// # Errors
    /// When a socket fails for good.
    pub async fn serve_dns(&self) -> Result<(), NetworkError> {
        let sockets = self.dns_sockets.lock().take();
        let Some(sockets) = sockets else {
            return Ok(());
        };
        let served = sockets.serve(Arc::clone(&self.resolver)).await;
        served.map_err(|source| NetworkError::Io {
            context: "cluster DNS".into(),
            source,
        })
    }

    /// Connects a sandbox and publishes its host ports; answers its address. Blocks for about a
    /// millisecond; see `PodLinks::attach`.
    ///
    /// # Errors
    /// When no address is free or the kernel refuses.
    pub fn attach(
        &self,
        sandbox: &str,
        netns: &Path,
        ports: &[HostPort],
    ) -> Result<Ipv4Addr, NetworkError> {
        let address = self.links.attach(sandbox, netns)?;
        if !ports.is_empty() {
            let record = (address, ports.to_vec());
            let saved = self.host_ports.lock().save(sandbox, &record);
            saved.map_err(|source| host_port_error(sandbox, source))?;
            let wanted = plan_host_ports(address, ports);
            self.routes
                .lock()
                .apply([(Owner::Sandbox(sandbox.to_owned()), wanted)])?;
        }
        Ok(address)
    }

    /// Takes a sandbox's address and host ports back. Succeeds when there is nothing left.
    ///
    /// # Errors
    /// When the kernel refuses or a record can't be removed.
    pub fn detach(&self, sandbox: &str) -> Result<(), NetworkError> {
        let owner = Owner::Sandbox(sandbox.to_owned());
        {
            let mut routes = self.routes.lock();
            if routes.has(&owner) {
                routes.apply([(owner, Objects::default())])?;
            }
        }
        let removed = self.host_ports.lock().remove(sandbox);
        removed.map_err(|source| host_port_error(sandbox, source))?;
        self.links.detach(sandbox)?;
        Ok(())
    }

    /// Takes back what belongs to sandboxes that are no longer there; answers their ids.
    ///
    /// # Errors
    /// As `detach`.
    pub fn retain(&self, alive: impl Fn(&str) -> bool) -> Result<Vec<String>, NetworkError> {
        let mut gone: Vec<_> = self
            .leases()
            .into_iter()
            .map(|(sandbox, _)| sandbox)
            .collect();
        gone.retain(|sandbox| !alive(sandbox));
        for sandbox in &gone {
            self.detach(sandbox)?;
        }
        Ok(gone)
    }

    /// Takes changes in; nothing happens until `sync`.
    pub fn note(&self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let mut catalog = self.catalog.lock();
            match change {
                Change::Zone(zone) => {
                    drop(catalog);
                    self.set_zone(zone);
                }
                Change::Services(all) => catalog.replace_services(all),
                Change::Service(service) => catalog.set_service(service),
                Change::ServiceGone(key) => catalog.remove_service(&key),
                Change::Slices(all) => catalog.replace_slices(all),
                Change::Slice(slice) => catalog.set_slice(slice),
                Change::SliceGone(key) => catalog.remove_slice(&key),
            }
        }
    }

    fn set_zone(&self, zone: Option<String>) {
        let mut routes = self.routes.lock();
        if routes.config().zone != zone {
            self.routes6.lock().set_zone(zone.clone());
            routes.set_zone(zone);
            self.catalog.lock().mark_all_dirty();
        }
    }

    /// Answers for addresses of load balancers and at health check ports, for as long as it is
    /// polled.
    pub async fn serve_balancers(&self) {
        futures::future::join(self.announcer.run(), self.health.run()).await;
    }

    /// Says what of all services this node announces, and what it answers health checks with.
    fn tell_outside(&self, catalog: &Catalog) {
        let node = self.config.node_name.as_str();
        let mut announced = BTreeMap::new();
        let mut ports = BTreeMap::new();
        for service in catalog.services() {
            for one in service.announced.iter().filter(|one| one.node == node) {
                announced.insert(one.address, one.interfaces.clone());
            }
            if let Some(port) = service.health_port {
                let endpoints = local_endpoints(node, &catalog.slices(&service.key));
                let service = service.key.clone();
                ports.insert(port, Health { service, endpoints });
            }
        }
        self.announcer.set(announced);
        self.health.set(ports);
    }

    /// Makes routing and DNS be what was noted. Blocks; about a millisecond for a small change.
    ///
    /// # Errors
    /// When the kernel refuses. Nothing is lost: the next call replaces the whole table.
    pub fn sync(&self) -> Result<Applied, NetworkError> {
        let mut routes = self.routes.lock();
        let mut routes6 = self.routes6.lock();
        let mut wanted: Vec<(Owner, Objects)> = Vec::new();
        let mut wanted6: Vec<(Owner, Objects)> = Vec::new();
        {
            let mut catalog = self.catalog.lock();
            let dirty = catalog.take_dirty();
            let mut index = self.resolver.index.write();
            for key in &dirty {
                index.update(key, catalog.service(key), &catalog.slices(key));
            }
            drop(index);
            if !dirty.is_empty() {
                self.tell_outside(&catalog);
            }
            for key in dirty {
                let (mut four, mut six) = (Objects::default(), Objects::default());
                if let Some(service) = catalog.service(&key) {
                    let slices = catalog.slices(&key);
                    four = plan(routes.config(), service, &slices);
                    six = plan(routes6.config(), service, &slices);
                    warn_of_refusal(service, &slices);
                }
                wanted.push((Owner::Service(key.clone()), four));
                wanted6.push((Owner::Service(key), six));
            }
        }
        if wanted6.iter().any(|(_, six)| *six != Objects::default()) {
            forward_ipv6();
        }
        // Both are tried, whatever becomes of the first: they have nothing to do with each other.
        let (four, six) = (routes.apply(wanted), routes6.apply(wanted6));
        let (four, six) = (four?, six?);
        Ok(Applied {
            changed: four.changed.max(six.changed),
            bytes: four.bytes + six.bytes,
            forgotten: four.forgotten + six.forgotten,
        })
    }
}

/// Says why nobody answers at an IPv6 address that a service has.
fn warn_of_refusal(service: &Service, slices: &[&Slice]) {
    let addresses: Vec<IpAddr> = outside_ips(Family::V6, service).collect();
    let mut endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    if !addresses.is_empty() && !endpoints.any(|endpoint| endpoint.address.is_ipv6()) {
        tracing::warn!(
            service = %service.key,
            ?addresses,
            "connections to IPv6 addresses are refused: no EndpointSlice of addressType IPv6 has \
             endpoints (pods of the built-in network have IPv4 addresses only)"
        );
    }
}

fn host_port_error(sandbox: &str, source: io::Error) -> NetworkError {
    NetworkError::Io {
        context: format!("host port record of sandbox {sandbox}"),
        source,
    }
}

/// Removes what a node's network left in the calling thread's network namespace and on disk:
/// bridge, veths, addresses, routes, table, leases. Established translations end with the pods.
///
/// # Errors
/// When the kernel refuses or a file can't be removed; what is already gone is no error.
pub fn cleanup(config: &NodeNetworkConfig) -> Result<(), NetworkError> {
    let mut socket = Nfnetlink::open().map_err(NftError::from)?;
    remove_table(&mut socket, Family::V4, &config.table())?;
    // A kernel without IPv6 would refuse to make it first.
    if table_exists(&mut socket, Family::V6, &config.table())? {
        remove_table(&mut socket, Family::V6, &config.table())?;
    }
    remove_bridge(&config.bridge)?;
    for name in ["leases", "hostports"] {
        let path = config.state_dir.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(NetworkError::Io {
                    context: path.display().to_string(),
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}
