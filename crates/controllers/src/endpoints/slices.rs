//! Endpoints sorted into slices, with as few slices touched as possible: pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointSubset, Endpoints, Node, ObjectReference, Pod, Service,
};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{MANAGED_BY, MIRROR_LOOP, SERVICE_NAME, SLICE_LOOP, members};
use crate::{claim, pods};

/// Endpoints of one slice at most.
pub const SLICE_SIZE: usize = 100;
/// Addresses of one subset of Endpoints that are mirrored at most; a subset is then one slice
/// (`--mirroring-max-endpoints-per-subset`).
pub const MIRRORED: usize = 1000;
/// Marks slices and Endpoints of headless services.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// New slices, named by the server.
    pub create: Vec<EndpointSlice>,
    /// Slices to replace.
    pub update: Vec<EndpointSlice>,
    /// Slices to delete.
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// What all slices of one owner and address family share.
#[derive(Debug, Clone)]
pub struct Frame {
    prefix: String,
    namespace: Option<String>,
    family: &'static str,
    labels: BTreeMap<String, String>,
    annotations: Option<BTreeMap<String, String>>,
    owner: OwnerReference,
    /// Endpoints of one slice at most.
    size: usize,
}

/// Endpoints grouped by the ports they serve: pods may resolve a port's name differently.
#[derive(Debug, Default)]
pub struct Groups(Vec<(Vec<EndpointPort>, Vec<Endpoint>)>);

impl Groups {
    fn add(&mut self, ports: Vec<EndpointPort>, endpoint: Endpoint) {
        match self.0.iter_mut().find(|group| group.0 == ports) {
            Some(group) => group.1.push(endpoint),
            None => self.0.push((ports, vec![endpoint])),
        }
    }
}

/// `IPv4` or `IPv6`.
#[must_use]
pub fn family_of(address: &str) -> &'static str {
    if address.contains(':') {
        "IPv6"
    } else {
        "IPv4"
    }
}

/// The address families of a service, from `spec.ipFamilies`.
#[must_use]
pub fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|spec| spec.ip_families.as_ref());
    let mut found: Vec<&'static str> = Vec::new();
    for name in named.into_iter().flatten() {
        found.push(if name == "IPv6" { "IPv6" } else { "IPv4" });
    }
    if found.is_empty() {
        let ip = spec
            .and_then(|spec| spec.cluster_ip.as_deref())
            .unwrap_or_default();
        found.push(family_of(ip));
    }
    found
}

/// The frame of a service's slices.
#[must_use]
pub fn frame(service: &Service, family: &'static str) -> Frame {
    let mut labels = claim::labels(&service.metadata).clone();
    labels.remove(HEADLESS);
    if members::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), SLICE_LOOP.to_owned());
    Frame {
        prefix: format!("{name}-"),
        namespace: service.metadata.namespace.clone(),
        family,
        labels,
        annotations: None,
        owner: claim::reference_to(service),
        size: SLICE_SIZE,
    }
}

/// The frame of slices mirrored from Endpoints.
#[must_use]
pub fn mirror_frame(endpoints: &Endpoints, family: &'static str) -> Frame {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = claim::labels(&endpoints.metadata).clone();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MIRROR_LOOP.to_owned());
    let annotations = endpoints.metadata.annotations.iter().flatten();
    let kept: BTreeMap<String, String> = annotations
        .filter(|(key, _)| {
            !matches!(
                key.as_str(),
                "kubectl.kubernetes.io/last-applied-configuration"
                    | "endpoints.kubernetes.io/last-change-trigger-time"
            )
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Frame {
        prefix: format!("{name}-"),
        namespace: endpoints.metadata.namespace.clone(),
        family,
        labels,
        annotations: Some(kept).filter(|kept| !kept.is_empty()),
        owner: claim::reference_to(endpoints),
        size: MIRRORED,
    }
}

/// The endpoints of a service in one address family. `node` finds a node by name, for its zone.
pub fn of_pods(
    service: &Service,
    selected: &[Arc<Pod>],
    family: &str,
    node: impl Fn(&str) -> Option<Arc<Node>>,
) -> Groups {
    let mut groups = Groups::default();
    let spec = service.spec.as_ref();
    for pod in selected.iter().filter(|pod| members::belongs(pod, true)) {
        let addresses = members::addresses(pod);
        let mut addresses = addresses.into_iter().filter(|ip| family_of(ip) == family);
        let Some(address) = addresses.next() else {
            continue;
        };
        let ports = spec
            .and_then(|spec| spec.ports.as_ref())
            .into_iter()
            .flatten();
        let ports = ports.filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(members::target(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        });
        let ports = ports.collect();
        groups.add(ports, endpoint(service, pod, address, &node));
    }
    groups
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: &str,
    node: impl Fn(&str) -> Option<Arc<Node>>,
) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let node_name = pods::node_name(pod);
    let zone = node_name.and_then(node).and_then(|node| {
        let labels = node.metadata.labels.as_ref()?;
        labels.get(ZONE).filter(|zone| !zone.is_empty()).cloned()
    });
    let ready = members::publishes_unready(service) || (serving && !terminating);
    Endpoint {
        addresses: vec![address.to_owned()],
        hints: hints(service, zone.as_deref(), node_name).filter(|_| ready),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: members::hostname(pod, service),
        node_name: node_name.map(str::to_owned),
        target_ref: Some(target_ref(pod)),
        zone,
        ..Endpoint::default()
    }
}

/// Who should use a ready endpoint, by `spec.trafficDistribution` (KEP-4444, KEP-3015): its zone,
/// and with `PreferSameNode` its node as well.
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let spec = service.spec.as_ref()?;
    let by_node = match spec.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => false,
        "PreferSameNode" => true,
        _ => return None,
    };
    let zone = zone.map(|name| ForZone {
        name: name.to_owned(),
    });
    let node = node.filter(|_| by_node).map(|name| ForNode {
        name: name.to_owned(),
    });
    (zone.is_some() || node.is_some()).then(|| EndpointHints {
        for_zones: zone.map(|zone| vec![zone]),
        for_nodes: node.map(|node| vec![node]),
    })
}

/// The reference to a pod as endpoints carry it.
#[must_use]
pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The addresses of a subset that are mirrored, and whether each is ready: the first ones that are
/// addresses, of both families together.
fn mirrored(subset: &EndpointSubset) -> impl Iterator<Item = (&EndpointAddress, bool)> {
    let ready = subset.addresses.iter().flatten().map(|item| (item, true));
    let unready = subset.not_ready_addresses.iter().flatten();
    ready
        .chain(unready.map(|item| (item, false)))
        .filter(|(item, _)| item.ip.parse::<IpAddr>().is_ok())
        .take(MIRRORED)
}

/// Addresses that are not mirrored: those that are none, and all.
#[must_use]
pub fn skipped(endpoints: &Endpoints) -> (usize, usize) {
    let (mut invalid, mut skipped) = (0, 0);
    for subset in endpoints.subsets.iter().flatten() {
        let lists = [&subset.addresses, &subset.not_ready_addresses];
        let all: Vec<_> = lists.into_iter().flatten().flatten().collect();
        let wrong = all.iter().filter(|item| item.ip.parse::<IpAddr>().is_err());
        invalid += wrong.count();
        skipped += all.len() - mirrored(subset).count();
    }
    (invalid, skipped)
}

/// The endpoints that hand-written Endpoints name, in one address family.
#[must_use]
pub fn of_endpoints(endpoints: &Endpoints, family: &str) -> Groups {
    let mut groups = Groups::default();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        for (address, ready) in mirrored(subset) {
            if family_of(&address.ip) != family {
                continue;
            }
            let endpoint = Endpoint {
                addresses: vec![address.ip.clone()],
                conditions: Some(EndpointConditions {
                    ready: Some(ready),
                    ..EndpointConditions::default()
                }),
                hostname: address.hostname.clone().filter(|name| !name.is_empty()),
                node_name: address.node_name.clone(),
                target_ref: address.target_ref.clone(),
                ..Endpoint::default()
            };
            groups.add(ports.clone(), endpoint);
        }
    }
    groups
}

/// Who an endpoint is, so that it stays in its slice when its state changes.
fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>) {
    let uid = endpoint
        .target_ref
        .as_ref()
        .and_then(|item| item.uid.clone());
    (endpoint.addresses.clone(), uid)
}

/// Decides how `wanted` sits in slices. `existing` are this loop's slices of this owner and
/// family. With `placeholder`, an empty slice stands where there are no endpoints.
#[must_use]
pub fn plan(
    frame: &Frame,
    wanted: Groups,
    existing: &[Arc<EndpointSlice>],
    placeholder: bool,
) -> Plan {
    let mut plan = Plan::default();
    let mut free: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    let mut groups = wanted.0;
    if groups.is_empty() && placeholder {
        groups.push((Vec::new(), Vec::new()));
    }
    for (ports, endpoints) in groups {
        let (same, others): (Vec<_>, Vec<_>) = free
            .into_iter()
            .partition(|slice| slice.ports.clone().unwrap_or_default() == ports);
        free = others;
        plan_group(frame, ports, endpoints, same, placeholder, &mut plan);
    }
    plan.delete.extend(free.into_iter().cloned());
    // A new slice takes over the name of one that would go: fewer writes, fewer surprises.
    while !plan.create.is_empty() && !plan.delete.is_empty() {
        let (Some(new), Some(old)) = (plan.create.pop(), plan.delete.pop()) else {
            break;
        };
        plan.update.push(EndpointSlice {
            metadata: ObjectMeta {
                labels: new.metadata.labels,
                annotations: new.metadata.annotations,
                ..old.metadata.clone()
            },
            ..new
        });
    }
    plan
}

fn plan_group(
    frame: &Frame,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    same: Vec<&Arc<EndpointSlice>>,
    placeholder: bool,
    plan: &mut Plan,
) {
    let mut order = Vec::with_capacity(endpoints.len());
    let mut left = HashMap::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let identity = identity(&endpoint);
        if left.insert(identity.clone(), endpoint).is_none() {
            order.push(identity);
        }
    }
    let none_wanted = order.is_empty();
    // What each slice keeps, in its order, brought up to date.
    let mut kept: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in same {
        let old = slice.endpoints.iter().flatten();
        let stay: Vec<Endpoint> = old
            .filter_map(|item| left.remove(&identity(item)))
            .collect();
        kept.push((slice, stay));
    }
    let mut new: Vec<Endpoint> = order.iter().filter_map(|item| left.remove(item)).collect();
    let changed = |slice: &EndpointSlice, endpoints: &Vec<Endpoint>| {
        slice.endpoints.clone().unwrap_or_default() != *endpoints
    };
    // Newcomers go first into slices that are written anyhow, then into the fullest one that
    // takes them all, then into new ones.
    for (slice, endpoints) in &mut kept {
        if !new.is_empty() && changed(slice, endpoints) {
            let room = frame.size.saturating_sub(endpoints.len()).min(new.len());
            endpoints.extend(new.drain(..room));
        }
    }
    while new.len() >= frame.size {
        let full = new.drain(..frame.size).collect();
        plan.create.push(slice_of(frame, &ports, full));
    }
    if !new.is_empty() {
        let roomy = kept
            .iter_mut()
            .filter(|item| item.1.len() + new.len() <= frame.size)
            .max_by_key(|item| item.1.len());
        match roomy {
            Some((_, endpoints)) => endpoints.append(&mut new),
            None => plan.create.push(slice_of(frame, &ports, new)),
        }
    }
    let mut stands = false;
    for (slice, endpoints) in kept {
        let stand_in = none_wanted && placeholder && !stands && ports.is_empty();
        if endpoints.is_empty() && !stand_in {
            plan.delete.push(Arc::clone(slice));
            continue;
        }
        stands = true;
        let mut fresh = slice.as_ref().clone();
        fresh.endpoints = Some(endpoints);
        fresh.ports = Some(ports.clone());
        fresh.metadata.labels = Some(frame.labels.clone());
        fresh.metadata.annotations = annotations(frame, slice);
        let same = slice.endpoints.clone().unwrap_or_default()
            == fresh.endpoints.clone().unwrap_or_default()
            && slice.metadata.labels == fresh.metadata.labels
            && slice.metadata.annotations == fresh.metadata.annotations;
        if !same {
            plan.update.push(fresh);
        }
    }
    if none_wanted && placeholder && !stands {
        plan.create.push(slice_of(frame, &ports, Vec::new()));
    }
}

fn annotations(frame: &Frame, slice: &EndpointSlice) -> Option<BTreeMap<String, String>> {
    match &frame.annotations {
        Some(wanted) => Some(wanted.clone()),
        None => slice.metadata.annotations.clone(),
    }
}

fn slice_of(frame: &Frame, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(frame.prefix.clone()),
            namespace: frame.namespace.clone(),
            labels: Some(frame.labels.clone()),
            annotations: frame.annotations.clone(),
            owner_references: Some(vec![frame.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: frame.family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.to_vec()),
    }
}
