//! The node object and its lease: made at start, kept true while the agent runs.
//!
//! The lease is renewed every ten seconds; the status is written only when it differs or is five
//! minutes old, because it is large and the lease says the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::placement::NodeRequirement;
use evenkeel_client::Api;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeFeatures, NodeSpec, NodeStatus, NodeSystemInfo, ObjectReference, PodSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use crate::context::Context;
use crate::events::Kind;
use crate::machine::filesystem;
use crate::pod::status::seconds;

/// Seconds a lease holds.
const LEASE_SECONDS: i32 = 40;
/// Time between renewals.
const RENEW: Duration = Duration::from_secs(10);
/// Time between tries while the API does not answer.
const RETRY: Duration = Duration::from_millis(500);
/// The status is written at least this often.
const STATUS_AT_LEAST: Duration = Duration::from_secs(300);
/// Images listed at most, as kubelet does.
const MAX_IMAGES: usize = 50;

/// Keeps node and lease until the future is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    let uid = loop {
        match register(&context).await {
            Ok(uid) => break uid,
            Err(error) => {
                debug!(%error, "node not registered yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    info!(node = context.config.name, "node registered");
    for (reason, message) in [
        ("Starting", "Starting kubelet.".to_owned()),
        (
            "NodeReady",
            format!("Node {} status is now: NodeReady", context.config.name),
        ),
    ] {
        context
            .recorder
            .record(reference(&context), Kind::Normal, reason, message);
    }
    let mut written: Option<(Value, tokio::time::Instant)> = None;
    loop {
        if let Err(error) = renew(&context, &uid).await {
            warn!(%error, "lease not renewed");
        }
        if let Err(error) = refresh(&context, &mut written).await {
            warn!(%error, "node status not written");
            written = None;
        }
        tokio::select! {
            () = tokio::time::sleep(RENEW) => {}
            () = context.devices.changed() => {}
        }
    }
}

/// kubelet's events about the node carry its name in place of a UID.
pub(crate) fn reference(context: &Context) -> ObjectReference {
    let name = context.config.name.clone();
    ObjectReference {
        kind: Some("Node".to_owned()),
        uid: Some(name.clone()),
        name: Some(name),
        ..ObjectReference::default()
    }
}

async fn register(context: &Context) -> Result<String, kube::Error> {
    let api: Api<Node> = Api::all(context.config.client.clone());
    let status = status(context, &BTreeMap::new()).await;
    let node = Node {
        metadata: ObjectMeta {
            name: Some(context.config.name.clone()),
            labels: Some(labels(context)),
            annotations: Some(annotations(context)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: context.config.pod_cidr.clone(),
            pod_cidrs: context.config.pod_cidr.clone().map(|cidr| vec![cidr]),
            ..NodeSpec::default()
        }),
        status: Some(status),
    };
    let made = match api.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            let patch = json!({ "metadata": {
                "labels": labels(context), "annotations": annotations(context),
            } });
            let params = PatchParams::default();
            api.patch(&context.config.name, &params, &Patch::Strategic(&patch))
                .await
        }
        answer => answer,
    }?;
    *context.node_labels.lock() = made.metadata.labels.unwrap_or_default();
    Ok(made.metadata.uid.unwrap_or_default())
}

/// Does the pod's own choice of nodes allow this one? Labels that other people give the node are
/// asked for only when those that are known do not do.
///
/// # Errors
/// The API does not answer.
pub(crate) async fn may_be_here(context: &Context, spec: &PodSpec) -> Result<bool, kube::Error> {
    let Some(required) = NodeRequirement::read(spec) else {
        return Ok(true);
    };
    let name = context.config.name.as_str();
    if required.matches(&(name, &*context.node_labels.lock())) {
        return Ok(true);
    }
    let api: Api<Node> = Api::all(context.config.client.clone());
    let labels = api.get(name).await?.metadata.labels.unwrap_or_default();
    let matches = required.matches(&(name, &labels));
    *context.node_labels.lock() = labels;
    Ok(matches)
}

fn annotations(context: &Context) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([(
        "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
        "true".to_owned(),
    )]);
    // Where the built-in provisioner may have volumes made; as text it must be exact.
    if let Some(directory) = context.gatherer.local.root().to_str() {
        annotations.insert(
            evenkeel_api::local_volume::DIRECTORY.to_owned(),
            directory.to_owned(),
        );
    }
    annotations
}

fn labels(context: &Context) -> BTreeMap<String, String> {
    let mut labels = context.config.labels.clone();
    let arch = context.machine.architecture;
    for (name, value) in [
        ("kubernetes.io/hostname", context.config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}

async fn renew(context: &Context, node_uid: &str) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(context.config.client.clone(), "kube-node-lease");
    let name = &context.config.name;
    let now = micro(context.config.clock.now());
    let patch = json!({ "spec": { "renewTime": now, "holderIdentity": name } });
    match api
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {}
        other => return other.map(|_| ()),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some("kube-node-lease".to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.clone(),
                uid: node_uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(|_| ())
}

fn micro(at: Timestamp) -> MicroTime {
    MicroTime(Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at))
}

/// Writes the status if the API shows another one, or if what was written is old.
async fn refresh(
    context: &Context,
    written: &mut Option<(Value, tokio::time::Instant)>,
) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(context.config.client.clone());
    let name = &context.config.name;
    let Some(node) = api.get_opt(name).await? else {
        register(context).await?;
        *written = None;
        return Ok(());
    };
    let shown = node.status.unwrap_or_default();
    let before = shown.conditions.iter().flatten();
    let before = before.map(|one| (one.type_.clone(), one.clone())).collect();
    let mut status = status(context, &before).await;
    let gone = take_over(&shown, &mut status);
    let value = serde_json::to_value(&status).map_err(kube::Error::SerdeError)?;
    if let Some((have, at)) = written
        && at.elapsed() < STATUS_AT_LEAST
        && gone.is_empty()
        && same(have, &value)
        && shows(&shown, &status)
    {
        return Ok(());
    }
    let mut patch = json!({ "status": value });
    for name in gone {
        patch["status"]["allocatable"][name] = Value::Null;
    }
    match api
        .patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch))
        .await
    {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            register(context).await?;
        }
        other => {
            other?;
        }
    }
    *written = Some((value, tokio::time::Instant::now()));
    Ok(())
}

/// Amounts that somebody gave the node by hand (`status.capacity` holds them) can be allocated.
/// Returns the names of those that were and that are gone from its capacity.
fn take_over(shown: &NodeStatus, status: &mut NodeStatus) -> Vec<String> {
    let capacity = status.capacity.get_or_insert_default();
    let allocatable = status.allocatable.get_or_insert_default();
    for (name, amount) in shown.capacity.iter().flatten() {
        if !capacity.contains_key(name) {
            allocatable.insert(name.clone(), amount.clone());
        }
    }
    let could = shown.allocatable.iter().flatten();
    could
        .filter(|(name, _)| !allocatable.contains_key(*name))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Whether the API shows what other people could have changed: amounts and conditions.
fn shows(shown: &NodeStatus, status: &NodeStatus) -> bool {
    fn known(status: &NodeStatus) -> BTreeMap<&str, &str> {
        let conditions = status.conditions.iter().flatten();
        conditions
            .map(|one| (one.type_.as_str(), one.status.as_str()))
            .collect()
    }
    let capacity = shown.capacity.clone().unwrap_or_default();
    let mut all = status.capacity.iter().flatten();
    let conditions = known(shown);
    all.all(|(name, amount)| capacity.get(name) == Some(amount))
        && shown.allocatable == status.allocatable
        && known(status)
            .iter()
            .all(|(type_, status)| conditions.get(type_) == Some(status))
}

/// Equal but for the heartbeats.
fn same(a: &Value, b: &Value) -> bool {
    let strip = |value: &Value| {
        let mut value = value.clone();
        for condition in value["conditions"].as_array_mut().into_iter().flatten() {
            if let Some(fields) = condition.as_object_mut() {
                fields.remove("lastHeartbeatTime");
            }
        }
        value
    };
    strip(a) == strip(b)
}

async fn status(context: &Context, before: &BTreeMap<String, NodeCondition>) -> NodeStatus {
    let machine = &context.machine;
    let config = &context.config;
    let storage = filesystem(&config.root).map_or(0, |(size, ..)| size);
    let devices = context.devices.amounts();
    let resources = |storage: i64, amount: fn(&(usize, usize)) -> usize| {
        let mut all = BTreeMap::from([
            ("cpu".to_owned(), Quantity(machine.cpus.to_string())),
            (
                "memory".to_owned(),
                Quantity(format!("{}Ki", machine.memory / 1024)),
            ),
            (
                "ephemeral-storage".to_owned(),
                Quantity(format!("{}Ki", storage / 1024)),
            ),
            ("pods".to_owned(), Quantity(config.max_pods.to_string())),
            ("hugepages-1Gi".to_owned(), Quantity("0".to_owned())),
            ("hugepages-2Mi".to_owned(), Quantity("0".to_owned())),
        ]);
        let devices = devices.iter();
        all.extend(devices.map(|(name, both)| (name.clone(), Quantity(amount(both).to_string()))));
        all
    };
    NodeStatus {
        capacity: Some(resources(storage, |(_, all)| *all)),
        allocatable: Some(resources(storage, |(working, _)| *working)),
        conditions: Some(conditions(context, before)),
        addresses: Some(vec![
            NodeAddress {
                type_: "InternalIP".to_owned(),
                address: config.node_ip.to_string(),
            },
            NodeAddress {
                type_: "Hostname".to_owned(),
                address: config.name.clone(),
            },
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(config.kubelet_port),
            }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: config.runtime.version(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: config.version.clone(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            ..NodeSystemInfo::default()
        }),
        images: Some(images(context).await),
        features: Some(NodeFeatures {
            supplemental_groups_policy: Some(true),
        }),
        ..NodeStatus::default()
    }
}

async fn images(context: &Context) -> Vec<ContainerImage> {
    let mut images = match context.config.images.list().await {
        Ok(images) => images,
        Err(error) => {
            warn!(%error, "images not listed");
            Vec::new()
        }
    };
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    images
        .into_iter()
        .take(MAX_IMAGES)
        .map(|image| ContainerImage {
            names: Some(
                image
                    .digests
                    .into_iter()
                    .chain(image.tags)
                    .take(5)
                    .collect(),
            ),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
}

fn conditions(context: &Context, before: &BTreeMap<String, NodeCondition>) -> Vec<NodeCondition> {
    let pressure = *context.pressure.lock();
    let now = context.config.clock.now();
    let (memory_low, disk_low) = (pressure.memory(now), pressure.disk(now));
    let make = |type_: &str, holds: bool, reason: &str, message: &str| {
        let status = if holds { "True" } else { "False" };
        let now = seconds(context.config.clock.now());
        let kept = before
            .get(type_)
            .filter(|condition| condition.status == status)
            .and_then(|condition| condition.last_transition_time.clone());
        NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(kept.unwrap_or(now)),
        }
    };
    vec![
        if memory_low {
            make(
                "MemoryPressure",
                true,
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            )
        } else {
            make(
                "MemoryPressure",
                false,
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            )
        },
        if disk_low {
            make(
                "DiskPressure",
                true,
                "KubeletHasDiskPressure",
                "kubelet has disk pressure",
            )
        } else {
            make(
                "DiskPressure",
                false,
                "KubeletHasNoDiskPressure",
                "kubelet has no disk pressure",
            )
        },
        make(
            "PIDPressure",
            false,
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        make(
            "Ready",
            true,
            "KubeletReady",
            "kubelet is posting ready status",
        ),
    ]
}
