//! What the cluster's names stand for. A change of one service touches only its own entries.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use crate::service::{Protocol, Service, ServiceKey, Slice};

/// Version of the schema that `dns-version` answers.
const SCHEMA: &str = "1.1.0";

/// A service as DNS sees it.
#[derive(Debug, Default)]
struct Entry {
    /// Cluster addresses, or those of all ready endpoints of a headless service.
    addresses: Vec<IpAddr>,
    alias: Option<String>,
    headless: bool,
    /// Ready endpoints by DNS label.
    endpoints: BTreeMap<String, BTreeSet<IpAddr>>,
    ports: Vec<Port>,
}

/// A named port of an entry. Headless services have one per endpoint.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    protocol: Protocol,
    number: u16,
    /// Label of the endpoint; `None` means the service itself.
    endpoint: Option<String>,
}

/// A service port as an answer gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTarget {
    /// Port number.
    pub port: u16,
    /// Labels of the target, without the zone.
    pub target: Vec<String>,
    /// Addresses of the target.
    pub addresses: Vec<IpAddr>,
}

/// What a name within the zone stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There is no such name.
    Nothing,
    /// The name exists but has no records of its own, or only of other types.
    Empty,
    /// A and AAAA records, and SRV records for those who ask for them.
    Addresses(Vec<IpAddr>, Vec<ServiceTarget>),
    /// SRV records.
    Targets(Vec<ServiceTarget>),
    /// A CNAME record.
    Alias(String),
    /// A TXT record.
    Text(&'static str),
    /// The name server of the zone.
    NameServer,
    /// The zone itself.
    Apex,
}

/// Names and addresses of the cluster.
#[derive(Debug, Default)]
pub struct Index {
    services: HashMap<ServiceKey, Entry>,
    namespaces: HashMap<String, usize>,
    /// Names for addresses: the service's labels, with the endpoint's first where it is one.
    names: HashMap<IpAddr, BTreeSet<(ServiceKey, Option<String>)>>,
}

fn label(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

impl Entry {
    fn new(service: &Service, slices: &[&Slice]) -> Self {
        let mut entry = Self {
            alias: service.external_name.clone(),
            headless: service.headless,
            ..Self::default()
        };
        let mut all = BTreeSet::new();
        for slice in slices {
            for endpoint in &slice.endpoints {
                if !endpoint.ready && !service.publish_not_ready {
                    continue;
                }
                let name = endpoint
                    .hostname
                    .clone()
                    .unwrap_or_else(|| label(endpoint.address));
                let name = name.to_ascii_lowercase();
                all.insert(endpoint.address);
                entry
                    .endpoints
                    .entry(name.clone())
                    .or_default()
                    .insert(endpoint.address);
                for port in slice.ports.iter().filter(|_| service.headless) {
                    entry.ports.push(Port {
                        name: port.name.clone(),
                        protocol: port.protocol,
                        number: port.port,
                        endpoint: Some(name.clone()),
                    });
                }
            }
        }
        if service.headless {
            entry.addresses = all.into_iter().collect();
        } else {
            entry.addresses = service.cluster_ips.clone();
            entry.ports = service
                .ports
                .iter()
                .map(|port| Port {
                    name: port.name.clone(),
                    protocol: port.protocol,
                    number: port.port,
                    endpoint: None,
                })
                .collect();
        }
        entry.ports.sort();
        entry.ports.dedup();
        entry
    }

    /// Addresses that lead back to a name: the service's own, or its endpoints'. Endpoints of a
    /// service with an address have a name only where a hostname was given.
    fn reverse(&self) -> Vec<(IpAddr, Option<String>)> {
        let mut out = Vec::new();
        if !self.headless {
            out.extend(self.addresses.iter().map(|address| (*address, None)));
        }
        for (name, addresses) in &self.endpoints {
            for address in addresses {
                if self.headless || *name != label(*address) {
                    out.push((*address, Some(name.clone())));
                }
            }
        }
        out
    }

    fn targets(&self, key: &ServiceKey, wanted: impl Fn(&Port) -> bool) -> Vec<ServiceTarget> {
        let own = [key.name.clone(), key.namespace.clone(), "svc".to_owned()];
        let ports = self
            .ports
            .iter()
            .filter(|port| !port.name.is_empty() && wanted(port));
        ports
            .map(|port| {
                let mut target: Vec<_> = port.endpoint.iter().cloned().collect();
                target.extend(own.clone());
                let addresses = match &port.endpoint {
                    Some(name) => self
                        .endpoints
                        .get(name)
                        .into_iter()
                        .flatten()
                        .copied()
                        .collect(),
                    None => self.addresses.clone(),
                };
                ServiceTarget {
                    port: port.number,
                    target,
                    addresses,
                }
            })
            .collect()
    }
}

impl Index {
    /// Makes a service's names be what is given; `None` takes them out.
    pub fn update(&mut self, key: &ServiceKey, service: Option<&Service>, slices: &[&Slice]) {
        if let Some(old) = self.services.remove(key) {
            for (address, name) in old.reverse() {
                if let Some(names) = self.names.get_mut(&address) {
                    names.remove(&(key.clone(), name));
                    if names.is_empty() {
                        self.names.remove(&address);
                    }
                }
            }
            if let Some(count) = self.namespaces.get_mut(&key.namespace) {
                *count -= 1;
                if *count == 0 {
                    self.namespaces.remove(&key.namespace);
                }
            }
        }
        let Some(service) = service else { return };
        let entry = Entry::new(service, slices);
        for (address, name) in entry.reverse() {
            self.names
                .entry(address)
                .or_default()
                .insert((key.clone(), name));
        }
        *self.namespaces.entry(key.namespace.clone()).or_default() += 1;
        self.services.insert(key.clone(), entry);
    }

    /// Looks up the labels before the zone, in lower case.
    pub fn find(&self, labels: &[&str]) -> Found {
        match labels {
            [] => Found::Apex,
            ["dns-version"] => Found::Text(SCHEMA),
            ["ns", "dns"] => Found::NameServer,
            ["svc" | "pod" | "dns"] => Found::Empty,
            // Which namespaces there are is known only by their services; any may have pods.
            [_, "pod"] => Found::Empty,
            [address, _, "pod"] => match pod_address(address) {
                Some(address) => Found::Addresses(vec![address], Vec::new()),
                None => Found::Nothing,
            },
            [namespace, "svc"] if self.namespaces.contains_key(*namespace) => Found::Empty,
            [rest @ .., service, namespace, "svc"] => {
                let key = ServiceKey::new(namespace, service);
                match self.services.get(&key) {
                    Some(entry) => in_service(entry, &key, rest),
                    None => Found::Nothing,
                }
            }
            _ => Found::Nothing,
        }
    }

    /// The names of an address: labels without the zone.
    pub fn names(&self, address: IpAddr) -> Vec<Vec<String>> {
        let names = self.names.get(&address).into_iter().flatten();
        names
            .map(|(key, endpoint)| {
                let mut labels: Vec<_> = endpoint.iter().cloned().collect();
                labels.extend([key.name.clone(), key.namespace.clone(), "svc".to_owned()]);
                labels
            })
            .collect()
    }
}

fn in_service(entry: &Entry, key: &ServiceKey, rest: &[&str]) -> Found {
    let protocol = |label: &str| match label {
        "_tcp" => Some(Protocol::Tcp),
        "_udp" => Some(Protocol::Udp),
        "_sctp" => Some(Protocol::Sctp),
        _ => None,
    };
    match rest {
        [] => match &entry.alias {
            Some(alias) => Found::Alias(alias.clone()),
            None if entry.addresses.is_empty() => Found::Nothing,
            None => Found::Addresses(entry.addresses.clone(), entry.targets(key, |_| true)),
        },
        [name] => match (protocol(name), entry.endpoints.get(*name)) {
            (_, Some(addresses)) => {
                let own = |port: &Port| port.endpoint.as_deref() == Some(*name);
                Found::Addresses(addresses.iter().copied().collect(), entry.targets(key, own))
            }
            (Some(protocol), None) if entry.ports.iter().any(|p| p.protocol == protocol) => {
                Found::Empty
            }
            _ => Found::Nothing,
        },
        [port, protocol_label] => {
            let (Some(name), Some(protocol)) = (port.strip_prefix('_'), protocol(protocol_label))
            else {
                return Found::Nothing;
            };
            let found = entry.targets(key, |port| port.name == name && port.protocol == protocol);
            if found.is_empty() {
                Found::Nothing
            } else {
                Found::Targets(found)
            }
        }
        _ => Found::Nothing,
    }
}

/// `10-244-0-5`, or an IPv6 address with dashes for colons.
fn pod_address(label: &str) -> Option<IpAddr> {
    let dotted = label
        .replace('-', ".")
        .parse::<Ipv4Addr>()
        .ok()
        .map(IpAddr::V4);
    dotted.or_else(|| label.replace('-', ":").parse().ok().map(IpAddr::V6))
}
