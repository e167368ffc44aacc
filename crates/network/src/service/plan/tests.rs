//! Hints of endpoints: the tables of kube-proxy's `topology_test.go`, and what is counted for
//! health checks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;

use super::*;
use crate::service::{ServiceKey, SlicePort};

fn config(zone: Option<&str>) -> TableConfig {
    TableConfig {
        family: Family::V4,
        table: "t".into(),
        bridge: "b".into(),
        pod_cidr: Some("10.244.0.0/24".parse().unwrap()),
        cluster_cidr: Some("10.244.0.0/16".parse().unwrap()),
        service_cidr: Some("10.96.0.0/12".parse().unwrap()),
        dns_address: None,
        node_name: "node-1".into(),
        zone: zone.map(str::to_owned),
    }
}

/// An endpoint on a node, with hints; `!` before the node: not ready but serving on its way out.
fn endpoint(last: u8, node: &str, zones: &[&str], nodes: &[&str]) -> Endpoint {
    let going = node.starts_with('!');
    let owned = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
    Endpoint {
        address: Ipv4Addr::new(10, 244, 0, last).into(),
        ready: !going,
        serving: true,
        terminating: going,
        hostname: None,
        node: Some(node.trim_start_matches('!').to_owned()),
        for_nodes: owned(nodes),
        for_zones: owned(zones),
    }
}

fn chosen(zone: Option<&str>, endpoints: Vec<Endpoint>) -> (Vec<u8>, Vec<u8>) {
    let port = ServicePort {
        name: String::new(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
    };
    let slice = Slice {
        name: "s".into(),
        service: ServiceKey::new("default", "web"),
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints,
    };
    let found = targets(&config(zone), &[&slice], &port);
    let last = |all: BTreeSet<Target>| {
        all.into_iter()
            .filter_map(|(ip, _)| octets(ip).pop())
            .collect()
    };
    (last(found.cluster), last(found.local))
}

#[test]
fn hints_lead_to_what_is_near_where_they_are_whole() {
    let near = |zone| {
        vec![
            endpoint(1, "node-1", &["a"], &["node-1"]),
            endpoint(2, "node-2", &["a"], &["node-2"]),
            endpoint(3, "node-3", &["b"], &["node-3"]),
        ]
        .into_iter()
        .map(move |mut endpoint: Endpoint| {
            if zone {
                endpoint.for_nodes.clear();
            }
            endpoint
        })
        .collect::<Vec<_>>()
    };
    // Hints for nodes come before those for zones.
    assert_eq!(chosen(Some("a"), near(false)).0, [1]);
    assert_eq!(chosen(Some("a"), near(true)).0, [1, 2]);
    // A zone without endpoints, and a node without a zone, use all.
    assert_eq!(chosen(Some("c"), near(true)).0, [1, 2, 3]);
    assert_eq!(chosen(None, near(true)).0, [1, 2, 3]);
    // One ready endpoint without hints: none count. One that is not ready does not matter.
    let mut half = near(true);
    half[1].for_zones.clear();
    assert_eq!(chosen(Some("a"), half.clone()).0, [1, 2, 3]);
    half[1].ready = false;
    half[1].serving = false;
    assert_eq!(chosen(Some("a"), half).0, [1]);
    // No endpoint on this node: its zone.
    let mut elsewhere = near(false);
    elsewhere.remove(0);
    assert_eq!(chosen(Some("a"), elsewhere).0, [2]);
    // Policy Local does not ask for hints.
    let mut local = near(true);
    local[0].for_zones = vec!["b".to_owned()];
    assert_eq!(chosen(Some("a"), local).1, [1]);
}

#[test]
fn who_is_on_the_way_out_serves_where_nobody_else_does() {
    let going = vec![
        endpoint(1, "!node-1", &[], &[]),
        endpoint(2, "!node-2", &["b"], &[]),
    ];
    assert_eq!(chosen(Some("a"), going.clone()), (vec![1, 2], vec![1]));
    let mut with_one = going;
    with_one.push(endpoint(3, "node-2", &["a"], &[]));
    assert_eq!(chosen(Some("a"), with_one), (vec![3], vec![1]));
}

#[test]
fn only_ready_endpoints_here_count_for_health_checks() {
    let slice = Slice {
        name: "s".into(),
        service: ServiceKey::new("default", "web"),
        ports: Vec::new(),
        endpoints: vec![
            endpoint(1, "node-1", &[], &[]),
            endpoint(2, "!node-1", &[], &[]),
            endpoint(3, "node-2", &[], &[]),
        ],
    };
    // Slices of one service may name an endpoint twice while it moves between them.
    assert_eq!(local_endpoints("node-1", &[&slice, &slice]), 1);
    assert_eq!(local_endpoints("node-3", &[&slice]), 0);
}

/// A service with addresses of both families, outside only for IPv6.
fn dual() -> (Service, Vec<Slice>) {
    let mut service = Service::new(ServiceKey::new("default", "web"));
    service.cluster_ips = vec!["10.96.0.1".parse().unwrap()];
    service.load_balancer_ips = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    service.ports = vec![ServicePort {
        name: String::new(),
        protocol: Protocol::Udp,
        port: 53,
        node_port: Some(30053),
    }];
    let slice = |name: &str, endpoints: Vec<Endpoint>| Slice {
        name: name.into(),
        service: service.key.clone(),
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Udp,
            port: 5353,
        }],
        endpoints,
    };
    let mut six = endpoint(1, "node-1", &["a"], &[]);
    six.address = "2001:db8::1".parse().unwrap();
    let slices = vec![
        slice("four", vec![endpoint(1, "node-1", &[], &[])]),
        slice("six", vec![six]),
    ];
    (service, slices)
}

fn six() -> TableConfig {
    TableConfig {
        family: Family::V6,
        pod_cidr: None,
        cluster_cidr: None,
        service_cidr: None,
        ..config(Some("a"))
    }
}

#[test]
fn an_address_leads_to_endpoints_of_its_own_family() {
    let (service, slices) = dual();
    let slices: Vec<&Slice> = slices.iter().collect();
    let flows = |config: &TableConfig| {
        let flows = plan(config, &service, &slices).udp.into_iter();
        let text = |flow: UdpFlow| {
            let targets: Vec<String> = flow.targets.iter().map(|it| it.0.to_string()).collect();
            let address = flow.address.map_or("node".to_owned(), |it| it.to_string());
            format!("{address} {} -> {}", flow.port, targets.join(","))
        };
        flows.map(text).collect::<Vec<_>>()
    };
    assert_eq!(
        flows(&config(None)),
        [
            "10.96.0.1 53 -> 10.244.0.1",
            "192.0.2.7 53 -> 10.244.0.1",
            "node 30053 -> 10.244.0.1",
        ]
    );
    // Without IPv6 addresses in the cluster the nodes' own have no node ports.
    assert_eq!(flows(&six()), ["2001:db8::7 53 -> 2001:db8::1"]);
    // A hint that one family lacks does not matter to the other.
    let port = &service.ports[0];
    assert_eq!(targets(&six(), &slices, port).cluster.len(), 1);
}

#[test]
fn what_has_no_address_of_the_family_wants_nothing_in_its_table() {
    let (mut service, slices) = dual();
    let slices: Vec<&Slice> = slices.iter().collect();
    service.load_balancer_ips.pop();
    assert_eq!(plan(&six(), &service, &slices), Objects::default());
    assert_ne!(plan(&config(None), &service, &slices), Objects::default());
    // Nor has a headless one, whatever its status says.
    let (mut service, _) = dual();
    service.cluster_ips.clear();
    service.headless = true;
    assert_eq!(plan(&six(), &service, &slices), Objects::default());
}

#[test]
fn addresses_outside_without_endpoints_of_their_family_refuse() {
    let (service, slices) = dual();
    let objects = plan(&six(), &service, &[&slices[0]]);
    let key = ip_key("2001:db8::7".parse().unwrap(), Protocol::Udp, 53);
    let refusal = objects.elements.get(&(NO_ENDPOINT_IPS, key));
    assert_eq!(refusal, Some(&goto(REJECT)));
}

#[test]
fn ranges_of_one_family_admit_nobody_of_the_other() {
    let (mut service, slices) = dual();
    let slices: Vec<&Slice> = slices.iter().collect();
    service.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
    let rules = |config: &TableConfig| {
        let objects = plan(config, &service, &slices);
        objects.chains["firewall-default/web/udp/53"].len()
    };
    // One that admits, and one that drops the rest.
    assert_eq!(rules(&config(None)), 2);
    assert_eq!(rules(&six()), 1);
}
