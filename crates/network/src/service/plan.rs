//! From one service and its slices to the nftables objects it wants. Pure: no clock, no socket,
//! no memory of what was applied before.
//!
//! The semantics are those of kube-proxy's nftables mode: ready endpoints; if there is none, those
//! that still serve while terminating; if there is none either, an immediate refusal; traffic
//! policies `Local` see only this node's endpoints and drop when others exist but none is here.
//! Each address family has a table of its own and is planned by itself: an address leads to
//! endpoints of its own family only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::nft::{AnonymousMap, CmpOp, Data, Expr, Family, Kind, MapData, Set, Verdict};

use super::model::{Endpoint, Protocol, Service, ServicePort, Slice};
use super::table::{
    BALANCER_IPS, FIREWALL_IPS, HAIRPIN, NO_ENDPOINT_IPS, NO_ENDPOINT_NODEPORTS, PRESERVE_IPS,
    PRESERVE_NODEPORTS, REJECT, SERVICE_IPS, SERVICE_NODEPORTS, TARGET_REGISTER, TableConfig,
    in_net, ip_kinds, octets, saddr, target_kinds, to_endpoint,
};

/// An endpoint's address and port.
pub type Target = (IpAddr, u16);

/// An element of a named map: the map and the key.
pub(super) type ElementKey = (&'static str, Vec<u8>);

/// What UDP clients of an address may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpFlow {
    /// Service address; `None` for a node port.
    pub address: Option<IpAddr>,
    /// Service port or node port.
    pub port: u16,
    /// Current endpoints.
    pub targets: BTreeSet<Target>,
}

/// The objects of one owner: a service, or a sandbox with host ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    /// Chains and their rules.
    pub chains: BTreeMap<String, Vec<Vec<Expr>>>,
    /// Sets that remember which clients an endpoint has, and for how long.
    pub affinity: BTreeMap<String, Duration>,
    /// Elements of the common maps.
    pub elements: BTreeMap<ElementKey, Option<Data>>,
    /// UDP addresses, whose stale connections have to be forgotten.
    pub udp: Vec<UdpFlow>,
}

/// Name of a chain or map of one port, readable in `nft list ruleset`.
fn chain_name(role: &str, service: &Service, port: &ServicePort) -> String {
    let ServicePort {
        name,
        protocol,
        port,
        ..
    } = port;
    let key = &service.key;
    let label = if name.is_empty() {
        port.to_string()
    } else {
        name.clone()
    };
    format!(
        "{role}-{}/{}/{}/{label}",
        key.namespace,
        key.name,
        protocol.name()
    )
}

fn ip_key(address: IpAddr, protocol: Protocol, port: u16) -> Vec<u8> {
    [octets(address), port_key(protocol, port)].concat()
}

fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol.number(), 0, 0, 0, high, low, 0, 0]
}

/// As an endpoint stands in two registers.
fn target_value((address, port): Target) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [&octets(address)[..], &[high, low, 0, 0]].concat()
}

/// An address twice: a client that is its own endpoint.
fn twice(address: IpAddr) -> Vec<u8> {
    [octets(address), octets(address)].concat()
}

fn of_family(family: Family, addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> + '_ {
    let all = addresses.iter().copied();
    all.filter(move |address| Family::of(*address) == family)
}

/// A port's endpoints under both policies.
#[derive(Debug, Default)]
struct Targets {
    cluster: BTreeSet<Target>,
    local: BTreeSet<Target>,
}

/// Ready endpoints on this node, as health checks count them.
pub fn local_endpoints(node: &str, slices: &[&Slice]) -> usize {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let here = endpoints.filter(|found| found.ready && found.node.as_deref() == Some(node));
    let addresses: BTreeSet<IpAddr> = here.map(|found| found.address).collect();
    addresses.len()
}

/// Which endpoints hints leave to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Near {
    /// All of them.
    Everywhere,
    /// Those meant for this node.
    Node,
    /// Those meant for its zone.
    Zone,
}

/// Hints count only when every ready endpoint has them and one of them is meant for here: half a
/// picture would send too much to too few (kube-proxy's topology rules).
fn near(config: &TableConfig, slices: &[&Slice]) -> Near {
    let ready = || {
        slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| endpoint.ready && Family::of(endpoint.address) == config.family)
    };
    let says = |hints: fn(&Endpoint) -> &[String], here: &str| {
        ready().all(|endpoint| !hints(endpoint).is_empty())
            && ready().any(|endpoint| hints(endpoint).iter().any(|name| name == here))
    };
    if says(|endpoint| &endpoint.for_nodes, &config.node_name) {
        return Near::Node;
    }
    match &config.zone {
        Some(zone) if says(|endpoint| &endpoint.for_zones, zone) => Near::Zone,
        _ => Near::Everywhere,
    }
}

fn targets(config: &TableConfig, slices: &[&Slice], port: &ServicePort) -> Targets {
    let node = config.node_name.as_str();
    let near = near(config, slices);
    let meant_for_here = |endpoint: &Endpoint| match (near, &config.zone) {
        (Near::Node, _) => endpoint.for_nodes.iter().any(|name| name == node),
        (Near::Zone, Some(zone)) => endpoint.for_zones.contains(zone),
        _ => true,
    };
    let pick = |usable: &dyn Fn(&Endpoint) -> bool| {
        let mut out = BTreeSet::new();
        for slice in slices {
            let ports = slice.ports.iter();
            for found in ports.filter(|p| p.name == port.name && p.protocol == port.protocol) {
                let endpoints = slice.endpoints.iter().filter(|endpoint| usable(endpoint));
                let addresses = endpoints.map(|endpoint| endpoint.address);
                let addresses = addresses.filter(|it| Family::of(*it) == config.family);
                out.extend(addresses.map(|address| (address, found.port)));
            }
        }
        out
    };
    let choose = |here: &dyn Fn(&Endpoint) -> bool, hinted: &dyn Fn(&Endpoint) -> bool| {
        let ready = pick(&|e| here(e) && e.ready && hinted(e));
        if ready.is_empty() {
            pick(&|e| here(e) && e.serving && e.terminating)
        } else {
            ready
        }
    };
    Targets {
        cluster: choose(&|_| true, &meant_for_here),
        local: choose(&|e| e.node.as_deref() == Some(node), &|_| true),
    }
}

fn goto(chain: &str) -> Option<Data> {
    Some(Data::Verdict(Verdict::Goto(chain.to_owned())))
}

/// The rules that send a packet to one of the targets.
fn balance(
    family: Family,
    out: &mut Objects,
    service: &Service,
    port: &ServicePort,
    targets: &BTreeSet<Target>,
) -> Vec<Vec<Expr>> {
    let Some(timeout) = service.affinity else {
        let data = MapData::Value(target_kinds(family));
        let value = |target: &Target| Data::Value(target_value(*target));
        let mut rule = match &targets.iter().collect::<Vec<_>>()[..] {
            [single] => load(**single),
            _ => choose(targets.iter().map(value), targets.len(), data),
        };
        rule.push(to_endpoint(family));
        return vec![rule];
    };
    // Each endpoint has a chain that remembers the client, and a set to remember it in. The set
    // goes with its endpoint, and with it the memory.
    let mut rules = Vec::new();
    let mut chains = Vec::new();
    for target in targets {
        let suffix = format!("{}/{}", target.0, target.1);
        let set = format!("{}/{suffix}", chain_name("affinity", service, port));
        let chain = format!("{}/{suffix}", chain_name("endpoint", service, port));
        let goto = Verdict::Goto(chain.clone());
        let known = Expr::Lookup {
            set: set.clone(),
            from: 0,
            to: None,
            verdict: false,
        };
        rules.push(vec![saddr(family, 0), known, Expr::Verdict(goto.clone())]);
        let mut remember = vec![saddr(family, 0), Expr::Update(set.clone(), 0)];
        remember.extend(load(*target));
        remember.push(to_endpoint(family));
        out.chains.insert(chain, vec![remember]);
        out.affinity.insert(set, timeout);
        chains.push(goto);
    }
    rules.push(match &chains[..] {
        [single] => vec![Expr::Verdict(single.clone())],
        _ => {
            let count = chains.len();
            choose(
                chains.into_iter().map(Data::Verdict),
                count,
                MapData::Verdict,
            )
        }
    });
    rules
}

/// Loads one endpoint.
fn load((address, port): Target) -> Vec<Expr> {
    let after = TARGET_REGISTER + Family::of(address).registers();
    let port = port.to_be_bytes().to_vec();
    vec![
        Expr::Load(TARGET_REGISTER, octets(address)),
        Expr::Load(after, port),
    ]
}

/// One of these by chance.
fn choose(values: impl Iterator<Item = Data>, count: usize, data: MapData) -> Vec<Expr> {
    let elements = (0u32..)
        .zip(values)
        .map(|(n, value)| (n.to_ne_bytes().to_vec(), value));
    let map = AnonymousMap {
        key: &[Kind::Integer],
        data,
        elements: elements.collect(),
    };
    let count = u32::try_from(count).expect("fewer than 2^32 endpoints");
    vec![
        Expr::Random(0, count),
        Expr::LookupIn(map, 0, TARGET_REGISTER),
    ]
}

/// What this service wants in the table of `config`'s family.
pub fn plan(config: &TableConfig, service: &Service, slices: &[&Slice]) -> Objects {
    let mut out = Objects::default();
    let cluster_ips: Vec<_> = of_family(config.family, &service.cluster_ips)
        .filter(|ip| config.dns_address != Some(*ip))
        .collect();
    // Without IPv6 in the cluster a service can still have such an address outside, and endpoints
    // that somebody else wrote.
    let is_outside_only = config.family == Family::V6
        && !service.cluster_ips.is_empty()
        && outside_ips(config.family, service).next().is_some();
    if cluster_ips.is_empty() && !is_outside_only {
        // Headless, ExternalName, of the other family, or the address that our own DNS answers on.
        return out;
    }
    for port in &service.ports {
        plan_port(config, service, slices, port, &cluster_ips, &mut out);
    }
    out
}

/// A service's addresses outside of the cluster.
pub(crate) fn outside_ips(family: Family, service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    of_family(family, &service.external_ips).chain(of_family(family, &service.load_balancer_ips))
}

fn plan_port(
    config: &TableConfig,
    service: &Service,
    slices: &[&Slice],
    port: &ServicePort,
    cluster_ips: &[IpAddr],
    out: &mut Objects,
) {
    let family = config.family;
    let protocol = port.protocol;
    // Without addresses in the cluster there are none on the nodes either.
    let node_port = port.node_port.filter(|_| !cluster_ips.is_empty());
    let Targets { cluster, local } = targets(config, slices, port);
    for (address, _) in cluster.iter().chain(&local) {
        // Where pods have no network, whatever is on this node may be its own client.
        let is_here = match config.pod_cidr {
            Some(pods) => pods.contains(address),
            None => local.iter().any(|(here, _)| here == address),
        };
        if is_here {
            out.elements.insert((HAIRPIN, twice(*address)), None);
        }
    }
    let drop = || Some(Data::Verdict(Verdict::Drop));
    // The verdict for addresses whose policy leaves them without an endpoint.
    let refusal = |targets: &BTreeSet<Target>| match (targets.is_empty(), cluster.is_empty()) {
        (false, _) => None,
        (true, true) => Some(goto(REJECT)),
        (true, false) => Some(drop()),
    };

    let chain = |out: &mut Objects, role: &str, targets: &BTreeSet<Target>| {
        let name = chain_name(role, service, port);
        let rules = balance(family, out, service, port, targets);
        out.chains.insert(name.clone(), rules);
        name
    };

    let internal = if service.internal_local {
        &local
    } else {
        &cluster
    };
    let all_chain = (!cluster.is_empty()).then(|| chain(out, "service", &cluster));
    let internal_chain = if service.internal_local {
        (!local.is_empty()).then(|| chain(out, "local", &local))
    } else {
        all_chain.clone()
    };
    let external_ips: Vec<_> = outside_ips(family, service).collect();
    let is_external = !external_ips.is_empty() || node_port.is_some();
    // Policy Local outside: pods of this node and the host itself still reach every endpoint. Those
    // of another node that come here are outside: at home they would have reached all.
    let external_chain = match &all_chain {
        Some(all) if is_external && service.external_local => {
            let name = chain_name("external", service, port);
            let mut rules: Vec<Vec<Expr>> = Vec::new();
            if let Some(pods) = config.pod_cidr {
                let within = in_net(0, pods, CmpOp::Eq);
                let all = vec![Expr::Verdict(Verdict::Goto(all.clone()))];
                rules.push([vec![saddr(family, 0)], within, all].concat());
            }
            if local.is_empty() {
                rules.push(vec![Expr::Verdict(Verdict::Drop)]);
            } else {
                rules.extend(balance(family, out, service, port, &local));
            }
            out.chains.insert(name.clone(), rules);
            Some(name)
        }
        other => (*other).clone(),
    };

    for address in cluster_ips {
        let key = ip_key(*address, protocol, port.port);
        match (&internal_chain, refusal(internal)) {
            (Some(chain), _) => out.elements.insert((SERVICE_IPS, key), goto(chain)),
            (None, refusal) => out
                .elements
                .insert((NO_ENDPOINT_IPS, key), refusal.unwrap_or_else(drop)),
        };
        udp(out, protocol, Some(*address), port.port, internal);
    }
    for address in of_family(family, &service.load_balancer_ips) {
        out.elements.insert((BALANCER_IPS, octets(address)), None);
    }
    for address in &external_ips {
        let key = ip_key(*address, protocol, port.port);
        match &external_chain {
            Some(chain) => out.elements.insert((SERVICE_IPS, key.clone()), goto(chain)),
            None => out
                .elements
                .insert((NO_ENDPOINT_IPS, key.clone()), goto(REJECT)),
        };
        if service.external_local {
            out.elements.insert((PRESERVE_IPS, key), None);
        }
        udp(out, protocol, Some(*address), port.port, &cluster);
    }
    if let Some(node_port) = node_port {
        let key = port_key(protocol, node_port);
        match &external_chain {
            Some(chain) => out
                .elements
                .insert((SERVICE_NODEPORTS, key.clone()), goto(chain)),
            None => out
                .elements
                .insert((NO_ENDPOINT_NODEPORTS, key.clone()), goto(REJECT)),
        };
        if service.external_local {
            out.elements.insert((PRESERVE_NODEPORTS, key), None);
        }
        udp(out, protocol, None, node_port, &cluster);
    }
    if !service.source_ranges.is_empty() {
        let name = chain_name("firewall", service, port);
        let mut rules: Vec<_> = service
            .source_ranges
            .iter()
            .filter(|range| Family::of(range.addr()) == family)
            .map(|range| {
                let within = in_net(0, *range, CmpOp::Eq);
                let admit = vec![Expr::Verdict(Verdict::Return)];
                [vec![saddr(family, 0)], within, admit].concat()
            })
            .collect();
        rules.push(vec![Expr::Verdict(Verdict::Drop)]);
        out.chains.insert(name.clone(), rules);
        for address in of_family(family, &service.load_balancer_ips) {
            let key = ip_key(address, protocol, port.port);
            out.elements.insert((FIREWALL_IPS, key), goto(&name));
        }
    }
}

fn udp(
    out: &mut Objects,
    protocol: Protocol,
    address: Option<IpAddr>,
    port: u16,
    targets: &BTreeSet<Target>,
) {
    if protocol == Protocol::Udp {
        out.udp.push(UdpFlow {
            address,
            port,
            targets: targets.clone(),
        });
    }
}

/// A published port of a sandbox (CRI `PortMapping`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the host.
    pub host_port: u16,
    /// Address of the host; `None` for all.
    pub host_ip: Option<Ipv4Addr>,
    /// Port of the pod.
    pub container_port: u16,
}

/// What a sandbox's host ports want in the table for IPv4.
pub fn plan_host_ports(address: Ipv4Addr, ports: &[HostPort]) -> Objects {
    use super::table::{HOSTPORT_IPS, HOSTPORTS};
    let mut out = Objects::default();
    for port in ports {
        let target = (IpAddr::V4(address), port.container_port);
        let data = Some(Data::Value(target_value(target)));
        let wildcard = port_key(port.protocol, port.host_port);
        match port.host_ip {
            Some(ip) => {
                let key = ip_key(ip.into(), port.protocol, port.host_port);
                out.elements.insert((HOSTPORT_IPS, key.clone()), data);
                out.elements.insert((PRESERVE_IPS, key), None);
            }
            None => {
                out.elements.insert((HOSTPORTS, wildcard.clone()), data);
                out.elements.insert((PRESERVE_NODEPORTS, wildcard), None);
            }
        }
        out.elements.insert((HAIRPIN, twice(address.into())), None);
        udp(
            &mut out,
            port.protocol,
            port.host_ip.map(IpAddr::from),
            port.host_port,
            &BTreeSet::from([target]),
        );
    }
    out
}

/// The named set of an affinity.
pub(super) fn affinity_set(family: Family, name: &str, timeout: Duration) -> Set {
    Set {
        name: name.to_owned(),
        key: ip_kinds(family),
        data: MapData::None,
        dynamic: Some(timeout),
    }
}

#[cfg(test)]
mod tests;
