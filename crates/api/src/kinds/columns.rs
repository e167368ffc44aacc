//! The columns of all kinds but pods.

mod certificates;
mod cluster;
mod networking;
mod storage;
mod workloads;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

pub(super) use certificates::{pod_certificate_request, signing_request, trust_bundle};
pub(super) use cluster::{
    csi_driver, csi_node, device_taint_rule, flow_schema, only_age, pod_group, priority_level,
    resource_claim, resource_slice, runtime_class, storage_version_migration, volume_attachment,
    volume_attributes_class,
};
pub(super) use networking::{ingress, ingress_class, ip_address, network_policy, service_cidr};
pub(super) use storage::{persistent_volume, persistent_volume_claim, storage_class};
pub(super) use workloads::{
    controller_revision, cron_job, daemon_set, disruption_budget, job, pod_template,
    priority_class, quota, replication_controller, stateful_set,
};

use super::table::{
    age, column, labels_text, name, or_none, selector_text, shortened, since, wide,
};
use crate::object::{at, integer, list, text};
use crate::row::{Cell, Column};

const STRING: &str = "string";
const INTEGER: &str = "integer";
/// Load balancer addresses are cut to this where space is short.
const BALANCER_WIDTH: usize = 16;
const CONTAINERS: &str = "Names of each container in the template.";
const IMAGES: &str = "Images referenced by each container in the template.";
const SELECTOR: &str = "Label selector for pods.";

fn count(object: &Value, path: &[&str]) -> Value {
    integer(object, path).unwrap_or_default().into()
}

fn entries(object: &Value, field: &str) -> usize {
    object.get(field).map_or(0, |value| match value {
        Value::Object(map) => map.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    })
}

fn containers(object: &Value, field: &str) -> Value {
    containers_at(object, &["spec", "template", "spec", "containers"], field)
}

fn containers_at(object: &Value, path: &[&str], field: &str) -> Value {
    let names: Vec<&str> = list(object, path)
        .iter()
        .map(|container| text(container, &[field]))
        .collect();
    names.join(",").into()
}

fn template_columns() -> [Column; 3] {
    [
        wide(
            "Containers",
            STRING,
            Cell::Of(|object| containers(object, "name")),
            CONTAINERS,
        ),
        wide(
            "Images",
            STRING,
            Cell::Of(|object| containers(object, "image")),
            IMAGES,
        ),
        wide(
            "Selector",
            STRING,
            Cell::Of(|object| {
                selector_text(at(object, &["spec", "selector"]).unwrap_or(&Value::Null))
            }),
            SELECTOR,
        ),
    ]
}

pub(super) fn deployment() -> Vec<Column> {
    let mut columns = vec![
        column(
            "Ready",
            STRING,
            Cell::Of(|object| {
                format!(
                    "{}/{}",
                    count(object, &["status", "readyReplicas"]),
                    count(object, &["spec", "replicas"])
                )
                .into()
            }),
            "Number of the pod with ready state",
        ),
        column(
            "Up-to-date",
            STRING,
            Cell::Of(|object| count(object, &["status", "updatedReplicas"])),
            "Number of pods that have the desired template.",
        ),
        column(
            "Available",
            STRING,
            Cell::Of(|object| count(object, &["status", "availableReplicas"])),
            "Number of pods that have been ready for at least minReadySeconds.",
        ),
        age(),
    ];
    columns.extend(template_columns());
    columns
}

pub(super) fn replica_set() -> Vec<Column> {
    let mut columns = vec![
        column(
            "Desired",
            INTEGER,
            Cell::Of(|object| count(object, &["spec", "replicas"])),
            "Number of desired pods.",
        ),
        column(
            "Current",
            INTEGER,
            Cell::Of(|object| count(object, &["status", "replicas"])),
            "Most recently observed number of pods.",
        ),
        column(
            "Ready",
            INTEGER,
            Cell::Of(|object| count(object, &["status", "readyReplicas"])),
            "Number of pods with the condition Ready.",
        ),
        age(),
    ];
    columns.extend(template_columns());
    columns
}

pub(super) fn service() -> Vec<Column> {
    vec![
        column(
            "Type",
            STRING,
            Cell::Of(|object| text(object, &["spec", "type"]).into()),
            "How the service is exposed.",
        ),
        column(
            "Cluster-IP",
            STRING,
            Cell::Of(|object| {
                let first = list(object, &["spec", "clusterIPs"]).first();
                or_none(first.and_then(Value::as_str).unwrap_or_default())
            }),
            "The address of the service inside of the cluster.",
        ),
        column(
            "External-IP",
            STRING,
            Cell::Of(external_ip),
            "Addresses for which nodes in the cluster also accept traffic for this service.",
        ),
        column(
            "Port(s)",
            STRING,
            Cell::Of(service_ports),
            "The ports that are exposed by this service.",
        ),
        age(),
        wide(
            "Selector",
            STRING,
            Cell::Of(|object| {
                labels_text(at(object, &["spec", "selector"]).unwrap_or(&Value::Null))
            }),
            "Traffic goes to pods with these labels.",
        ),
    ]
}

fn external_ip(service: &Value) -> Value {
    let external: Vec<&str> = list(service, &["spec", "externalIPs"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" => or_none(&external.join(",")),
        "LoadBalancer" => {
            let ingress: BTreeSet<&str> = list(service, &["status", "loadBalancer", "ingress"])
                .iter()
                .map(|ingress| match text(ingress, &["ip"]) {
                    "" => text(ingress, &["hostname"]),
                    ip => ip,
                })
                .filter(|address| !address.is_empty())
                .collect();
            let mut addresses = ingress.into_iter().collect::<Vec<_>>().join(",");
            if addresses.len() > BALANCER_WIDTH && external.is_empty() {
                addresses = format!("{}...", &addresses[..BALANCER_WIDTH - 3]);
            }
            let all: Vec<&str> = std::iter::once(addresses.as_str())
                .chain(external)
                .filter(|address| !address.is_empty())
                .collect();
            if all.is_empty() {
                "<pending>".into()
            } else {
                all.join(",").into()
            }
        }
        "ExternalName" => text(service, &["spec", "externalName"]).into(),
        _ => "<unknown>".into(),
    }
}

fn service_ports(service: &Value) -> Value {
    let ports: Vec<String> = list(service, &["spec", "ports"])
        .iter()
        .map(|port| {
            let (number, protocol) = (count(port, &["port"]), text(port, &["protocol"]));
            match integer(port, &["nodePort"]).unwrap_or_default() {
                1.. => format!("{number}:{}/{protocol}", count(port, &["nodePort"])),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    or_none(&ports.join(","))
}

pub(super) fn node() -> Vec<Column> {
    vec![
        column(
            "Status",
            STRING,
            Cell::Of(node_status),
            "The status of the node",
        ),
        column(
            "Roles",
            STRING,
            Cell::Of(node_roles),
            "The roles of the node",
        ),
        age(),
        column(
            "Version",
            STRING,
            Cell::Of(|object| text(object, &["status", "nodeInfo", "kubeletVersion"]).into()),
            "Version that the node agent reports.",
        ),
        wide(
            "Internal-IP",
            STRING,
            Cell::Of(|object| node_address(object, "InternalIP")),
            "Addresses reachable to the node.",
        ),
        wide(
            "External-IP",
            STRING,
            Cell::Of(|object| node_address(object, "ExternalIP")),
            "Addresses reachable to the node.",
        ),
        wide(
            "OS-Image",
            STRING,
            Cell::Of(|object| node_info(object, "osImage")),
            "OS image reported by the node.",
        ),
        wide(
            "Kernel-Version",
            STRING,
            Cell::Of(|object| node_info(object, "kernelVersion")),
            "Kernel version reported by the node.",
        ),
        wide(
            "Container-Runtime",
            STRING,
            Cell::Of(|object| node_info(object, "containerRuntimeVersion")),
            "Container runtime version reported by the node.",
        ),
    ]
}

fn node_info(node: &Value, field: &str) -> Value {
    match text(node, &["status", "nodeInfo", field]) {
        "" => "<unknown>",
        found => found,
    }
    .into()
}

fn node_address(node: &Value, kind: &str) -> Value {
    let found = list(node, &["status", "addresses"])
        .iter()
        .find(|address| text(address, &["type"]) == kind);
    or_none(found.map_or("", |address| text(address, &["address"])))
}

fn node_status(node: &Value) -> Value {
    let ready = list(node, &["status", "conditions"])
        .iter()
        .find(|condition| text(condition, &["type"]) == "Ready");
    let mut status = match ready.map(|condition| text(condition, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if at(node, &["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

fn node_roles(node: &Value) -> Value {
    let roles: BTreeSet<&str> = at(node, &["metadata", "labels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    or_none(&roles.into_iter().collect::<Vec<_>>().join(","))
}

pub(super) fn namespace() -> Vec<Column> {
    vec![
        column(
            "Status",
            STRING,
            Cell::Of(|object| text(object, &["status", "phase"]).into()),
            "The status of the namespace",
        ),
        age(),
    ]
}

pub(super) fn config_map() -> Vec<Column> {
    vec![
        column(
            "Data",
            STRING,
            Cell::Of(|object| (entries(object, "data") + entries(object, "binaryData")).into()),
            "How many keys there are.",
        ),
        age(),
    ]
}

pub(super) fn secret() -> Vec<Column> {
    vec![
        column(
            "Type",
            STRING,
            Cell::Of(|object| text(object, &["type"]).into()),
            "What programs may expect in the data.",
        ),
        column(
            "Data",
            STRING,
            Cell::Of(|object| entries(object, "data").into()),
            "How many keys there are.",
        ),
        age(),
    ]
}

pub(super) fn endpoints() -> Vec<Column> {
    vec![
        column(
            "Endpoints",
            STRING,
            Cell::Of(|object| {
                let mut all = Vec::new();
                for subset in list(object, &["subsets"]) {
                    let addresses = list(subset, &["addresses"]);
                    let ports = list(subset, &["ports"]);
                    if ports.is_empty() {
                        all.extend(addresses.iter().map(|a| text(a, &["ip"]).to_owned()));
                    }
                    for port in ports {
                        all.extend(addresses.iter().map(|address| {
                            host_port(text(address, &["ip"]), &count(port, &["port"]))
                        }));
                    }
                }
                or_none(&shortened(&all, 3))
            }),
            "The addresses and ports that serve.",
        ),
        age(),
    ]
}

fn host_port(ip: &str, port: &Value) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

pub(super) fn endpoint_slice() -> Vec<Column> {
    vec![
        column(
            "AddressType",
            STRING,
            Cell::Of(|object| text(object, &["addressType"]).into()),
            "What kind of addresses there are.",
        ),
        column(
            "Ports",
            STRING,
            Cell::Of(|object| {
                let ports: Vec<String> = list(object, &["ports"])
                    .iter()
                    .map(
                        |port| match (integer(port, &["port"]), text(port, &["name"])) {
                            (Some(number), _) => number.to_string(),
                            (None, "") => "*".to_owned(),
                            (None, name) => name.to_owned(),
                        },
                    )
                    .collect();
                or_unset_text(shortened(&ports, 3))
            }),
            "The ports of every endpoint.",
        ),
        column(
            "Endpoints",
            STRING,
            Cell::Of(|object| {
                let addresses: Vec<String> = list(object, &["endpoints"])
                    .iter()
                    .flat_map(|endpoint| list(endpoint, &["addresses"]))
                    .filter_map(|address| address.as_str().map(str::to_owned))
                    .collect();
                or_unset_text(shortened(&addresses, 3))
            }),
            "The addresses.",
        ),
        age(),
    ]
}

fn or_unset_text(text: String) -> Value {
    if text.is_empty() {
        "<unset>".into()
    } else {
        text.into()
    }
}

pub(super) fn scale() -> Vec<Column> {
    vec![
        column(
            "Desired",
            INTEGER,
            Cell::Of(|object| integer(object, &["spec", "replicas"]).unwrap_or(0).into()),
            "The number of replicas that is wished for.",
        ),
        column(
            "Available",
            INTEGER,
            Cell::Of(|object| integer(object, &["status", "replicas"]).unwrap_or(0).into()),
            "The number of replicas that there are.",
        ),
        age(),
    ]
}

pub(super) fn lease() -> Vec<Column> {
    vec![
        column(
            "Holder",
            STRING,
            Cell::Of(|object| text(object, &["spec", "holderIdentity"]).into()),
            "The identity of the holder.",
        ),
        age(),
    ]
}

pub(super) fn event() -> Vec<Column> {
    vec![
        column(
            "Last Seen",
            STRING,
            Cell::At(|object, now| last_seen(object, now).into()),
            "The time at which the most recent occurrence was recorded.",
        ),
        column(
            "Type",
            STRING,
            Cell::Of(|object| text(object, &["type"]).into()),
            "Type of this event (Normal, Warning).",
        ),
        column(
            "Reason",
            STRING,
            Cell::Of(|object| text(object, &["reason"]).into()),
            "Why the object came into its state, in one word for machines.",
        ),
        column(
            "Object",
            STRING,
            Cell::Of(|object| {
                let kind = text(object, &["involvedObject", "kind"]).to_lowercase();
                match text(object, &["involvedObject", "name"]) {
                    "" => kind.into(),
                    name => format!("{kind}/{name}").into(),
                }
            }),
            "The object that this event is about.",
        ),
        wide(
            "Subobject",
            STRING,
            Cell::Of(|object| text(object, &["involvedObject", "fieldPath"]).into()),
            "The part of the object.",
        ),
        wide(
            "Source",
            STRING,
            Cell::Of(event_source),
            "The component reporting this event.",
        ),
        column(
            "Message",
            STRING,
            Cell::Of(|object| text(object, &["message"]).trim().into()),
            "A description for people.",
        ),
        wide(
            "First Seen",
            STRING,
            Cell::At(|object, now| first_seen(object, now).into()),
            "The time at which the event was first recorded.",
        ),
        wide(
            "Count",
            STRING,
            Cell::Of(|object| {
                let series = integer(object, &["series", "count"]).map(|count| count + 1);
                let single = integer(object, &["count"]).filter(|count| *count != 0);
                series.or(single).unwrap_or(1).into()
            }),
            "The number of times this event has occurred.",
        ),
        Column {
            priority: 1,
            ..name()
        },
    ]
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    match text(event, &["firstTimestamp"]) {
        "" => since(text(event, &["eventTime"]), now),
        time => since(time, now),
    }
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    if at(event, &["series"]).is_some_and(Value::is_object) {
        return since(text(event, &["series", "lastObservedTime"]), now);
    }
    match text(event, &["lastTimestamp"]) {
        "" => first_seen(event, now),
        time => since(time, now),
    }
}

fn event_source(event: &Value) -> Value {
    let either = |first: &[&str], second: &[&str]| {
        let found = text(event, first);
        if found.is_empty() {
            text(event, second).to_owned()
        } else {
            found.to_owned()
        }
    };
    let component = either(&["source", "component"], &["reportingComponent"]);
    let instance = either(&["source", "host"], &["reportingInstance"]);
    if instance.is_empty() {
        component.into()
    } else {
        format!("{component}, {instance}").into()
    }
}

pub(super) fn autoscaler() -> Vec<Column> {
    vec![
        column(
            "Reference",
            STRING,
            Cell::Of(|object| {
                let target = at(object, &["spec", "scaleTargetRef"]).unwrap_or(&Value::Null);
                format!("{}/{}", text(target, &["kind"]), text(target, &["name"])).into()
            }),
            "What is scaled.",
        ),
        column(
            "Targets",
            STRING,
            Cell::Of(super::autoscaling::targets_text),
            "Observed and wanted value of every metric.",
        ),
        column(
            "MinPods",
            STRING,
            Cell::Of(|object| match integer(object, &["spec", "minReplicas"]) {
                Some(count) => count.to_string().into(),
                None => "<unset>".into(),
            }),
            "The lower limit for the number of replicas.",
        ),
        column(
            "MaxPods",
            STRING,
            Cell::Of(|object| count(object, &["spec", "maxReplicas"])),
            "The upper limit for the number of replicas.",
        ),
        column(
            "Replicas",
            STRING,
            Cell::Of(|object| count(object, &["status", "currentReplicas"])),
            "Number of replicas last seen by the autoscaler.",
        ),
        age(),
    ]
}

/// Roles print when they were made, not how old they are.
pub(super) fn component_status() -> Vec<Column> {
    fn healthy<'v>(object: &'v Value, field: &str) -> &'v str {
        list(object, &["conditions"])
            .iter()
            .find(|condition| text(condition, &["type"]) == "Healthy")
            .map_or("", |condition| text(condition, &[field]))
    }
    vec![
        column(
            "Status",
            STRING,
            Cell::Of(|object| {
                let shown = match healthy(object, "status") {
                    "True" => "Healthy",
                    "" => "Unknown",
                    _ => "Unhealthy",
                };
                shown.into()
            }),
            "Status of the component conditions",
        ),
        column(
            "Message",
            STRING,
            Cell::Of(|object| healthy(object, "message").into()),
            "Message of the component conditions",
        ),
        column(
            "Error",
            STRING,
            Cell::Of(|object| healthy(object, "error").into()),
            "Error of the component conditions",
        ),
    ]
}

/// For kinds of which nothing but the name and the time is shown.
pub(super) fn created_at() -> Vec<Column> {
    vec![column(
        "Created At",
        "date",
        Cell::Of(|object| {
            at(object, &["metadata", "creationTimestamp"])
                .cloned()
                .unwrap_or_default()
        }),
        "The time at which the server created this object, in UTC.",
    )]
}

pub(super) fn binding() -> Vec<Column> {
    vec![
        column(
            "Role",
            STRING,
            Cell::Of(|object| {
                let role = at(object, &["roleRef"]).unwrap_or(&Value::Null);
                format!("{}/{}", text(role, &["kind"]), text(role, &["name"])).into()
            }),
            "The role that is granted.",
        ),
        age(),
        wide(
            "Users",
            STRING,
            Cell::Of(|object| subjects(object, "User")),
            "Users in the binding",
        ),
        wide(
            "Groups",
            STRING,
            Cell::Of(|object| subjects(object, "Group")),
            "Groups in the binding",
        ),
        wide(
            "ServiceAccounts",
            STRING,
            Cell::Of(|object| subjects(object, "ServiceAccount")),
            "ServiceAccounts in the binding",
        ),
    ]
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let names: Vec<String> = list(binding, &["subjects"])
        .iter()
        .filter(|subject| text(subject, &["kind"]) == kind)
        .map(|subject| match kind {
            "ServiceAccount" => {
                format!(
                    "{}/{}",
                    text(subject, &["namespace"]),
                    text(subject, &["name"])
                )
            }
            _ => text(subject, &["name"]).to_owned(),
        })
        .collect();
    names.join(", ").into()
}
