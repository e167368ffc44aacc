//! Services and their endpoints as routing and DNS need them: plain values, made from the API's
//! objects in `convert`, compared by value so that a change which means nothing does nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Namespace and name of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ServiceKey {
    /// A key.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Transport protocols that a service can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As DNS (`_tcp`) and names of chains have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Reads the API's word (`TCP`); empty means TCP.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty when the service has one port without a name.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the service's addresses.
    pub port: u16,
    /// Port of the node's addresses.
    pub node_port: Option<u16>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which one.
    pub key: ServiceKey,
    /// Addresses inside the cluster; empty for headless and ExternalName services.
    pub cluster_ips: Vec<IpAddr>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// The name an ExternalName service stands for.
    pub external_name: Option<String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with mode VIP.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; empty means all. With ranges of one family
    /// only, nobody may use addresses of the other.
    pub source_ranges: Vec<IpNet>,
    /// Set with `sessionAffinity: ClientIP`.
    pub affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// Who announces which of the load balancer's addresses on the link.
    pub announced: Vec<Announced>,
    /// Where others ask whether this node has endpoints (`healthCheckNodePort`).
    pub health_port: Option<u16>,
}

/// Who announces an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The address.
    pub address: IpAddr,
    /// The node.
    pub node: String,
    /// Its interfaces; none means all.
    pub interfaces: BTreeSet<String>,
}

impl Service {
    /// A ClusterIP service without ports: a base to fill in.
    pub fn new(key: ServiceKey) -> Self {
        Self {
            key,
            cluster_ips: Vec::new(),
            headless: false,
            external_name: None,
            ports: Vec::new(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            affinity: None,
            internal_local: false,
            external_local: false,
            publish_not_ready: false,
            announced: Vec::new(),
            health_port: None,
        }
    }
}

/// A port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the service's port it serves.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on each endpoint.
    pub port: u16,
}

/// An endpoint of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address; further ones of the slice's list mean the same and are not used.
    pub address: IpAddr,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, though perhaps on its way out.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
    /// Its own DNS label under the service's name.
    pub hostname: Option<String>,
    /// Node it runs on.
    pub node: Option<String>,
    /// Nodes that should use it (`hints.forNodes`).
    pub for_nodes: Vec<String>,
    /// Zones that should use it (`hints.forZones`).
    pub for_zones: Vec<String>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Name, within the service's namespace.
    pub name: String,
    /// The service it belongs to.
    pub service: ServiceKey,
    /// Ports of all its endpoints.
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}
