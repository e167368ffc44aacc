//! What services of type LoadBalancer and the pools ask for together: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use evenkeel_client::{EventType, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;

use super::announce::{self, Candidate};
use super::assign::{self, Given, Want};
use super::kinds::{AddressPool, Advertisement};
use super::pools::{self, PoolWrite};
use super::{ANNOUNCED, ANNOUNCED_BY, ASSIGNED, CLASS, FROM_POOL};
use crate::claim;

/// What was seen.
pub struct Seen<'a> {
    /// Services that want an address, or have traces of one.
    pub services: &'a [Arc<Service>],
    /// Pools.
    pub pools: &'a [AddressPool],
    /// Advertisements.
    pub advertisements: &'a [Advertisement],
    /// Nodes.
    pub nodes: &'a [Arc<Node>],
    /// Labels of a namespace.
    pub namespace: &'a dyn Fn(&str) -> BTreeMap<String, String>,
    /// Nodes with a ready endpoint of a service.
    pub serving: &'a dyn Fn(&ObjectKey) -> BTreeSet<String>,
    /// Now.
    pub now: Timestamp,
}

impl Debug for Seen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}

/// What to write to one service.
#[derive(Debug, Clone)]
pub struct Write {
    /// As it was seen.
    pub service: Arc<Service>,
    /// Annotations to set or, with `None`, to remove.
    pub annotations: BTreeMap<&'static str, Option<String>>,
    /// `status.loadBalancer.ingress` and `status.conditions`, when they are to change.
    pub status: Option<(Vec<LoadBalancerIngress>, Vec<Condition>)>,
    /// Events to tell: type, reason, message.
    pub events: Vec<(EventType, &'static str, String)>,
}

fn annotation<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    let all = service.metadata.annotations.as_ref()?;
    let found = all.get(name).map(String::as_str);
    found.filter(|text| !text.is_empty())
}

/// An annotation of MetalLB's, under its name of today or that of before.
fn asked<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    annotation(service, &format!("metallb.io/{name}"))
        .or_else(|| annotation(service, &format!("metallb.universe.tf/{name}")))
}

/// It is of type LoadBalancer, and nobody else's.
#[must_use]
pub fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let class = spec.load_balancer_class.as_deref();
    spec.type_.as_deref() == Some("LoadBalancer") && class.is_none_or(|class| class == CLASS)
}

/// It is of type LoadBalancer and somebody else's.
fn is_foreign(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    kind == Some("LoadBalancer") && !is_ours(service)
}

/// This loop has something to do with it, or had.
#[must_use]
pub fn concerns(service: &Service) -> bool {
    let traces = [FROM_POOL, ANNOUNCED_BY];
    let status = service.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    !is_foreign(service)
        && (is_ours(service)
            || traces
                .iter()
                .any(|name| annotation(service, name).is_some())
            || conditions
                .into_iter()
                .flatten()
                .any(|found| is_own(&found.type_)))
}

fn is_own(condition: &str) -> bool {
    [ASSIGNED, ANNOUNCED].contains(&condition)
}

fn addresses_of(service: &Service) -> Vec<IpAddr> {
    let ingress = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let ips = ingress
        .into_iter()
        .flatten()
        .filter_map(|one| one.ip.as_deref());
    ips.filter_map(|ip| ip.parse().ok()).collect()
}

/// It has an IPv6 address in the cluster.
fn is_six_inside(service: &Service) -> bool {
    let ips = service.spec.as_ref().and_then(|it| it.cluster_ips.as_ref());
    ips.into_iter().flatten().any(|ip| ip.contains(':'))
}

fn is_local(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.external_traffic_policy.as_deref()) == Some("Local")
}

/// What a service wants, or why that can't be understood.
fn want(seen: &Seen<'_>, service: &Service) -> Result<Want, String> {
    let spec = service.spec.clone().unwrap_or_default();
    let key = ObjectKey::of(service);
    let named = asked(service, "loadBalancerIPs");
    let single = spec.load_balancer_ip.as_deref().filter(|ip| !ip.is_empty());
    if let (Some(_), Some(_)) = (named, single) {
        return Err(
            "the annotation metallb.io/loadBalancerIPs and spec.loadBalancerIP exclude each other"
                .to_owned(),
        );
    }
    let list = named.or(single).unwrap_or_default();
    let texts = list
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty());
    let addresses: Result<Vec<IpAddr>, String> = texts
        .map(|text| {
            text.parse()
                .map_err(|_| format!("{text:?} is not an IP address"))
        })
        .collect();
    let cluster_ips = spec.cluster_ips.clone().unwrap_or_default();
    let cluster_ips: Vec<IpAddr> = cluster_ips
        .iter()
        .filter_map(|ip| ip.parse().ok())
        .collect();
    // A family that the cluster has no addresses of can be had outside, by who names it: IPv6 in
    // clusters whose services have IPv4 addresses.
    let names = |family: &str| {
        let families = spec.ip_families.iter().flatten();
        families.clone().any(|named| named == family)
    };
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        (protocol, port.port)
    };
    let selector = json!(spec.selector.clone().unwrap_or_default()).to_string();
    Ok(Want {
        created: service
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0),
        v4: cluster_ips.iter().any(IpAddr::is_ipv4),
        v6: cluster_ips.iter().any(IpAddr::is_ipv6) || names("IPv6"),
        any_family: spec.ip_family_policy.as_deref() == Some("PreferDualStack"),
        ports: spec.ports.iter().flatten().map(port).collect(),
        addresses: addresses?,
        pool: asked(service, "address-pool").map(str::to_owned),
        sharing: asked(service, "allow-shared-ip")
            .unwrap_or_default()
            .to_owned(),
        backend: if is_local(service) {
            format!("{}/{selector}", key.namespace)
        } else {
            String::new()
        },
        labels: claim::labels(&service.metadata).clone(),
        namespace_labels: (seen.namespace)(&key.namespace),
        has: addresses_of(service),
        key,
    })
}

/// Who announces an address: the node and its interfaces, as nodes read it from the annotation.
type Announcers = BTreeMap<IpAddr, Candidate>;

fn announcers_of(service: &Service) -> BTreeMap<IpAddr, String> {
    let text = annotation(service, ANNOUNCED_BY).unwrap_or_default();
    let entries = text.split(',').filter_map(|entry| {
        let (address, rest) = entry.split_once('=')?;
        let node = rest.split('@').next()?;
        Some((address.trim().parse().ok()?, node.to_owned()))
    });
    entries.collect()
}

/// `ADDRESS=NODE` or `ADDRESS=NODE@INTERFACE@INTERFACE`, with commas between.
fn render(announcers: &Announcers) -> Option<String> {
    let one = |(address, by): (&IpAddr, &Candidate)| {
        let interfaces = by.interfaces.iter().map(|name| format!("@{name}"));
        format!("{address}={}{}", by.node, interfaces.collect::<String>())
    };
    let all: Vec<String> = announcers.iter().map(one).collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// The services that have an address, and the pools that it is from.
type Holders<'a> = BTreeMap<IpAddr, Vec<(&'a Arc<Service>, &'a AddressPool)>>;

/// Chooses a node for each address; the sentence says why there is none.
fn elect(seen: &Seen<'_>, holders: &Holders<'_>) -> BTreeMap<IpAddr, Result<Candidate, String>> {
    let fit: Vec<&Node> = seen
        .nodes
        .iter()
        .map(AsRef::as_ref)
        .filter(|node| announce::is_fit(node))
        .collect();
    let elect = |address: IpAddr, services: &[(&Arc<Service>, &AddressPool)]| {
        let mut eligible: Option<Vec<Candidate>> = None;
        for (service, pool) in services {
            let labels = claim::labels(&service.metadata);
            // A service that nobody is to announce does not keep others off the address.
            let Some(found) = announce::candidates(seen.advertisements, pool, labels, &fit) else {
                continue;
            };
            eligible = Some(match eligible {
                None => found,
                Some(before) => before
                    .into_iter()
                    .filter(|one| found.iter().any(|other| other.node == one.node))
                    .collect(),
            });
        }
        let Some(mut eligible) = eligible else {
            return Err(
                "no L2Advertisement speaks of its pool; nobody announces the address".into(),
            );
        };
        // With policy Local a node without a pod would drop everything, so those with one come
        // first; where there is none at all any node may refuse.
        for (service, _) in services.iter().filter(|(service, _)| is_local(service)) {
            let serving = (seen.serving)(&ObjectKey::of(service.as_ref()));
            if eligible.iter().any(|one| serving.contains(&one.node)) {
                eligible.retain(|one| serving.contains(&one.node));
            }
        }
        let current = services
            .iter()
            .find_map(|(service, _)| announcers_of(service).remove(&address));
        let chosen = announce::choose(address, &eligible, current.as_deref());
        chosen.cloned().ok_or_else(|| {
            "no node that is ready may announce the address (see the nodeSelectors of its \
             L2Advertisement)"
                .to_owned()
        })
    };
    let all = holders.iter();
    all.map(|(address, services)| (*address, elect(*address, services)))
        .collect()
}

/// Sets a condition; the transition time moves with the status only.
fn set(
    all: &mut Vec<Condition>,
    kind: &str,
    state: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let status = if state { "True" } else { "False" };
    let at = all.iter().position(|found| found.type_ == kind);
    let since = at
        .map(|at| &all[at])
        .filter(|found| found.status == status)
        .map(|found| found.last_transition_time.clone());
    let new = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation: None,
    };
    match at {
        Some(at) => all[at] = new,
        None => all.push(new),
    }
}

fn list(addresses: &[IpAddr]) -> String {
    json!(addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>()).to_string()
}

/// What is to be written to which services, so that each has what is its own, and to which pools, so
/// that they say so.
#[must_use]
pub fn plan(seen: &Seen<'_>) -> (Vec<Write>, Vec<PoolWrite>) {
    let mut wants = Vec::new();
    let mut given: BTreeMap<ObjectKey, Given> = BTreeMap::new();
    for service in seen.services.iter().filter(|service| is_ours(service)) {
        match want(seen, service) {
            Ok(want) => wants.push(want),
            Err(why) => {
                let answer = Given::Nothing(assign::REFUSED, why);
                given.insert(ObjectKey::of(service.as_ref()), answer);
            }
        }
    }
    given.extend(assign::assign(seen.pools, &wants));
    let mut holders = Holders::new();
    for service in seen.services {
        if let Some(Given::Addresses(addresses, pool)) = given.get(&ObjectKey::of(service.as_ref()))
        {
            for address in addresses {
                let from = seen.pools.iter().find(|found| {
                    found.metadata.name.as_deref() == Some(pool) && assign::holds(found, *address)
                });
                if let Some(from) = from {
                    holders.entry(*address).or_default().push((service, from));
                }
            }
        }
    }
    let elected = elect(seen, &holders);
    let writes = seen.services.iter().filter(|service| concerns(service));
    let writes = writes
        .filter_map(|service| {
            let given = given.get(&ObjectKey::of(service.as_ref()));
            write(service, given, &elected, seen.now)
        })
        .collect();
    (writes, pools::plan(seen.pools, &given, seen.now))
}

fn write(
    service: &Arc<Service>,
    given: Option<&Given>,
    elected: &BTreeMap<IpAddr, Result<Candidate, String>>,
    now: Timestamp,
) -> Option<Write> {
    let status = service.status.clone().unwrap_or_default();
    let before = status.conditions.clone().unwrap_or_default();
    let mut conditions = before.clone();
    let mut events = Vec::new();
    let had = addresses_of(service);
    let mut announcers = Announcers::new();
    let mut from = None;
    let mut addresses = Vec::new();
    match given {
        None => conditions.retain(|found| !is_own(&found.type_)),
        Some(Given::Nothing(reason, why)) => {
            conditions.retain(|found| found.type_ != ANNOUNCED);
            let told = |found: &&Condition| found.type_ == ASSIGNED && found.message == *why;
            if !before.iter().any(|found| told(&found)) {
                let key = ObjectKey::of(service.as_ref());
                let text = format!("Failed to allocate IP for \"{key}\": {why}");
                events.push((EventType::Warning, "AllocationFailed", text));
            }
            set(&mut conditions, ASSIGNED, false, reason, why, now);
        }
        Some(Given::Addresses(found, pool)) => {
            addresses.clone_from(found);
            from = Some(pool.clone());
            if had != *found {
                let text = format!("Assigned IP {}", list(found));
                events.push((EventType::Normal, "IPAllocated", text));
            }
            let text = format!("{} of pool {pool}", list(found));
            set(&mut conditions, ASSIGNED, true, "Assigned", &text, now);
            let mut why = None;
            for address in found {
                match elected.get(address) {
                    Some(Ok(by)) => {
                        announcers.insert(*address, by.clone());
                    }
                    Some(Err(text)) => why = Some(text.clone()),
                    None => {}
                }
            }
            let nodes: BTreeSet<&str> = announcers.values().map(|by| by.node.as_str()).collect();
            let nodes: Vec<&str> = nodes.into_iter().collect();
            match why {
                Some(why) => set(&mut conditions, ANNOUNCED, false, "NotAnnounced", &why, now),
                None => {
                    let mut text = format!("announced on the link by {}", nodes.join(", "));
                    if found.iter().any(IpAddr::is_ipv6) && !is_six_inside(service) {
                        text.push_str(
                            "; IPv6 addresses lead to endpoints of EndpointSlices of addressType IPv6 only \
                             (pods of the built-in network have IPv4 addresses)",
                        );
                    }
                    set(&mut conditions, ANNOUNCED, true, "Announced", &text, now);
                }
            }
            let previous = announcers_of(service);
            for (address, by) in &announcers {
                if previous.get(address) != Some(&by.node) {
                    let text = format!(
                        "announcing from node {:?} with protocol \"layer2\"",
                        by.node
                    );
                    events.push((EventType::Normal, "nodeAssigned", text));
                }
            }
        }
    }
    let mut annotations = BTreeMap::new();
    for (name, wanted) in [(FROM_POOL, from), (ANNOUNCED_BY, render(&announcers))] {
        if annotation(service, name) != wanted.as_deref() {
            annotations.insert(name, wanted);
        }
    }
    let current = status
        .load_balancer
        .and_then(|found| found.ingress)
        .unwrap_or_default();
    let ingress = |address: &IpAddr| LoadBalancerIngress {
        ip: Some(address.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    let wanted: Vec<LoadBalancerIngress> = addresses.iter().map(ingress).collect();
    let is_there = had == addresses && current.len() == wanted.len();
    let status = (!is_there || before != conditions).then(|| {
        let ingress = if is_there { current } else { wanted };
        (ingress, conditions)
    });
    (status.is_some() || !annotations.is_empty()).then(|| Write {
        service: Arc::clone(service),
        annotations,
        status,
        events,
    })
}
