//! The networks that services get addresses of, as the ServiceCIDRs name them, and the IPAddress that
//! says who has one.
//!
//! Services have IPv4 addresses only, so networks of the other family are nobody's here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use evenkeel_api::object;
use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::cache::KindCache;
use crate::registry::Registry;

/// The group of both kinds.
pub(crate) const GROUP: &str = "networking.k8s.io";
/// Says of an IPAddress whose it is to make and to remove.
pub(crate) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// What it says of those of services.
pub(crate) const ALLOCATOR: &str = "ipallocator.k8s.io";
/// Says of which family an IPAddress is.
pub(crate) const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// `min(max(LEAST, size / STEP), MOST)` addresses at the beginning of a network are for who asks for
/// one (KEP-3070).
const LEAST: u64 = 16;
const MOST: u64 = 256;
const STEP: u64 = 16;

/// Some networks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Ipv4Net>);

impl Ranges {
    /// All that there are.
    pub(crate) fn all(registry: &Registry) -> Self {
        Self::of(&found(registry, "ServiceCIDR"), |_| true)
    }

    /// Those that addresses are given out of now.
    pub(crate) fn ready(registry: &Registry) -> Self {
        Self::of(&found(registry, "ServiceCIDR"), is_ready)
    }

    fn of(cidrs: &[Value], counts: impl Fn(&Value) -> bool) -> Self {
        let cidrs = cidrs.iter().filter(|cidr| counts(cidr));
        Self::named(cidrs.flat_map(|cidr| object::list(cidr, &["spec", "cidrs"])))
    }

    pub(crate) fn named<'v>(texts: impl IntoIterator<Item = &'v Value>) -> Self {
        let mut networks = Vec::new();
        for text in texts.into_iter().filter_map(Value::as_str) {
            if let Ok(network) = text.parse::<Ipv4Net>()
                && !networks.contains(&network.trunc())
            {
                networks.push(network.trunc());
            }
        }
        Self(networks)
    }

    /// Can a service have this address? The first and the last one of a network are nobody's.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        let in_it = |net: &&Ipv4Net| net.contains(&ip) && ip != net.network();
        self.0.iter().filter(in_it).any(|net| ip != net.broadcast())
    }

    /// Any free address: the next network counts when one is full, and within one the part that
    /// nobody asks for comes first.
    pub(crate) fn pick(&self, is_free: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        self.0.iter().find_map(|network| {
            let first = u64::from(u32::from(network.network())) + 1;
            let last = u64::from(u32::from(network.broadcast())).checked_sub(1)?;
            let parted = first + asked_for(*network);
            search(parted, last, &is_free).or_else(|| search(first, parted - 1, &is_free))
        })
    }
}

/// How many addresses of a network are for who asks for one.
fn asked_for(network: Ipv4Net) -> u64 {
    let size = 1_u64 << (32 - network.prefix_len());
    if size <= LEAST {
        return 0;
    }
    (size / STEP).clamp(LEAST, MOST)
}

/// A free address between two, both included, from any of them on.
fn search(first: u64, last: u64, is_free: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let span = last.checked_sub(first)? + 1;
    let start = rand::random_range(0..span);
    (0..span)
        .filter_map(|step| u32::try_from(first + (start + step) % span).ok())
        .map(Ipv4Addr::from)
        .find(|ip| is_free(*ip))
}

/// One that says nothing of itself counts as ready: its controller may not run.
fn is_ready(cidr: &Value) -> bool {
    let ready = ready_condition(cidr);
    object::deletion_timestamp(cidr).is_none()
        && ready.is_none_or(|ready| object::text(ready, &["status"]) == "True")
}

/// The condition `Ready` of a ServiceCIDR.
pub(crate) fn ready_condition(cidr: &Value) -> Option<&Value> {
    let conditions = object::list(cidr, &["status", "conditions"]);
    let mut found = conditions.iter();
    found.find(|condition| object::text(condition, &["type"]) == "Ready")
}

/// The cache of one of the two kinds.
pub(crate) fn cache(registry: &Registry, kind: &str) -> Option<Arc<KindCache>> {
    let row = registry.rows.by_kind(GROUP, "v1", kind)?;
    registry.caches.of(row)
}

fn found(registry: &Registry, kind: &str) -> Vec<Value> {
    let objects = cache(registry, kind).map(|cache| cache.list("", None));
    let objects = objects.unwrap_or_default();
    objects.iter().map(|object| object.value()).collect()
}

/// The family of an address, as objects name it.
pub(crate) fn family(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// The IPAddress of a service.
pub(crate) fn address_of(ip: IpAddr, namespace: &str, service: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "IPAddress",
        "metadata": {"name": ip.to_string(),
            "labels": {FAMILY: family(ip), MANAGED_BY: ALLOCATOR}},
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": service}},
    })
}

/// Namespace and name of the service that an IPAddress belongs to, unless it belongs to something
/// else.
pub(crate) fn service_of(address: &Value) -> Option<(&str, &str)> {
    let parent = object::at(address, &["spec", "parentRef"])?;
    let is_service = object::text(parent, &["group"]).is_empty()
        && object::text(parent, &["resource"]) == "services";
    let place = (
        object::text(parent, &["namespace"]),
        object::text(parent, &["name"]),
    );
    is_service.then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Ranges {
        Ranges::named(&texts.iter().map(|text| json!(text)).collect::<Vec<_>>())
    }

    #[test]
    fn a_part_of_each_network_is_for_who_asks() {
        for (network, kept) in [
            ("10.0.0.0/28", 0),
            ("10.0.0.0/27", 16),
            ("10.0.0.0/24", 16),
            ("10.0.0.0/23", 32),
            ("10.0.0.0/20", 256),
            ("10.0.0.0/12", 256),
        ] {
            assert_eq!(asked_for(network.parse().unwrap()), kept, "{network}");
        }
        let all = ranges(&["10.0.0.0/24"]);
        let at = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let (upper, lower) = (at("10.0.0.17"), at("10.0.0.16"));
        for _ in 0..64 {
            assert!(all.pick(|_| true).unwrap() >= upper);
        }
        let given = all.pick(|ip| ip < upper).unwrap();
        assert!(given <= lower && given > at("10.0.0.0"));
        assert_eq!(all.pick(|_| false), None);
    }

    #[test]
    fn the_ends_of_a_network_are_nobodys_unless_another_has_them() {
        let within = |all: &Ranges, ip: &str| all.contains(ip.parse().unwrap());
        let one = ranges(&["10.0.0.0/29", "fd00::/112"]);
        for (ip, has) in [
            ("10.0.0.0", false),
            ("10.0.0.1", true),
            ("10.0.0.6", true),
            ("10.0.0.7", false),
            ("10.0.0.8", false),
            ("fd00::1", false),
        ] {
            assert_eq!(within(&one, ip), has, "{ip}");
        }
        assert!(within(&ranges(&["10.0.0.0/29", "10.0.0.0/24"]), "10.0.0.7"));
        // Networks without any address between their ends.
        for none in [
            "10.0.0.0/32",
            "10.0.0.0/31",
            "255.255.255.255/32",
            "0.0.0.0/32",
        ] {
            assert_eq!(ranges(&[none]).pick(|_| true), None, "{none}");
        }
        assert!(ranges(&["0.0.0.0/0"]).pick(|_| true).is_some());
    }

    #[test]
    fn the_next_network_gives_when_one_is_full() {
        let all = ranges(&["10.0.0.0/30", "10.0.1.0/30"]);
        let second = "10.0.1.0/30".parse::<Ipv4Net>().unwrap();
        let given = all.pick(|ip| second.contains(&ip)).unwrap();
        assert!(second.contains(&given));
    }

    #[test]
    fn what_is_not_ready_or_goes_gives_nothing() {
        let cidr = |status: Option<&str>, deleted: bool| {
            let mut cidr = json!({"metadata": {"name": "a"}, "spec": {"cidrs": ["10.0.0.0/24"]}});
            if let Some(status) = status {
                cidr["status"] = json!({"conditions": [{"type": "Ready", "status": status}]});
            }
            if deleted {
                cidr["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            cidr
        };
        for (status, deleted, gives) in [
            (None, false, true),
            (Some("True"), false, true),
            (Some("False"), false, false),
            (Some("Unknown"), false, false),
            (Some("True"), true, false),
            (None, true, false),
        ] {
            let found = Ranges::of(&[cidr(status, deleted)], is_ready);
            assert_eq!(found != Ranges::default(), gives, "{status:?} {deleted}");
        }
    }

    #[test]
    fn an_address_names_its_service() {
        let made = address_of("10.0.0.1".parse().unwrap(), "shop", "web");
        assert_eq!(service_of(&made), Some(("shop", "web")));
        assert_eq!(made["metadata"]["labels"][FAMILY], "IPv4");
        for (part, other) in [("group", "apps"), ("resource", "gateways")] {
            let mut made = made.clone();
            made["spec"]["parentRef"][part] = other.into();
            assert_eq!(service_of(&made), None);
        }
    }
}
