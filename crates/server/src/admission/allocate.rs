//! Service addresses and node ports: given out once, taken back with their service.
//!
//! What is taken is what stored services say, plus what was given out so recently that the caches
//! do not show it yet. Nothing else is remembered, so that a crash loses nothing. Another server on
//! the same store may pick the same at the same moment: the write settles it (see `claims`).

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use evenkeel_api::field::{FieldError, Path};
use evenkeel_api::row::ResourceDef;
use evenkeel_api::{Status, object};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::registry::Registry;

const FIRST_PORT: u16 = 30_000;
const LAST_PORT: u16 = 32_767;
/// The first addresses are kept for services with a fixed place (the door itself, DNS).
const RESERVED: u32 = 16;

/// Given out, and at which revision it was stored; `None` while that is not known.
type Pending = Arc<Mutex<HashMap<String, Option<u64>>>>;

/// Gives out service addresses and node ports.
#[derive(Debug)]
pub struct Allocate {
    network: Ipv4Net,
    pending: Pending,
}

/// What was given out for one request. Given back when dropped, unless it is kept.
#[derive(Debug, Default)]
pub struct Hold {
    pending: Pending,
    taken: Vec<String>,
    kept: Option<u64>,
}

impl Hold {
    /// The object was stored at a revision.
    pub fn keep(mut self, revision: u64) {
        self.kept = Some(revision);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut pending = self.pending.lock();
        for item in &self.taken {
            match self.kept {
                Some(revision) => pending.insert(item.clone(), Some(revision)),
                None => pending.remove(item),
            };
        }
    }
}

/// Everything that is taken now.
struct Taken(HashSet<String>);

impl Taken {
    fn of(
        registry: &Registry,
        row: &ResourceDef,
        pending: &mut HashMap<String, Option<u64>>,
    ) -> Self {
        let shown = registry.caches.revision();
        pending.retain(|_, stored| stored.is_none_or(|revision| revision > shown));
        let mut taken: HashSet<String> = pending.keys().cloned().collect();
        let services = registry
            .caches
            .of(row)
            .map(|cache| cache.list("", None))
            .unwrap_or_default();
        for service in services {
            taken.extend(uses(&service.value()));
        }
        Self(taken)
    }
}

/// The addresses and ports that a service has.
pub(crate) fn uses(service: &Value) -> Vec<String> {
    let address = object::text(service, &["spec", "clusterIP"]);
    let mut uses = Vec::new();
    if !matches!(address, "" | "None") {
        uses.push(address.to_owned());
    }
    for port in object::list(service, &["spec", "ports"]) {
        if let Some(number) = object::integer(port, &["nodePort"]).filter(|number| *number > 0) {
            uses.push(port_key(number, object::text(port, &["protocol"])));
        }
    }
    uses
}

fn port_key(number: i64, protocol: &str) -> String {
    format!(
        "{number}/{}",
        if protocol.is_empty() { "TCP" } else { protocol }
    )
}

impl Allocate {
    /// Gives out addresses of a network.
    #[must_use]
    pub fn new(network: Ipv4Net) -> Self {
        Self {
            network,
            pending: Pending::default(),
        }
    }

    /// The address of the door as a service: the first of the network.
    #[must_use]
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network.network()).saturating_add(1))
    }

    /// Fills in what a new service lacks.
    ///
    /// # Errors
    /// 422 when an address or port is taken, outside, or none is left.
    pub fn on_create(
        &self,
        registry: &Registry,
        row: &ResourceDef,
        value: &mut Value,
    ) -> Result<Hold, Status> {
        if row.gvk.kind != "Service" || !row.gvk.group.is_empty() {
            return Ok(Hold::default());
        }
        self.fill(registry, row, None, value)
    }

    /// Fills in what a changed service lacks, and releases what its new type does not have.
    ///
    /// # Errors
    /// As for a new one.
    pub fn on_update(
        &self,
        registry: &Registry,
        row: &ResourceDef,
        old: &Value,
        new: &mut Value,
    ) -> Result<(), Status> {
        if row.gvk.kind != "Service" || !row.gvk.group.is_empty() {
            return Ok(());
        }
        let hold = self.fill(registry, row, Some(old), new)?;
        // The write follows at once; until the caches show it, it stays given out.
        hold.keep(registry.caches.revision() + 1);
        Ok(())
    }

    fn fill(
        &self,
        registry: &Registry,
        row: &ResourceDef,
        old: Option<&Value>,
        value: &mut Value,
    ) -> Result<Hold, Status> {
        let mut hold = Hold {
            pending: Arc::clone(&self.pending),
            taken: Vec::new(),
            kept: None,
        };
        let mut pending = self.pending.lock();
        let mut taken = Taken::of(registry, row, &mut pending).0;
        for own in old.map(uses).unwrap_or_default() {
            taken.remove(&own);
        }
        let name = object::name(value).to_owned();
        let mut given = Vec::new();
        let outcome = self
            .address(&taken, value, &mut given)
            .and_then(|()| ports(&mut taken, value, &mut given));
        if let Err(error) = outcome {
            return Err(Status::invalid("", "Service", &name, &[error]));
        }
        for item in given {
            pending.insert(item.clone(), None);
            hold.taken.push(item);
        }
        drop(pending);
        Ok(hold)
    }

    fn address(
        &self,
        taken: &HashSet<String>,
        value: &mut Value,
        given: &mut Vec<String>,
    ) -> Result<(), FieldError> {
        let spec = object::child(value, "spec");
        if object::text(spec, &["type"]) == "ExternalName" {
            return Ok(());
        }
        let path = Path::new("spec").child("clusterIPs");
        let asked = object::text(spec, &["clusterIP"]).to_owned();
        let address = match asked.as_str() {
            "None" => "None".to_owned(),
            "" => {
                let address = self.pick(taken).ok_or_else(|| {
                    FieldError::invalid(
                        &path,
                        json!([]),
                        "failed to allocate a serviceIP: range is full",
                    )
                })?;
                given.push(address.clone());
                address
            }
            asked => {
                let inside = asked
                    .parse::<Ipv4Addr>()
                    .is_ok_and(|ip| self.network.contains(&ip));
                if !inside {
                    return Err(FieldError::invalid(
                        &path,
                        json!([asked]),
                        &format!(
                            "failed to allocate IP {asked}: the provided network does not match \
                             the current range: {}",
                            self.network
                        ),
                    ));
                }
                if taken.contains(asked) {
                    return Err(FieldError::invalid(
                        &path,
                        json!([asked]),
                        &format!("failed to allocate IP {asked}: provided IP is already allocated"),
                    ));
                }
                given.push(asked.to_owned());
                asked.to_owned()
            }
        };
        let fields = object::fields(spec);
        fields.insert("clusterIP".to_owned(), address.as_str().into());
        fields.insert("clusterIPs".to_owned(), json!([address]));
        object::default_field(spec, "ipFamilies", json!(["IPv4"]));
        object::default_field(spec, "ipFamilyPolicy", "SingleStack");
        Ok(())
    }

    fn pick(&self, taken: &HashSet<String>) -> Option<String> {
        let first = u32::from(self.network.network());
        let last = u32::from(self.network.broadcast());
        let (low, high) = (first.checked_add(RESERVED)?, last.checked_sub(1)?);
        let low = low.min(high);
        let span = high - low + 1;
        let start = rand::random_range(0..span);
        (0..span)
            .map(|step| Ipv4Addr::from(low + (start + step) % span).to_string())
            .find(|address| !taken.contains(address))
    }
}

fn ports(
    taken: &mut HashSet<String>,
    value: &mut Value,
    given: &mut Vec<String>,
) -> Result<(), FieldError> {
    let spec = object::child(value, "spec");
    let wants = match object::text(spec, &["type"]) {
        "NodePort" => true,
        "LoadBalancer" => spec
            .get("allocateLoadBalancerNodePorts")
            .and_then(Value::as_bool)
            .unwrap_or(true),
        _ => false,
    };
    let Some(Value::Array(list)) = spec.get_mut("ports") else {
        return Ok(());
    };
    for (index, port) in list.iter_mut().enumerate() {
        let protocol = object::text(port, &["protocol"]).to_owned();
        let path = Path::new("spec")
            .child("ports")
            .index(index)
            .child("nodePort");
        match object::integer(port, &["nodePort"]).filter(|number| *number > 0) {
            _ if !wants => continue,
            Some(number) => {
                if !(i64::from(FIRST_PORT)..=i64::from(LAST_PORT)).contains(&number) {
                    return Err(FieldError::invalid(
                        &path,
                        number,
                        &format!(
                            "provided port is not in the valid range. The range of valid ports is {FIRST_PORT}-{LAST_PORT}"
                        ),
                    ));
                }
                let key = port_key(number, &protocol);
                if !taken.insert(key.clone()) {
                    return Err(FieldError::invalid(
                        &path,
                        number,
                        "provided port is already allocated",
                    ));
                }
                given.push(key);
            }
            None => {
                let span = LAST_PORT - FIRST_PORT + 1;
                let start = rand::random_range(0..span);
                let number = (0..span)
                    .map(|step| FIRST_PORT + (start + step) % span)
                    .find(|number| !taken.contains(&port_key(i64::from(*number), &protocol)))
                    .ok_or_else(|| {
                        FieldError::invalid(
                            &path,
                            0,
                            "failed to allocate a nodePort: range is full",
                        )
                    })?;
                let key = port_key(i64::from(number), &protocol);
                taken.insert(key.clone());
                given.push(key);
                object::fields(port).insert("nodePort".to_owned(), number.into());
            }
        }
    }
    Ok(())
}
