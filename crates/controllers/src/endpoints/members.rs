//! Which pods belong to a service, and what of a pod matters to it: pure.

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{claim, pods};

/// The service has a selector and it matches the pod's labels.
#[must_use]
pub fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    let labels = claim::labels(&pod.metadata);
    selector.is_some_and(|selector| {
        !selector.is_empty()
            && selector
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    })
}

/// The service has a selector.
#[must_use]
pub fn has_selector(service: &Service) -> bool {
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty())
}

/// `spec.type: ExternalName`: a name, not endpoints.
#[must_use]
pub fn is_external_name(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

/// `clusterIP: None`.
#[must_use]
pub fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Addresses are published whether the pod is ready or not.
#[must_use]
pub fn publishes_unready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The addresses of a pod.
#[must_use]
pub fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let all: Vec<&str> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|item| item.ip.as_str())
        .collect();
    if all.is_empty() {
        let single = status.pod_ip.as_deref().filter(|ip| !ip.is_empty());
        return single.into_iter().collect();
    }
    all
}

/// The pod may be an endpoint: it has an address and has not ended. Pods on their way out are
/// endpoints only where `terminating` asks for them.
#[must_use]
pub fn belongs(pod: &Pod, terminating: bool) -> bool {
    !pods::is_terminal(pod)
        && !addresses(pod).is_empty()
        && (terminating || pod.metadata.deletion_timestamp.is_none())
}

/// The pod's own host name, where it names this service as its subdomain.
#[must_use]
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty())?;
    (spec.subdomain == service.metadata.name).then_some(hostname)
}

/// The port of a pod that a service port reaches; `None` when the pod has none of that name.
#[must_use]
pub fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|item| item.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let found = ports.find(|item| {
        item.name.as_ref() == Some(name) && item.protocol.as_deref().unwrap_or("TCP") == protocol
    })?;
    Some(found.container_port)
}

/// Nothing that endpoints show differs.
#[must_use]
pub fn is_same(a: &Pod, b: &Pod) -> bool {
    let name = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        spec.map(|spec| (spec.hostname.clone(), spec.subdomain.clone()))
    };
    a.metadata.uid == b.metadata.uid
        && a.metadata.labels == b.metadata.labels
        && a.metadata.deletion_timestamp.is_some() == b.metadata.deletion_timestamp.is_some()
        && pods::is_ready(a) == pods::is_ready(b)
        && pods::is_terminal(a) == pods::is_terminal(b)
        && pods::node_name(a) == pods::node_name(b)
        && addresses(a) == addresses(b)
        && name(a) == name(b)
}
