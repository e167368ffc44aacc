//! The Endpoints object of a service: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{members, slices};
use crate::{claim, pods};

/// Addresses of one Endpoints object at most.
pub const LIMIT: usize = 1000;
/// Says that addresses were left out.
pub const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Says who writes it.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Sorts like the reference does within a subset, so that the same pods give the same object.
type PortKey = (String, i32, String, Option<String>);

fn port_key(port: &EndpointPort) -> PortKey {
    let name = port.name.clone().unwrap_or_default();
    let protocol = port.protocol.clone().unwrap_or_default();
    (name, port.port, protocol, port.app_protocol.clone())
}

/// The Endpoints a service should have, on top of `existing`.
#[must_use]
pub fn wanted(service: &Service, selected: &[Arc<Pod>], existing: Option<&Endpoints>) -> Endpoints {
    let unready_too = members::publishes_unready(service);
    let families = slices::families(service);
    let family = families.first().copied().unwrap_or("IPv4");
    let mut ready_left = LIMIT;
    let mut groups: BTreeMap<Vec<PortKey>, EndpointSubset> = BTreeMap::new();
    let mut cut = false;
    let mut pods: Vec<&Arc<Pod>> = selected.iter().collect();
    // Ready ones first, so that a limit cuts those that serve nobody.
    pods.sort_by_key(|pod| !pods::is_ready(pod));
    for pod in pods {
        if !members::belongs(pod, unready_too) {
            continue;
        }
        let addresses = members::addresses(pod);
        let Some(ip) = addresses
            .into_iter()
            .find(|ip| slices::family_of(ip) == family)
        else {
            continue;
        };
        let spec = service.spec.as_ref();
        let all = spec
            .and_then(|spec| spec.ports.as_ref())
            .into_iter()
            .flatten();
        let none = spec
            .and_then(|spec| spec.ports.as_ref())
            .is_none_or(Vec::is_empty);
        let mut ports: Vec<EndpointPort> = all
            .filter_map(|port| {
                Some(EndpointPort {
                    name: port.name.clone().filter(|name| !name.is_empty()),
                    port: members::target(pod, port)?,
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        // A pod that has none of the named ports is no endpoint; a headless service may have none.
        if ports.is_empty() && !(none && members::is_headless(service)) {
            continue;
        }
        if ready_left == 0 {
            cut = true;
            continue;
        }
        ready_left -= 1;
        ports.sort_by_key(port_key);
        let address = EndpointAddress {
            ip: ip.to_owned(),
            node_name: pods::node_name(pod).map(str::to_owned),
            target_ref: Some(slices::target_ref(pod)),
            hostname: members::hostname(pod, service),
        };
        let key = ports.iter().map(port_key).collect();
        let subset = groups.entry(key).or_insert_with(|| EndpointSubset {
            ports: Some(ports).filter(|ports| !ports.is_empty()),
            ..EndpointSubset::default()
        });
        let list = if unready_too || pods::is_ready(pod) {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        list.get_or_insert_with(Vec::new).push(address);
    }
    let subsets = groups.into_values().map(|mut subset| {
        let lists = [&mut subset.addresses, &mut subset.not_ready_addresses];
        for list in lists.into_iter().flatten() {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
        subset
    });
    let subsets: Vec<_> = subsets.collect();
    let mut labels = claim::labels(&service.metadata).clone();
    labels.remove(slices::HEADLESS);
    if members::is_headless(service) {
        labels.insert(slices::HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
    let mut metadata = existing.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |found| found.metadata.clone(),
    );
    metadata.labels = Some(labels);
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if cut {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    metadata.annotations = Some(annotations).filter(|items| !items.is_empty());
    Endpoints {
        metadata,
        subsets: Some(subsets).filter(|subsets| !subsets.is_empty()),
    }
}

/// The same for a reader.
#[must_use]
pub fn is_same(a: &Endpoints, b: &Endpoints) -> bool {
    let subsets = |item: &Endpoints| item.subsets.clone().unwrap_or_default();
    a.metadata.labels == b.metadata.labels
        && a.metadata.annotations == b.metadata.annotations
        && subsets(a) == subsets(b)
}
