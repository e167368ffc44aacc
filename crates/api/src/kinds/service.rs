//! Services.
//!
//! Cluster addresses and node ports are given out by the door, which must do so after
//! [`Strategy::prepare_create`] and [`Strategy::prepare_update`], and after [`settle_families`].

mod families;
mod warnings;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError};
use crate::object::{self, child, default_field, fields};
use crate::row::Strategy;
use crate::validation::{self, Cursor, IMMUTABLE};

pub use families::settle as settle_families;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITY_SECONDS: i64 = 10_800;
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";
const SET_ONCE: &str = "may not change once set";

/// What services do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Services;

/// Does a service get a cluster address? All but external names do; headless ones refuse it.
#[must_use]
pub fn needs_cluster_ip(service: &Value) -> bool {
    object::text(service, &["spec", "type"]) != "ExternalName"
}

/// Does a service get node ports?
#[must_use]
pub fn needs_node_port(service: &Value) -> bool {
    let spec = Cursor::root(service).child("spec");
    match spec.text("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.flag("allocateLoadBalancerNodePorts") != Some(false),
        _ => false,
    }
}

/// Does a service have a health check node port?
#[must_use]
pub fn needs_health_check(service: &Value) -> bool {
    let spec = Cursor::root(service).child("spec");
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

/// A service without an address of its own.
#[must_use]
pub fn is_headless(service: &Value) -> bool {
    let spec = Cursor::root(service).child("spec");
    spec.text("clusterIP") == "None"
        || (spec.list("clusterIPs").len() == 1 && spec.texts("clusterIPs").next() == Some("None"))
}

fn externally_accessible(spec: &Cursor<'_>) -> bool {
    matches!(spec.text("type"), "LoadBalancer" | "NodePort")
        || (spec.text("type") == "ClusterIP" && !spec.list("externalIPs").is_empty())
}

impl Strategy for Services {
    fn changes_first(&self) -> bool {
        true
    }

    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        set_when_empty(spec, "sessionAffinity", "None");
        match object::text(spec, &["sessionAffinity"]) {
            "None" => {
                fields(spec).remove("sessionAffinityConfig");
            }
            "ClientIP" => {
                let path = ["sessionAffinityConfig", "clientIP", "timeoutSeconds"];
                if object::at(spec, &path).is_none_or(Value::is_null) {
                    let config = json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}});
                    fields(spec).insert("sessionAffinityConfig".to_owned(), config);
                }
            }
            _ => {}
        }
        set_when_empty(spec, "type", "ClusterIP");
        ports_defaults(spec);
        if externally_accessible(&Cursor::root(spec)) {
            set_when_empty(spec, "externalTrafficPolicy", "Cluster");
        }
        let kind = object::text(spec, &["type"]).to_owned();
        if kind != "ExternalName" {
            default_field(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            default_field(spec, "allocateLoadBalancerNodePorts", true);
        }
        let status = child(child(object, "status"), "loadBalancer");
        if kind == "LoadBalancer"
            && let Some(ingress) = status.get_mut("ingress").and_then(Value::as_array_mut)
        {
            for ingress in ingress {
                if !object::text(ingress, &["ip"]).is_empty() {
                    default_field(ingress, "ipMode", "VIP");
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        fields(object).insert("status".to_owned(), json!({"loadBalancer": {}}));
        let spec = child(object, "spec");
        let single = object::text(spec, &["clusterIP"]).to_owned();
        if !single.is_empty() && object::list(spec, &["clusterIPs"]).is_empty() {
            fields(spec).insert("clusterIPs".to_owned(), json!([single]));
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
        keep_allocated(new, old);
        normalize_cluster_ips(new, old);
        drop_for_type(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        validate(object, &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        addresses_kept(new, old, &mut out);
        let (at, before) = (
            Cursor::root(new).child("spec"),
            Cursor::root(old).child("spec"),
        );
        let balancers = [&at, &before]
            .iter()
            .all(|spec| spec.text("type") == "LoadBalancer");
        if balancers && at.raw("loadBalancerClass") != before.raw("loadBalancerClass") {
            out.push(FieldError::invalid(
                &at.at("loadBalancerClass"),
                at.raw("loadBalancerClass").clone(),
                SET_ONCE,
            ));
        }
        // One that lacks its port, from before they were given out, gets it.
        if needs_health_check(new)
            && needs_health_check(old)
            && before.number("healthCheckNodePort") != 0
            && at.number("healthCheckNodePort") != before.number("healthCheckNodePort")
        {
            out.push(FieldError::forbidden(
                &at.at("healthCheckNodePort"),
                IMMUTABLE,
            ));
        }
        out
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of(new)
    }

    fn status_warnings(&self, new: &Value) -> Vec<String> {
        validation::balancer_warnings(new)
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        balancer_status(new, &mut out);
        out
    }
}

fn set_when_empty(value: &mut Value, name: &str, text: &str) {
    if object::text(value, &[name]).is_empty() {
        fields(value).insert(name.to_owned(), text.into());
    }
}

fn ports_defaults(spec: &mut Value) {
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else {
        return;
    };
    for port in ports {
        set_when_empty(port, "protocol", "TCP");
        let unset = match port.get("targetPort") {
            None | Some(Value::Null) => true,
            Some(Value::String(name)) => name.is_empty(),
            Some(number) => number.as_i64() == Some(0),
        };
        if unset {
            let number = port.get("port").cloned().unwrap_or_else(|| 0.into());
            fields(port).insert("targetPort".to_owned(), number);
        }
    }
}

/// Old clients know only the single address; the list follows what they did to it.
fn normalize_cluster_ips(new: &mut Value, old: &Value) {
    let before = Cursor::root(old).child("spec");
    let old_single = before.text("clusterIP");
    let old_list = before.list("clusterIPs");
    let spec = child(new, "spec");
    let single = object::text(spec, &["clusterIP"]).to_owned();
    let list = object::list(spec, &["clusterIPs"]).to_vec();
    let replaced = if !old_list.is_empty() && list.is_empty() && old_single == single {
        Some(old_list.to_vec())
    } else if old_single != single && list == old_list {
        Some(if single.is_empty() {
            Vec::new()
        } else {
            vec![single.into()]
        })
    } else {
        None
    };
    if let Some(list) = replaced {
        object::set_or_remove(
            fields(spec),
            "clusterIPs",
            (!list.is_empty()).then_some(list.into()),
        );
    }
}

/// What was given out stays when an update leaves it empty.
fn keep_allocated(new: &mut Value, old: &Value) {
    let before = Cursor::root(old).child("spec");
    let cluster = needs_cluster_ip(new) && needs_cluster_ip(old);
    let node_ports = needs_node_port(new) && needs_node_port(old);
    let health = needs_health_check(new) && needs_health_check(old);
    let spec = child(new, "spec");
    if cluster {
        set_when_empty(spec, "clusterIP", before.text("clusterIP"));
        if object::list(spec, &["clusterIPs"]).is_empty() {
            let list = before.raw("clusterIPs").clone();
            let list = (!list.is_null()).then_some(list);
            object::set_or_remove(fields(spec), "clusterIPs", list);
        }
        if object::text(spec, &["clusterIP"]).is_empty() {
            fields(spec).remove("clusterIP");
        }
    }
    if node_ports {
        keep_node_ports(spec, &before);
    }
    if health && object::integer(spec, &["healthCheckNodePort"]).unwrap_or(0) == 0 {
        let port = before.number("healthCheckNodePort");
        if port != 0 {
            fields(spec).insert("healthCheckNodePort".to_owned(), port.into());
        }
    }
}

fn keep_node_ports(spec: &mut Value, before: &Cursor<'_>) {
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else {
        return;
    };
    // A number may be in two ports of different protocols; one that the update names stays where
    // it names it.
    let named: BTreeSet<i64> = ports.iter().map(node_port).collect();
    for port in ports.iter_mut().filter(|port| node_port(port) == 0) {
        let name = object::text(port, &["name"]);
        let kept = before
            .items("ports")
            .find(|old| old.text("name") == name)
            .map_or(0, |old| old.number("nodePort"));
        if kept != 0 && !named.contains(&kept) {
            fields(port).insert("nodePort".to_owned(), kept.into());
        }
    }
}

/// The node port of a port; zero where it has none.
fn node_port(port: &Value) -> i64 {
    object::integer(port, &["nodePort"]).unwrap_or(0)
}

/// Clears what the new type can't have, when the update did not touch it.
fn drop_for_type(new: &mut Value, old: &Value) {
    let before = Cursor::root(old).child("spec");
    let (cluster, node_ports, health) = (
        needs_cluster_ip(old) && !needs_cluster_ip(new),
        needs_node_port(old) && !needs_node_port(new),
        needs_health_check(old) && !needs_health_check(new),
    );
    let was_balancer = before.text("type") == "LoadBalancer";
    let spec = child(new, "spec");
    let is_balancer = object::text(spec, &["type"]) == "LoadBalancer";
    let drop_same = |spec: &mut Value, names: &[&str]| {
        for name in names {
            if spec.get(name) == before.value.get(name) {
                fields(spec).remove(*name);
            }
        }
    };
    if cluster {
        drop_same(
            spec,
            &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
        );
    }
    if node_ports {
        let olds: Vec<Value> = before.list("ports").to_vec();
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for (index, port) in ports.into_iter().flatten().enumerate() {
            let same = olds
                .get(index)
                .is_some_and(|old| old.get("nodePort") == port.get("nodePort"));
            if same {
                fields(port).remove("nodePort");
            }
        }
    }
    if health {
        drop_same(spec, &["healthCheckNodePort"]);
    }
    if was_balancer && !is_balancer {
        drop_same(
            spec,
            &["allocateLoadBalancerNodePorts", "loadBalancerClass"],
        );
    }
    if externally_accessible(&before) && !externally_accessible(&Cursor::root(spec)) {
        drop_same(spec, &["externalTrafficPolicy"]);
    }
}

fn validate(object: &Value, out: &mut ErrorList) {
    let spec = Cursor::root(object).child("spec");
    let kind = spec.text("type");
    let headless = is_headless(object);
    if spec.list("ports").is_empty() && !headless && kind != "ExternalName" {
        out.push(FieldError::required(&spec.at("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => out.push(FieldError::invalid(
            &spec.at("clusterIPs").index(0),
            "None",
            &format!("may not be set to 'None' for {kind} services"),
        )),
        "ExternalName" => external_name(&spec, out),
        _ => {}
    }
    let mut names = BTreeSet::new();
    let many = spec.list("ports").len() > 1;
    for port in spec.items("ports") {
        service_port(&port, many, &mut names, out);
    }
    validation::labels(spec.raw("selector"), &spec.at("selector"), out);
    affinity(&spec, out);
    families::validate(object, out);
    for ip in spec.items("externalIPs") {
        let address = ip.value.as_str().unwrap_or_default();
        let before = out.len();
        validation::legacy_ip(address, &ip.path, out);
        if out.len() == before {
            validation::non_special_ip(address, &ip.path, out);
        }
    }
    validation::required_one_of(&spec, "type", &TYPES, out);
    for port in spec.items("ports") {
        if kind == "ClusterIP" && port.number("nodePort") != 0 {
            out.push(FieldError::forbidden(
                &port.at("nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            ));
        }
    }
    duplicates(&spec, out);
    balancer_fields(&spec, out);
    traffic(object, &spec, out);
}

fn external_name(spec: &Cursor<'_>, out: &mut ErrorList) {
    for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if spec.has(name) {
            out.push(FieldError::forbidden(
                &spec.at(name),
                "may not be set for ExternalName services",
            ));
        }
    }
    let name = spec.text("externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        out.push(FieldError::required(&spec.at("externalName"), ""));
    } else {
        validation::dns_subdomain(name, &spec.at("externalName"), out);
    }
}

fn service_port<'a>(
    port: &Cursor<'a>,
    need_name: bool,
    names: &mut BTreeSet<&'a str>,
    out: &mut ErrorList,
) {
    let name = port.text("name");
    if name.is_empty() {
        if need_name {
            out.push(FieldError::required(&port.at("name"), ""));
        }
    } else {
        validation::dns_label(name, &port.at("name"), out);
        if !names.insert(name) {
            out.push(FieldError::duplicate(&port.at("name"), name));
        }
    }
    validation::port_number(port.number("port"), &port.at("port"), out);
    validation::required_one_of(port, "protocol", &PROTOCOLS, out);
    validation::port_number_or_name(port.raw("targetPort"), &port.at("targetPort"), out);
    if port.has("appProtocol") {
        validation::qualified_name(port.text("appProtocol"), &port.at("appProtocol"), out);
    }
}

fn affinity(spec: &Cursor<'_>, out: &mut ErrorList) {
    validation::required_one_of(spec, "sessionAffinity", &["ClientIP", "None"], out);
    let config = spec.child("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "ClientIP" => {
            let at = config.child("clientIP");
            let seconds = at.number("timeoutSeconds");
            if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) {
                out.push(FieldError::invalid(
                    &at.at("timeoutSeconds"),
                    seconds,
                    &format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"),
                ));
            }
        }
        "None" if !config.value.is_null() => out.push(FieldError::forbidden(
            &config.path,
            "must not be set when session affinity is None",
        )),
        _ => {}
    }
}

fn duplicates(spec: &Cursor<'_>, out: &mut ErrorList) {
    let mut node_ports = BTreeSet::new();
    for port in spec.items("ports") {
        let number = port.number("nodePort");
        if number != 0 && !node_ports.insert((port.text("protocol"), number)) {
            out.push(FieldError::duplicate(&port.at("nodePort"), number));
        }
    }
    let mut ports = BTreeSet::new();
    for port in spec.items("ports") {
        let number = port.number("port");
        if !ports.insert((port.text("protocol"), number)) {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\
                 \"TargetPort\":0,\"NodePort\":0}}",
                port.raw("protocol")
            );
            out.push(FieldError::duplicate_shown(&port.path, &shown));
        }
    }
}

fn balancer_fields(spec: &Cursor<'_>, out: &mut ErrorList) {
    let balancer = spec.text("type") == "LoadBalancer";
    if !spec.list("loadBalancerSourceRanges").is_empty() {
        // The reference writes this field with a capital here.
        let path = spec.at("LoadBalancerSourceRanges");
        if !balancer {
            out.push(FieldError::forbidden(&path, ONLY_BALANCERS));
        }
        for (index, range) in spec.texts("loadBalancerSourceRanges").enumerate() {
            validation::legacy_cidr(range.trim(), &path.index(index), out);
        }
    }
    if spec.has("allocateLoadBalancerNodePorts") && !balancer {
        out.push(FieldError::forbidden(
            &spec.at("allocateLoadBalancerNodePorts"),
            ONLY_BALANCERS,
        ));
    }
    if spec.has("loadBalancerClass") {
        let path = spec.at("loadBalancerClass");
        if balancer {
            validation::qualified_name(spec.text("loadBalancerClass"), &path, out);
        } else {
            out.push(FieldError::forbidden(&path, ONLY_BALANCERS));
        }
    }
}

fn traffic(object: &Value, spec: &Cursor<'_>, out: &mut ErrorList) {
    let policies = ["Cluster", "Local"];
    if externally_accessible(spec) {
        validation::required_one_of(spec, "externalTrafficPolicy", &policies, out);
    } else if !spec.text("externalTrafficPolicy").is_empty() {
        out.push(FieldError::invalid(
            &spec.at("externalTrafficPolicy"),
            spec.text("externalTrafficPolicy"),
            "may only be set for externally-accessible services",
        ));
    }
    let health = spec.number("healthCheckNodePort");
    if health != 0 {
        if needs_health_check(object) {
            validation::port_number(health, &spec.at("healthCheckNodePort"), out);
        } else {
            out.push(FieldError::invalid(
                &spec.at("healthCheckNodePort"),
                health,
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is \
                 'Local'",
            ));
        }
    }
    validation::one_of(spec, "internalTrafficPolicy", &policies, out);
    validation::one_of(
        spec,
        "trafficDistribution",
        &["PreferClose", "PreferSameZone", "PreferSameNode"],
        out,
    );
}

fn addresses_kept(new: &Value, old: &Value, out: &mut ErrorList) {
    if !needs_cluster_ip(new) || !needs_cluster_ip(old) {
        return;
    }
    let (at, before) = (
        Cursor::root(new).child("spec"),
        Cursor::root(old).child("spec"),
    );
    let (headless, was_headless) = (is_headless(new), is_headless(old));
    if headless && was_headless {
        return;
    }
    let (list, old_list) = (at.list("clusterIPs"), before.list("clusterIPs"));
    let changed = |index: usize, detail: &str| {
        let path = at.at("clusterIPs").index(index);
        FieldError::invalid(&path, list.to_vec(), detail)
    };
    if list.is_empty() && !old_list.is_empty() {
        out.push(changed(0, "primary clusterIP can not be unset"));
    }
    for (index, (new, old)) in list.iter().zip(old_list).enumerate() {
        if new != old {
            out.push(changed(index, SET_ONCE));
        }
    }
    let released = |names: &str, what: &str, out: &mut ErrorList| {
        let single = at.text("ipFamilyPolicy") == "SingleStack";
        if at.list(names).len() == 1 && before.list(names).len() > 1 && !single {
            out.push(FieldError::invalid(
                &at.at("ipFamilyPolicy"),
                at.raw("ipFamilyPolicy").clone(),
                &format!("must be set to 'SingleStack' when releasing the secondary {what}"),
            ));
        }
    };
    released("clusterIPs", "clusterIP", out);
    if headless != was_headless {
        return;
    }
    let (families, old_families) = (at.list("ipFamilies"), before.list("ipFamilies"));
    if let (Some(new), Some(old)) = (families.first(), old_families.first())
        && new != old
    {
        out.push(FieldError::invalid(
            &at.at("ipFamilies").index(0),
            families.to_vec(),
            SET_ONCE,
        ));
    }
    released("ipFamilies", "ipFamily", out);
}

fn balancer_status(new: &Value, out: &mut ErrorList) {
    let at = Cursor::root(new).child("status").child("loadBalancer");
    let kind = object::text(new, &["spec", "type"]);
    if kind != "LoadBalancer" && !at.list("ingress").is_empty() {
        out.push(FieldError::forbidden(
            &at.at("ingress"),
            "may only be used when `spec.type` is 'LoadBalancer'",
        ));
        return;
    }
    for ingress in at.items("ingress") {
        let ip = ingress.text("ip");
        if !ip.is_empty() {
            validation::legacy_ip(ip, &ingress.at("ip"), out);
        }
        match (ip.is_empty(), ingress.has("ipMode")) {
            (false, false) => out.push(FieldError::required(
                &ingress.at("ipMode"),
                "must be specified when `ip` is set",
            )),
            (true, true) => out.push(FieldError::forbidden(
                &ingress.at("ipMode"),
                "may not be specified when `ip` is not set",
            )),
            _ => validation::one_of(&ingress, "ipMode", &["Proxy", "VIP"], out),
        }
        let host = ingress.text("hostname");
        if !host.is_empty() {
            validation::dns_subdomain(host, &ingress.at("hostname"), out);
            if validation::parse_ip_sloppy(host).is_some() {
                out.push(FieldError::invalid(
                    &ingress.at("hostname"),
                    host,
                    "must be a DNS name, not an IP address",
                ));
            }
        }
    }
}
