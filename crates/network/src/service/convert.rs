//! From the API's objects to this crate's own. What can't be understood is left out with a
//! warning that names the object; validation at the door makes that rare.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::model::{
    Announced, Endpoint, Protocol, Service, ServiceKey, ServicePort, Slice, SlicePort,
};

/// Label that ties a slice to its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Services with this label are served by somebody else's proxy.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Annotation by which the loop of load balancers says who announces which address.
const ANNOUNCED_BY: &str = "evenkeel.io/announced-by";
/// Default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10_800;

/// The key of an object with this metadata.
pub fn key(metadata: &ObjectMeta) -> ServiceKey {
    ServiceKey {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

fn addresses<'a>(key: &ServiceKey, list: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    let parse = |text: &String| match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            tracing::warn!(service = %key, address = text, "not an IP address; left out");
            None
        }
    };
    list.into_iter().filter_map(parse).collect()
}

/// Reads who announces what: `ADDRESS=NODE@INTERFACE…,…`.
fn announced(text: &str) -> Vec<Announced> {
    let one = |entry: &str| {
        let (address, by) = entry.split_once('=')?;
        let mut names = by.split('@').map(str::to_owned);
        Some(Announced {
            address: address.trim().parse().ok()?,
            node: names.next().filter(|node| !node.is_empty())?,
            interfaces: names.collect(),
        })
    };
    text.split(',').filter_map(one).collect()
}

/// Reads a Service; `None` when another proxy serves it.
pub fn service(object: &core::Service) -> Option<Service> {
    let key = key(&object.metadata);
    if object
        .metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(PROXY_NAME))
    {
        return None;
    }
    let spec = object.spec.as_ref()?;
    let mut out = Service::new(key.clone());
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if kind == "ExternalName" {
        out.external_name = spec.external_name.clone();
        return Some(out);
    }
    let single: Vec<String> = spec.cluster_ip.iter().cloned().collect();
    let ips = spec
        .cluster_ips
        .as_ref()
        .filter(|ips| !ips.is_empty())
        .unwrap_or(&single);
    out.headless = ips.iter().any(|ip| ip == "None");
    out.cluster_ips = addresses(
        &key,
        ips.iter().filter(|ip| *ip != "None" && !ip.is_empty()),
    );
    for spec_port in spec.ports.iter().flatten() {
        let protocol = Protocol::parse(spec_port.protocol.as_deref().unwrap_or_default());
        let (Some(protocol), Some(number)) = (protocol, port(spec_port.port)) else {
            tracing::warn!(service = %key, port = spec_port.port, "port can't be served; left out");
            continue;
        };
        out.ports.push(ServicePort {
            name: spec_port.name.clone().unwrap_or_default(),
            protocol,
            port: number,
            node_port: spec_port
                .node_port
                .and_then(port)
                .filter(|_| kind != "ClusterIP"),
        });
    }
    out.external_ips = addresses(&key, spec.external_ips.iter().flatten());
    let ingress = object
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = ingress.and_then(|balancer| balancer.ingress.as_ref());
    let vip = |ingress: &&core::LoadBalancerIngress| ingress.ip_mode.as_deref() != Some("Proxy");
    if kind == "LoadBalancer" {
        let ips = ingress
            .into_iter()
            .flatten()
            .filter(vip)
            .filter_map(|one| one.ip.as_ref());
        out.load_balancer_ips = addresses(&key, ips);
        for range in spec.load_balancer_source_ranges.iter().flatten() {
            match range.trim().parse() {
                Ok(range) => out.source_ranges.push(range),
                Err(_) => tracing::warn!(service = %key, range, "not a CIDR; left out"),
            }
        }
    }
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let config = spec.session_affinity_config.as_ref();
        let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
        let seconds = u64::try_from(seconds.unwrap_or(AFFINITY_SECONDS))
            .unwrap_or(0)
            .max(1);
        out.affinity = Some(Duration::from_secs(seconds));
    }
    if kind == "LoadBalancer" {
        let annotations = object.metadata.annotations.as_ref();
        let text = annotations.and_then(|all| all.get(ANNOUNCED_BY));
        out.announced = announced(text.map_or("", String::as_str));
        // Nobody speaks for an address that the service does not have.
        out.announced
            .retain(|one| out.load_balancer_ips.contains(&one.address));
        out.health_port = spec.health_check_node_port.and_then(port);
    }
    out.internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    out.external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    out.publish_not_ready = spec.publish_not_ready_addresses == Some(true);
    Some(out)
}

/// Reads an EndpointSlice; `None` when it belongs to no service or holds no IP addresses.
pub fn slice(object: &discovery::EndpointSlice) -> Option<Slice> {
    let own = key(&object.metadata);
    let service = object.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    if object.address_type == "FQDN" {
        tracing::warn!(slice = %own, "address type FQDN is not supported; slice left out");
        return None;
    }
    let mut out = Slice {
        name: own.name,
        service: ServiceKey {
            namespace: own.namespace,
            name: service.clone(),
        },
        ports: Vec::new(),
        endpoints: Vec::new(),
    };
    for slice_port in object.ports.iter().flatten() {
        let protocol = Protocol::parse(slice_port.protocol.as_deref().unwrap_or_default());
        let (Some(protocol), Some(port)) = (protocol, slice_port.port.and_then(port)) else {
            continue;
        };
        let name = slice_port.name.clone().unwrap_or_default();
        out.ports.push(SlicePort {
            name,
            protocol,
            port,
        });
    }
    for endpoint in object.endpoints.iter().flatten() {
        let Some(Ok(address)) = endpoint.addresses.first().map(|text| text.parse()) else {
            tracing::warn!(slice = %out.name, "endpoint without an IP address; left out");
            continue;
        };
        let conditions = endpoint.conditions.as_ref();
        let hints = endpoint.hints.as_ref();
        // Unset means ready; serving follows ready (EndpointConditions).
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        out.endpoints.push(Endpoint {
            address,
            ready,
            serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
            terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
            hostname: endpoint.hostname.clone(),
            node: endpoint.node_name.clone(),
            for_nodes: hints
                .and_then(|hints| hints.for_nodes.as_ref())
                .into_iter()
                .flatten()
                .map(|node| node.name.clone())
                .collect(),
            for_zones: hints
                .and_then(|hints| hints.for_zones.as_ref())
                .into_iter()
                .flatten()
                .map(|zone| zone.name.clone())
                .collect(),
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests;
