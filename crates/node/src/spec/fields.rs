//! What `fieldRef` and `resourceFieldRef` mean for one pod.

use evenkeel_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};

use crate::pod::model::PodModel;

/// What a downward reference may ask for beyond the pod object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Name of the node.
    pub node_name: String,
    /// Addresses of the node.
    pub host_ips: Vec<String>,
    /// Addresses of the pod; empty before its sandbox exists.
    pub pod_ips: Vec<String>,
    /// Allocatable CPU in millicores, the value of a CPU limit that is not set.
    pub allocatable_cpu_milli: i64,
    /// Allocatable memory in bytes, the value of a memory limit that is not set.
    pub allocatable_memory: i64,
    /// Allocatable ephemeral storage in bytes.
    pub allocatable_storage: i64,
}

/// Why a reference has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The path is none of those that exist.
    #[error("unsupported fieldPath: {0}")]
    UnsupportedPath(String),
    /// The named container does not exist.
    #[error("container {0} not found")]
    NoContainer(String),
    /// The resource is none of those that exist.
    #[error("unsupported container resource : {0}")]
    UnsupportedResource(String),
}

/// The value of a `fieldRef`.
///
/// # Errors
/// When the path is not supported.
pub fn field(model: &PodModel, facts: &NodeFacts, path: &str) -> Result<String, FieldError> {
    let meta = &model.pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let from = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(FieldError::UnsupportedPath(path.to_owned())),
        };
        return Ok(from
            .as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => model.name().to_owned(),
        "metadata.namespace" => model.namespace().to_owned(),
        "metadata.uid" => model.uid().to_owned(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => model
            .spec()
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default(),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(FieldError::UnsupportedPath(path.to_owned())),
    })
}

/// `metadata.labels['key']` as (`metadata.labels`, `key`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let key = key
        .strip_prefix('\'')
        .and_then(|key| key.strip_suffix('\''))
        .or_else(|| key.strip_prefix('"').and_then(|key| key.strip_suffix('"')))?;
    Some((map, key))
}

/// `key="value"` lines, sorted, as the downward API writes maps.
fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    map.into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The value of a `resourceFieldRef`.
///
/// # Errors
/// When the container or the resource does not exist.
pub fn resource(
    model: &PodModel,
    facts: &NodeFacts,
    within: Option<&Container>,
    reference: &ResourceFieldSelector,
) -> Result<String, FieldError> {
    let named = reference
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => model
            .container(name)
            .map(|container| &container.spec)
            .ok_or_else(|| FieldError::NoContainer(name.to_owned()))?,
        None => within.ok_or_else(|| FieldError::NoContainer(String::new()))?,
    };
    let unsupported = || FieldError::UnsupportedResource(reference.resource.clone());
    let (kind, name) = reference.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let list = match kind {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let mut value: Option<Quantity> = list.and_then(|list| list.get(name)?.0.parse().ok());
    if value.is_none() && kind == "limits" {
        value = match name {
            "cpu" => Some(Quantity::from_milli(facts.allocatable_cpu_milli)),
            "memory" => Some(bytes(facts.allocatable_memory)),
            "ephemeral-storage" => Some(bytes(facts.allocatable_storage)),
            _ => None,
        };
    }
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let value = value.unwrap_or_default();
    let divisor: Option<Quantity> = reference
        .divisor
        .as_ref()
        .and_then(|divisor| divisor.0.parse().ok());
    let divisor = divisor.filter(|divisor| !divisor.is_zero());
    Ok(if name == "cpu" {
        let by = divisor.map_or(1000, |divisor| divisor.milli()).max(1);
        div_ceil(value.milli(), by).to_string()
    } else {
        let by = divisor.map_or(1, |divisor| divisor.units()).max(1);
        div_ceil(value.units(), by).to_string()
    })
}

fn bytes(count: i64) -> Quantity {
    Quantity::from_units(count, evenkeel_api::quantity::Format::BinarySi)
}

fn div_ceil(value: i64, by: i64) -> i64 {
    value / by + i64::from(value % by > 0)
}
