//! Hints of endpoints: the tables of kube-proxy's `topology_test.go`, and what is counted for
//! health checks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;

use super::*;
use crate::service::{ServiceKey, SlicePort};

fn config(zone: Option<&str>) -> TableConfig {
    TableConfig {
        table: "t".into(),
        bridge: "b".into(),
        pod_cidr: "10.244.0.0/24".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
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
    let last = |all: BTreeSet<Target>| all.into_iter().map(|(ip, _)| ip.octets()[3]).collect();
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
