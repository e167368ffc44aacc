//! The door as a service: `kubernetes` in the namespace `default`, and where it is behind that. With
//! them the namespaces that every cluster has, and the addresses of services.
//!
//! Whoever deletes one of them has it back soon. What is there stays as it is: two servers on one
//! store write the same endpoints, and each has said its own address when it began.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use evenkeel_api::{Status, object};
use serde_json::{Value, json};

use super::ranges;
use crate::door::Door;
use crate::object::Object;
use crate::verbs::touch_create;

/// Also the name of the ServiceCIDR that its address is of.
pub(super) const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";
const NAMESPACES: [&str; 4] = [NAMESPACE, "kube-node-lease", "kube-public", "kube-system"];
/// How often it is looked at, as in the reference.
const AGAIN: Duration = Duration::from_secs(10);

/// Where pods reach the door.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    address: IpAddr,
    port: u16,
}

/// Keeps all of it until the door is gone. The sender tells of a door that is open.
pub(crate) async fn keep_service(door: tokio::sync::oneshot::Receiver<Weak<Door>>) {
    let Ok(door) = door.await else { return };
    loop {
        tokio::time::sleep(AGAIN).await;
        let Some(door) = door.upgrade() else { return };
        if let Err(status) = restore(&door).await {
            tracing::warn!(%status.message, "the service kubernetes can't be kept");
        }
    }
}

/// Makes what is missing.
pub(super) async fn restore(door: &Arc<Door>) -> Result<(), Status> {
    for name in NAMESPACES {
        if known(door, "", "Namespace", name).is_none() {
            touch_create(door, namespace(name)).await?;
        }
    }
    ranges::keep_range(door).await?;
    if known(door, "", "Service", &of_default()).is_none() {
        match touch_create(door, service(door)).await {
            // Its address is of no range now, or somebody else has it: an administrator's to settle,
            // who needs the door for that.
            Err(status) if status.code == 422 => {
                tracing::warn!(%status.message, "there is no service kubernetes");
            }
            made => drop(made?),
        }
    }
    // A disk that is nearly full takes none; services have their addresses all the same.
    if let Err(status) = ranges::keep_addresses(door).await {
        tracing::warn!(%status.message, "IPAddresses of services can't be mended");
    }
    let published = *door.published.lock();
    if let Some(published) = published {
        for (group, kind, wanted, parts) in published.told() {
            let there = known(door, group, kind, &of_default());
            if there.is_none_or(|there| says_nothing(&there.value(), parts)) {
                door.put(wanted, parts).await?;
            }
        }
    }
    Ok(())
}

/// Whether nobody is told anything by endpoints or a slice.
fn says_nothing(value: &Value, parts: &[&str]) -> bool {
    parts
        .iter()
        .any(|part| object::list(value, &[part]).is_empty())
}

fn of_default() -> String {
    format!("{NAMESPACE}/{NAME}")
}

pub(super) fn known(door: &Door, group: &str, kind: &str, key: &str) -> Option<Arc<Object>> {
    let registry = door.registry();
    let row = registry.rows.by_kind(group, "v1", kind)?;
    registry.caches.of(row)?.get(key)
}

fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]},
    })
}

fn service(door: &Door) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE,
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": door.allocate.first().to_string(), "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP",
                "targetPort": door.port}]},
    })
}

impl Published {
    /// The endpoints and the slice that say it: group, kind, object, and the fields that count.
    fn told(self) -> [(&'static str, &'static str, Value, &'static [&'static str]); 2] {
        let (address, port) = (self.address.to_string(), self.port);
        let family = match self.address {
            IpAddr::V4(_) => "IPv4",
            IpAddr::V6(_) => "IPv6",
        };
        let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": NAME, "namespace": NAMESPACE,
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": NAME, "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": family,
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
            "ports": ports,
        });
        [
            ("", "Endpoints", endpoints, &["subsets"]),
            (
                "discovery.k8s.io",
                "EndpointSlice",
                slice,
                &["endpoints", "ports"],
            ),
        ]
    }
}

impl Door {
    /// Says where pods reach the door: the endpoint behind the service `kubernetes`. From now on
    /// that is kept so.
    ///
    /// # Errors
    /// The store fails.
    pub async fn publish(self: &Arc<Self>, address: IpAddr, port: u16) -> Result<(), Status> {
        let published = Published { address, port };
        *self.published.lock() = Some(published);
        for (_, _, object, parts) in published.told() {
            self.put(object, parts).await?;
        }
        Ok(())
    }
}
