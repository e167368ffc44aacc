//! The ServiceCIDR `kubernetes` of the network that the door was given, and an IPAddress for each
//! address of a service.
//!
//! The write of a service brings its IPAddress along (see `claims`). What is mended here is what
//! somebody has changed by hand, and services that were written before there were IPAddresses.

mod plan;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use evenkeel_api::row::ResourceDef;
use evenkeel_api::{Status, clock, object};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::service::{NAME, known};
use crate::door::Door;
use crate::object::Object;
use crate::ranges::{self, GROUP, Ranges};
use crate::registry::Outcome;
use crate::verbs::touch_create;
use plan::{Fault, Lone};

/// Who tells of the ServiceCIDR, and who of addresses: the reference's names.
const OF_RANGES: &str = "kubernetes-service-cidr-controller";
const OF_ADDRESSES: &str = "ipallocator-repair-controller";
/// So many addresses are mended at once: they share the store's commits.
const AT_ONCE: usize = 32;

/// What was seen and said of the ranges so far.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// What was told once: about which object, and why.
    told: HashSet<(String, String)>,
    /// The last changes of services, IPAddresses and ServiceCIDRs when all was right.
    right: Option<[u64; 3]>,
}

/// Makes the ServiceCIDR, or tells what is wrong with the one that is there. It is never changed:
/// services may have its addresses.
pub(super) async fn keep_range(door: &Arc<Door>) -> Result<(), Status> {
    let wanted = door.allocate.network().to_string();
    if known(door, GROUP, "ServiceCIDR", NAME).is_none() {
        let cidr = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "ServiceCIDR",
            "metadata": {"name": NAME}, "spec": {"cidrs": [wanted]},
        });
        touch_create(door, cidr).await?;
    }
    let row = row(door, GROUP, "ServiceCIDR")?;
    let Some(seen) = door.registry().get(&row, "", NAME).await? else {
        return Ok(());
    };
    let mut value = seen.value();
    if object::deletion_timestamp(&value).is_some() {
        return Ok(());
    }
    let cidrs: Vec<&str> = object::list(&value, &["spec", "cidrs"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if cidrs != [wanted.as_str()] {
        let message = format!(
            "The default ServiceCIDR [{}] does not match the controller flag configurations [{wanted}]",
            cidrs.join(" ")
        );
        let reason = "KubernetesDefaultServiceCIDRInconsistent";
        return tell(door, &row, &seen, OF_RANGES, reason, &message).await;
    }
    let ready = ranges::ready_condition(&value);
    match ready.map(|ready| object::text(ready, &["status"])) {
        Some("True") => return Ok(()),
        Some("False") => {
            let text = |part| ready.map_or("", |ready| object::text(ready, &[part]));
            let message = format!("Configuration matches, but {}", text("message"));
            return tell(door, &row, &seen, OF_RANGES, text("reason"), &message).await;
        }
        _ => {}
    }
    set_ready(&mut value, &clock::rfc3339(door.clock().now()));
    // Who was faster has changed it: it is looked at again soon.
    door.registry().replace(&row, &seen, value).await.map(drop)
}

fn set_ready(cidr: &mut Value, now: &str) {
    let conditions = object::list(cidr, &["status", "conditions"]);
    let others = conditions.iter();
    let others = others.filter(|condition| object::text(condition, &["type"]) != "Ready");
    let mut conditions: Vec<Value> = others.cloned().collect();
    conditions.push(json!({
        "type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": now,
    }));
    let status = object::fields(object::child(cidr, "status"));
    status.insert("conditions".to_owned(), conditions.into());
}

/// Mends the IPAddresses of services, unless nothing has changed since all of them were right.
pub(super) async fn keep_addresses(door: &Arc<Door>) -> Result<(), Status> {
    let registry = door.registry();
    registry.fresh().await?;
    let (services, addresses) = (row(door, "", "Service")?, row(door, GROUP, "IPAddress")?);
    let last = |row: &ResourceDef| registry.cache(row).map(|cache| cache.last());
    let now = [
        last(&services)?,
        last(&addresses)?,
        last(row(door, GROUP, "ServiceCIDR")?.as_ref())?,
    ];
    let before = door.upkeep.lock().right;
    if before == Some(now) {
        return Ok(());
    }
    let mender = Mender {
        door,
        ranges: Ranges::all(registry),
        right: before.filter(|before| before[2] == now[2]),
        // A store of the time before IPAddresses is brought up to date, which is nobody's fault.
        is_first: !registry
            .cache(&addresses)?
            .list("", None)
            .iter()
            .any(|found| found.head.label(ranges::MANAGED_BY) == Some(ranges::ALLOCATOR)),
        services,
        addresses,
    };
    let is_done = mender.run().await?;
    // What was written meanwhile is another change, and looked at the next time.
    door.upkeep.lock().right = is_done.then_some(now);
    Ok(())
}

struct Mender<'d> {
    door: &'d Arc<Door>,
    ranges: Ranges,
    /// When all was right in these ranges: what has not changed since still is, and is not decoded.
    right: Option<[u64; 3]>,
    is_first: bool,
    services: Arc<ResourceDef>,
    addresses: Arc<ResourceDef>,
}

impl Mender<'_> {
    /// Answers whether nothing is left for later.
    async fn run(&self) -> Result<bool, Status> {
        let registry = self.door.registry();
        let mut holders = Vec::new();
        let mut held = HashSet::new();
        for service in registry.cache(&self.services)?.list("", None) {
            if let Ok(ip) = self.address_of(&service).parse::<IpAddr>() {
                held.insert(ip.to_string());
                holders.push((service, ip));
            }
        }
        stream::iter(holders)
            .map(|(service, ip)| async move { self.service(&service, ip).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        let mut is_done = true;
        for address in registry.cache(&self.addresses)?.list("", None) {
            if !held.contains(&*address.head.name) {
                is_done &= self.lone(&address).await?;
            }
        }
        Ok(is_done)
    }

    /// What a service says that it has: one of its selectable fields, so that it is not decoded.
    fn address_of<'o>(&self, service: &'o Object) -> &'o str {
        let mut fields = self.services.selectable.iter();
        let place = fields.position(|field| field.path == "spec.clusterIP");
        let field = place.and_then(|place| service.head.fields.get(place));
        field.map_or("", |field| &**field)
    }

    /// Whether a service has an address; `None` when there is no such service.
    fn has(&self, namespace: &str, name: &str, ip: &str) -> Option<bool> {
        let cache = self.door.registry().cache(&self.services).ok()?;
        let service = cache.get(&format!("{namespace}/{name}"))?;
        Some(self.address_of(&service) == ip)
    }

    async fn service(&self, service: &Object, ip: IpAddr) -> Result<(), Status> {
        let registry = self.door.registry();
        let (namespace, name) = (&*service.head.namespace, &*service.head.name);
        let (text, family) = (ip.to_string(), ranges::family(ip));
        let warn = async |reason: &str, message: String| {
            tell(
                self.door,
                &self.services,
                service,
                OF_ADDRESSES,
                reason,
                &message,
            )
            .await
        };
        if !self.ranges.contains(ip) {
            let message = format!(
                "Cluster IP [{family}]: {text} is not within any configured Service CIDR; please \
                 recreate service"
            );
            return warn("ClusterIPOutOfRange", message).await;
        }
        let known = registry.cache(&self.addresses)?.get(&text);
        if let (Some(right), Some(known)) = (self.right, &known)
            && service.revision <= right[0]
            && known.revision <= right[1]
        {
            return Ok(());
        }
        let value = known.as_ref().map(|known| known.value());
        let fault = plan::fault(value.as_ref(), ip, (namespace, name), |namespace, name| {
            self.has(namespace, name, &text)
        });
        let Some(fault) = fault else { return Ok(()) };
        // It may have gone, or given its address up, since it was listed.
        let now = registry.get(&self.services, namespace, name).await?;
        if now.is_none_or(|now| self.address_of(&now) != text) {
            return Ok(());
        }
        match fault {
            Fault::Missing if self.is_first => {}
            Fault::Missing => {
                let message = format!("Cluster IP [{family}]: {text} is not allocated; repairing");
                warn("ClusterIPNotAllocated", message).await?;
            }
            Fault::OfAnother => {
                let message = format!(
                    "the ClusterIP [{family}]: {text} for Service {namespace}/{name} has a wrong \
                     reference; repairing"
                );
                warn("ClusterIPNotAllocated", message).await?;
            }
            Fault::Shared => {
                let message = format!(
                    "Cluster IP [{family}]:{text} was assigned to multiple services; please \
                     recreate service"
                );
                return warn("ClusterIPAlreadyAllocated", message).await;
            }
            Fault::Labels => {}
        }
        if let Some(known) = &known {
            self.remove(known).await?;
        }
        let wanted = ranges::address_of(ip, namespace, name);
        touch_create(self.door, wanted).await.map(drop)
    }

    /// Looks at an IPAddress of which no service says that it has it; answers whether that is all.
    async fn lone(&self, address: &Object) -> Result<bool, Status> {
        let ip = address.head.name.to_string();
        let value = address.value();
        let now = self.door.clock().now();
        let verdict = plan::lone(&value, now, |namespace, name| {
            self.has(namespace, name, &ip)
        });
        let (namespace, name) = ranges::service_of(&value).unwrap_or_default();
        let (reason, message) = match verdict {
            Lone::Stays => return Ok(true),
            Lone::Young => return Ok(false),
            Lone::Changed => (
                "IPAddressNotAllocated",
                format!(
                    "IPAddress {ip} appears to have been modified, not referencing a Service {}: \
                     cleaning up",
                    value["spec"]["parentRef"]
                ),
            ),
            Lone::Leaked => (
                "IPAddressNotAllocated",
                format!(
                    "IPAddress: {ip} for Service {namespace}/{name} appears to have leaked: cleaning \
                     up"
                ),
            ),
            Lone::NotIts => (
                "IPAddressWrongReference",
                format!(
                    "IPAddress: {ip} for Service {namespace}/{name} has a wrong reference; cleaning \
                     up"
                ),
            ),
        };
        tell(
            self.door,
            &self.addresses,
            address,
            OF_ADDRESSES,
            reason,
            &message,
        )
        .await?;
        self.remove(address).await?;
        Ok(true)
    }

    /// Deletes an IPAddress, as a client would: with finalizers it is marked.
    async fn remove(&self, seen: &Object) -> Result<(), Status> {
        let registry = self.door.registry();
        let mut value = seen.value();
        let outcome = if object::finalizers(&value).is_empty() {
            registry.remove(&self.addresses, seen).await?
        } else if object::deletion_timestamp(&value).is_none() {
            let now = clock::rfc3339(self.door.clock().now());
            let metadata = object::metadata(&mut value);
            metadata.insert("deletionTimestamp".to_owned(), now.into());
            metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
            registry.replace(&self.addresses, seen, value).await?
        } else {
            return Ok(());
        };
        if let Outcome::Stale(Some(_)) = outcome {
            tracing::debug!(address = %seen.head.name, "changed meanwhile; looked at again");
        }
        Ok(())
    }
}

fn row(door: &Door, group: &str, kind: &str) -> Result<Arc<ResourceDef>, Status> {
    let row = door.registry().rows.by_kind(group, "v1", kind).cloned();
    row.ok_or_else(Status::no_such_path)
}

/// Warns of an object in an event, once as long as the door is open.
async fn tell(
    door: &Arc<Door>,
    row: &ResourceDef,
    about: &Object,
    component: &str,
    reason: &str,
    message: &str,
) -> Result<(), Status> {
    let value = about.value();
    let uid = object::uid(&value);
    let once = (format!("{uid}/{reason}"), message.to_owned());
    if !door.upkeep.lock().told.insert(once) {
        return Ok(());
    }
    tracing::warn!(kind = %row.gvk.kind, name = %about.head.name, reason, message);
    let now = door.clock().now();
    let name = &about.head.name;
    let namespace = match &*about.head.namespace {
        "" => "default",
        namespace => namespace,
    };
    let mut event = json!({
        "apiVersion": "v1", "kind": "Event", "type": "Warning", "count": 1,
        "metadata": {"name": format!("{name}.{:x}", now.as_nanosecond()), "namespace": namespace},
        "involvedObject": {"apiVersion": row.gvk.api_version(), "kind": row.gvk.kind, "name": name,
            "uid": uid, "resourceVersion": about.revision.to_string()},
        "reason": reason, "message": message,
        "firstTimestamp": clock::rfc3339(now), "lastTimestamp": clock::rfc3339(now),
        "reportingComponent": component, "source": {"component": component},
    });
    if !about.head.namespace.is_empty() {
        event["involvedObject"]["namespace"] = namespace.into();
    }
    // A namespace that goes takes no events, and what is wrong is mended all the same.
    if let Err(status) = touch_create(door, event).await {
        tracing::debug!(%status.message, "the event can't be written");
    }
    Ok(())
}
