//! Service addresses and node ports: given out once, taken back with their service.
//!
//! What is taken is what stored services and IPAddresses say, plus what was given out so recently
//! that the caches do not show it yet. Nothing else is remembered, so that a crash loses nothing.
//! Another server on the same store may pick the same at the same moment: the write settles it (see
//! `claims`). Addresses are those of all ServiceCIDRs that are ready (see `ranges`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use evenkeel_api::field::{FieldError, Path};
use evenkeel_api::kinds::service::{needs_health_check, needs_node_port, settle_families};
use evenkeel_api::row::ResourceDef;
use evenkeel_api::{Status, object};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::ranges::{self, Ranges};
use crate::registry::Registry;

const FIRST_PORT: u16 = 30_000;
const LAST_PORT: u16 = 32_767;
/// The first ports are given out only when no other is left: they are for who asks for a port.
const ASKED_PORTS: u16 = 86;
/// The first addresses of the cluster's own network are never given to who does not ask: they are
/// for services with a fixed place (the door itself, and DNS, which no object need say).
const RESERVED: u32 = 16;

/// What was given out.
type Pending = Arc<Mutex<HashMap<String, Given>>>;

/// Who was given something.
#[derive(Debug)]
struct Given {
    /// Namespace and name of the service. It may ask for the same once more: its write may have
    /// failed, or was none but a trial.
    to: String,
    /// At which revision it was stored; `None` while that is not known.
    stored: Option<u64>,
}

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
                Some(revision) => {
                    if let Some(given) = pending.get_mut(item) {
                        given.stored = Some(revision);
                    }
                }
                None => {
                    pending.remove(item);
                }
            }
        }
    }
}

/// Everything that others have now.
struct Taken(HashSet<String>);

impl Taken {
    fn of(
        registry: &Registry,
        row: &ResourceDef,
        pending: &mut HashMap<String, Given>,
        service: &str,
    ) -> Self {
        let shown = registry.caches.revision();
        pending.retain(|_, given| given.stored.is_none_or(|revision| revision > shown));
        let mut taken: HashSet<String> = pending
            .iter()
            .filter(|(_, given)| given.to != service)
            .map(|(item, _)| item.clone())
            .collect();
        let services = registry
            .caches
            .of(row)
            .map(|cache| cache.list("", None))
            .unwrap_or_default();
        for service in services {
            taken.extend(uses(&service.value()));
        }
        let addresses = ranges::cache(registry, "IPAddress");
        let addresses = addresses.map(|cache| cache.list("", None));
        let names = addresses.iter().flatten();
        taken.extend(names.map(|address| address.head.name.to_string()));
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
    uses.extend(node_ports(service).iter().map(i64::to_string));
    let health = object::integer(service, &["spec", "healthCheckNodePort"]);
    uses.extend(health.filter(|port| *port > 0).map(|port| port.to_string()));
    uses
}

/// The node ports of a service, each once: a number is given out for all protocols, and only the
/// ports of one service may share it.
fn node_ports(service: &Value) -> BTreeSet<i64> {
    object::list(service, &["spec", "ports"])
        .iter()
        .filter_map(|port| object::integer(port, &["nodePort"]))
        .filter(|number| *number > 0)
        .collect()
}

impl Allocate {
    /// Gives out addresses. The network is the cluster's own, of the ServiceCIDR `kubernetes`.
    #[must_use]
    pub fn new(network: Ipv4Net) -> Self {
        Self {
            network,
            pending: Pending::default(),
        }
    }

    /// The cluster's own network.
    #[must_use]
    pub fn network(&self) -> Ipv4Net {
        self.network
    }

    /// The address of the door as a service: the first of the network.
    #[must_use]
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network.network()).saturating_add(1))
    }

    /// Fills in what a new service lacks.
    ///
    /// # Errors
    /// 422 when an address or port is taken or outside, or no port is left; 500 when no address is
    /// left, and for the port of health checks, as in the reference.
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
        let errors = settle_families(value, old);
        refuse(value, &errors)?;
        let service = format!("{}/{}", object::namespace(value), object::name(value));
        let mut pending = self.pending.lock();
        let mut ledger = Ledger {
            taken: Taken::of(registry, row, &mut pending, &service).0,
            given: Vec::new(),
        };
        self.give(&|| Ranges::ready(registry), &mut ledger, old, value)?;
        for item in ledger.given {
            let given = Given {
                to: service.clone(),
                stored: None,
            };
            pending.insert(item.clone(), given);
            hold.taken.push(item);
        }
        drop(pending);
        Ok(hold)
    }

    fn give(
        &self,
        ranges: &dyn Fn() -> Ranges,
        ledger: &mut Ledger,
        old: Option<&Value>,
        value: &mut Value,
    ) -> Result<(), Status> {
        // An address is for life; only who had none gets one.
        if old.is_none_or(|old| object::text(old, &["spec", "type"]) == "ExternalName") {
            self.address(ranges, ledger, value)?;
        }
        let outcome = match old {
            None => ports(ledger, value),
            Some(old) => changed_ports(ledger, old, value),
        };
        if let Err(error) = outcome {
            refuse(value, &[error])?;
        }
        health_check(ledger, old, value)
    }

    fn address(
        &self,
        ranges: &dyn Fn() -> Ranges,
        ledger: &mut Ledger,
        value: &mut Value,
    ) -> Result<(), Status> {
        let asked = object::text(value, &["spec", "clusterIP"]).to_owned();
        if object::text(value, &["spec", "type"]) == "ExternalName" || asked == "None" {
            return Ok(());
        }
        let address = if asked.is_empty() {
            let address = self.pick(&ranges(), &ledger.taken).ok_or_else(|| {
                let name = object::name(value);
                Status::internal(format!(
                    "failed to allocate a serviceIP for Service {name:?}: range is full"
                ))
            })?;
            ledger.give(&address);
            address
        } else {
            if let Err(why) = claim(&ranges(), ledger, &asked) {
                let path = Path::new("spec").child("clusterIPs");
                let detail = format!("failed to allocate IP {asked}: {why}");
                refuse(
                    value,
                    &[FieldError::invalid(&path, json!([asked]), &detail)],
                )?;
            }
            asked
        };
        let fields = object::fields(object::child(value, "spec"));
        fields.insert("clusterIP".to_owned(), address.as_str().into());
        fields.insert("clusterIPs".to_owned(), json!([address]));
        Ok(())
    }

    fn pick(&self, ranges: &Ranges, taken: &HashSet<String>) -> Option<String> {
        let own = u32::from(self.network.network());
        let is_kept = |ip: Ipv4Addr| {
            let place = u32::from(ip).checked_sub(own);
            place.is_some_and(|place| place < RESERVED)
        };
        let is_free = |ip: Ipv4Addr| !is_kept(ip) && !taken.contains(&ip.to_string());
        ranges.pick(is_free).map(|ip| ip.to_string())
    }
}

/// Gives out the address that was asked for.
fn claim(ranges: &Ranges, ledger: &mut Ledger, asked: &str) -> Result<(), &'static str> {
    if !asked.parse().is_ok_and(|ip: IpAddr| ranges.contains(ip)) {
        return Err("the provided network does not match the current range");
    }
    if !ledger.give(asked) {
        return Err("provided IP is already allocated");
    }
    Ok(())
}

fn refuse(service: &Value, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = object::name(service);
    Err(Status::invalid("", "Service", name, errors))
}

/// What is taken, and what of it this request was given.
struct Ledger {
    taken: HashSet<String>,
    given: Vec<String>,
}

impl Ledger {
    /// Gives something out, unless it is taken.
    fn give(&mut self, item: &str) -> bool {
        let free = self.taken.insert(item.to_owned());
        if free {
            self.given.push(item.to_owned());
        }
        free
    }

    /// Gives out a port that was asked for.
    fn port(&mut self, number: i64) -> Result<(), String> {
        if !(i64::from(FIRST_PORT)..=i64::from(LAST_PORT)).contains(&number) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is \
                 {FIRST_PORT}-{LAST_PORT}"
            ));
        }
        if !self.give(&number.to_string()) {
            return Err("provided port is already allocated".to_owned());
        }
        Ok(())
    }

    /// Gives out any port.
    fn any_port(&mut self) -> Option<i64> {
        let asked = FIRST_PORT + ASKED_PORTS;
        let free = self.free(asked..=LAST_PORT);
        let free = free.or_else(|| self.free(FIRST_PORT..=asked - 1))?;
        self.give(&free.to_string());
        Some(free)
    }

    fn free(&self, range: RangeInclusive<u16>) -> Option<i64> {
        let span = range.end() - range.start() + 1;
        let start = rand::random_range(0..span);
        (0..span)
            .map(|step| i64::from(range.start() + (start + step) % span))
            .find(|number| !self.taken.contains(&number.to_string()))
    }
}

fn has_node_ports(service: &Value) -> bool {
    matches!(
        object::text(service, &["spec", "type"]),
        "LoadBalancer" | "NodePort"
    )
}

fn port_path(index: usize) -> Path {
    let ports = Path::new("spec").child("ports");
    ports.index(index).child("nodePort")
}

fn node_port(port: &Value) -> i64 {
    object::integer(port, &["nodePort"]).unwrap_or(0)
}

fn any_port(ledger: &mut Ledger, index: usize) -> Result<i64, FieldError> {
    ledger.any_port().ok_or_else(|| {
        let detail = "failed to allocate a nodePort: range is full";
        FieldError::invalid(&port_path(index), 0, detail)
    })
}

/// The node ports of a new service. The same port of several protocols has one node port.
fn ports(ledger: &mut Ledger, value: &mut Value) -> Result<(), FieldError> {
    let wanted = needs_node_port(value);
    if !has_node_ports(value) {
        return Ok(());
    }
    let Some(Value::Array(list)) = object::child(value, "spec").get_mut("ports") else {
        return Ok(());
    };
    let number = |port: &Value| object::integer(port, &["port"]).unwrap_or(0);
    let mut asked: HashMap<i64, i64> = HashMap::new();
    for port in list.iter().filter(|port| node_port(port) != 0) {
        asked.entry(number(port)).or_insert_with(|| node_port(port));
    }
    let mut given: HashMap<i64, i64> = HashMap::new();
    for (index, port) in list.iter_mut().enumerate() {
        let (own, port_number) = (node_port(port), number(port));
        if own == 0 && !wanted {
            continue;
        }
        let shared = given.get(&port_number).copied();
        if own != 0 && shared == Some(own) {
            continue;
        }
        let node_port = match (shared, asked.get(&port_number).copied()) {
            (Some(shared), _) if own == 0 => shared,
            (None, None) => any_port(ledger, index)?,
            (shared, asked) => {
                let asked = if shared.is_some() {
                    own
                } else {
                    asked.unwrap_or(own)
                };
                let outcome = ledger.port(asked);
                outcome.map_err(|why| FieldError::invalid(&port_path(index), asked, &why))?;
                asked
            }
        };
        given.entry(port_number).or_insert(node_port);
        object::fields(port).insert("nodePort".to_owned(), node_port.into());
    }
    Ok(())
}

/// The node ports that a changed service gains.
fn changed_ports(ledger: &mut Ledger, old: &Value, value: &mut Value) -> Result<(), FieldError> {
    let wanted = needs_node_port(value);
    if !has_node_ports(value) {
        return Ok(());
    }
    let mut own = node_ports(old);
    let Some(Value::Array(list)) = object::child(value, "spec").get_mut("ports") else {
        return Ok(());
    };
    for (index, port) in list.iter_mut().enumerate() {
        let number = node_port(port);
        if number != 0 {
            if own.insert(number) {
                let outcome = ledger.port(number);
                outcome.map_err(|why| FieldError::invalid(&port_path(index), number, &why))?;
            }
        } else if wanted {
            let number = any_port(ledger, index)?;
            own.insert(number);
            object::fields(port).insert("nodePort".to_owned(), number.into());
        }
    }
    Ok(())
}

/// The port where a node says whether it has endpoints of a service.
fn health_check(ledger: &mut Ledger, old: Option<&Value>, value: &mut Value) -> Result<(), Status> {
    let port =
        |service: &Value| object::integer(service, &["spec", "healthCheckNodePort"]).unwrap_or(0);
    if !needs_health_check(value) || old.is_some_and(|old| needs_health_check(old) && port(old) > 0)
    {
        return Ok(());
    }
    let asked = port(value);
    if asked != 0 {
        return ledger.port(asked).map_err(|why| {
            Status::internal(format!(
                "failed to allocate requested HealthCheck NodePort {asked}: {why}"
            ))
        });
    }
    let number = ledger.any_port().ok_or_else(|| {
        Status::internal("failed to allocate a HealthCheck NodePort 0: range is full")
    })?;
    let spec = object::child(value, "spec");
    object::fields(spec).insert("healthCheckNodePort".to_owned(), number.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(taken: &[&str]) -> Ledger {
        Ledger {
            taken: taken.iter().map(|item| (*item).to_owned()).collect(),
            given: Vec::new(),
        }
    }

    fn service(kind: &str, ports: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"type": kind, "ports": ports}})
    }

    #[test]
    fn an_address_that_is_asked_for_is_of_a_range_and_free() {
        let allocate = Allocate::new("10.96.0.0/16".parse().unwrap());
        let ranges = || Ranges::named(&[json!("10.96.0.0/16"), json!("10.99.0.0/24")]);
        let ask = |ip: &str| {
            let mut value = service("ClusterIP", json!([]));
            value["spec"]["clusterIP"] = ip.into();
            allocate.address(&ranges, &mut ledger(&["10.96.0.9"]), &mut value)
        };
        for (asked, given) in [
            ("10.96.0.0", false),
            ("10.96.255.255", false),
            ("10.97.0.1", false),
            ("10.96.0.9", false),
            ("10.96.0.2", true),
            ("10.99.0.1", true),
            ("10.99.0.255", false),
        ] {
            assert_eq!(ask(asked).is_ok(), given, "{asked}");
        }
        for (asked, why) in [
            (
                "10.96.0.0",
                "the provided network does not match the current range",
            ),
            ("10.96.0.9", "provided IP is already allocated"),
        ] {
            assert_eq!(
                ask(asked).unwrap_err().message,
                format!(
                    "Service \"a\" is invalid: spec.clusterIPs: Invalid value: [\"{asked}\"]: failed \
                     to allocate IP {asked}: {why}"
                )
            );
        }
    }

    #[test]
    fn the_fixed_places_are_left_when_all_else_is_full() {
        let allocate = Allocate::new("10.96.0.0/26".parse().unwrap());
        let ranges = || Ranges::named(&[json!("10.96.0.0/26")]);
        let mut book = ledger(&[]);
        let mut last = Ok(());
        for _ in 0..64 {
            let mut value = service("ClusterIP", json!([]));
            last = allocate.address(&ranges, &mut book, &mut value);
        }
        let full = last.unwrap_err();
        assert_eq!(full.code, 500);
        assert_eq!(
            full.message,
            "Internal error occurred: failed to allocate a serviceIP for Service \"a\": range is full"
        );
        assert_eq!(book.given.len(), 64 - 16 - 1);
        assert!(!book.taken.contains("10.96.0.10"));
    }

    #[test]
    fn one_port_of_two_protocols_has_one_node_port() {
        let list = json!([{"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"},
            {"port": 81, "protocol": "UDP"}]);
        let mut value = service("NodePort", list);
        let mut book = ledger(&[]);
        ports(&mut book, &mut value).unwrap();
        let [a, b, c] = [0, 1, 2].map(|index| node_port(&value["spec"]["ports"][index]));
        assert_eq!(a, b);
        assert_ne!(a, c);
        assert!(
            a >= 30_086 && c >= 30_086,
            "the first ports are for who asks"
        );
        assert_eq!(book.given.len(), 2);
        // Also where only the second asks.
        let list = json!([{"port": 80, "protocol": "TCP"},
            {"port": 80, "protocol": "UDP", "nodePort": 30005}]);
        let mut value = service("NodePort", list);
        ports(&mut ledger(&[]), &mut value).unwrap();
        assert_eq!(node_port(&value["spec"]["ports"][0]), 30_005);
    }

    #[test]
    fn a_number_is_taken_for_all_protocols() {
        let asks = |kind: &str| {
            let list = json!([{"port": 80, "protocol": "UDP", "nodePort": 30005}]);
            let mut value = service(kind, list);
            value["spec"]["allocateLoadBalancerNodePorts"] = false.into();
            value
        };
        for kind in ["NodePort", "LoadBalancer"] {
            let refused = ports(&mut ledger(&["30005"]), &mut asks(kind)).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "spec.ports[0].nodePort: Invalid value: 30005: provided port is already allocated"
            );
            let mut book = ledger(&[]);
            ports(&mut book, &mut asks(kind)).unwrap();
            assert_eq!(book.given, ["30005"]);
        }
        // Its own ports are no others'.
        let mut value = asks("NodePort");
        changed_ports(&mut ledger(&["30005"]), &asks("NodePort"), &mut value).unwrap();
    }

    #[test]
    fn health_checks_have_a_port_of_their_own() {
        let local = |ports: Value| {
            let mut value = service("LoadBalancer", ports);
            value["spec"]["externalTrafficPolicy"] = "Local".into();
            value["spec"]["allocateLoadBalancerNodePorts"] = false.into();
            value
        };
        let mut value = local(json!([{"port": 80}]));
        let mut book = ledger(&[]);
        ports(&mut book, &mut value).unwrap();
        health_check(&mut book, None, &mut value).unwrap();
        let given = value["spec"]["healthCheckNodePort"].as_i64().unwrap();
        assert_eq!(uses(&value), [given.to_string()]);
        assert_eq!(book.given, uses(&value));
        // It stays.
        let mut book = ledger(&[]);
        let old = value.clone();
        health_check(&mut book, Some(&old), &mut value).unwrap();
        assert_eq!((value, book.given.len()), (old, 0));
        // A service that begins to need one gets it.
        let mut old = local(json!([{"port": 80}]));
        old["spec"]["externalTrafficPolicy"] = "Cluster".into();
        let mut value = local(json!([{"port": 80}]));
        health_check(&mut ledger(&[]), Some(&old), &mut value).unwrap();
        assert!(value["spec"]["healthCheckNodePort"].is_i64());
        // Its node port is none.
        let mut value = local(json!([{"port": 80, "nodePort": 30500}]));
        value["spec"]["healthCheckNodePort"] = 30_500.into();
        let mut book = ledger(&[]);
        ports(&mut book, &mut value).unwrap();
        let refused = health_check(&mut book, None, &mut value).unwrap_err();
        assert_eq!(refused.code, 500);
        assert!(
            refused.message.ends_with(
                "failed to allocate requested HealthCheck NodePort 30500: provided port is already \
                 allocated"
            ),
            "{}",
            refused.message
        );
    }
}
