//! Objects as the API gives them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn read(spec: Value, status: Value) -> Service {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "web"}, "spec": spec, "status": status,
    });
    service(&serde_json::from_value(object).unwrap()).unwrap()
}

#[test]
fn a_service_of_each_type() {
    let plain = read(
        json!({"clusterIP": "10.96.1.1", "ports": [{"port": 80, "nodePort": 30080}]}),
        json!({}),
    );
    assert_eq!(plain.key.to_string(), "shop/web");
    assert_eq!(plain.cluster_ips, ["10.96.1.1".parse::<IpAddr>().unwrap()]);
    // A node port counts only where the type has one.
    let port = ServicePort {
        name: "".into(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
    };
    assert_eq!(plain.ports, [port]);

    let headless = read(
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        json!({}),
    );
    assert!(headless.headless && headless.cluster_ips.is_empty());

    let external = read(
        json!({"type": "ExternalName", "externalName": "example.com"}),
        json!({}),
    );
    assert_eq!(external.external_name.as_deref(), Some("example.com"));

    let balancer = read(
        json!({
            "type": "LoadBalancer", "clusterIPs": ["10.96.1.1"], "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Local", "externalIPs": ["198.51.100.1"],
            "sessionAffinity": "ClientIP",
            "loadBalancerSourceRanges": ["192.0.2.0/24", " 2001:db8::/32", "x"],
            "ports": [{"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"}],
        }),
        json!({"loadBalancer": {"ingress": [
            {"ip": "198.51.100.7"}, {"ip": "198.51.100.8", "ipMode": "Proxy"}, {"hostname": "x"},
        ]}}),
    );
    assert_eq!(
        balancer.load_balancer_ips,
        ["198.51.100.7".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(balancer.external_ips.len(), 1);
    assert_eq!(balancer.source_ranges.len(), 2);
    assert_eq!(balancer.affinity, Some(Duration::from_secs(10_800)));
    assert!(balancer.external_local && balancer.internal_local);
    assert_eq!(
        (balancer.ports[0].protocol, balancer.ports[0].node_port),
        (Protocol::Udp, Some(30053))
    );
}

#[test]
fn a_service_of_another_proxy_is_left_alone() {
    let object = json!({
        "metadata": {"name": "web", "labels": {"service.kubernetes.io/service-proxy-name": "x"}},
        "spec": {"clusterIP": "10.96.1.1"},
    });
    assert_eq!(service(&serde_json::from_value(object).unwrap()), None);
}

#[test]
fn endpoints_without_conditions_are_ready() {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "web-x",
                     "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "any"}],
        "endpoints": [
            {"addresses": ["10.244.0.2"]},
            {"addresses": ["10.244.0.3"], "hostname": "h", "nodeName": "n",
             "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.244.0.4"], "conditions": {"ready": false}},
            {"addresses": []},
        ],
    });
    let read = slice(&serde_json::from_value(object).unwrap()).unwrap();
    assert_eq!(read.service.to_string(), "shop/web");
    assert_eq!(read.ports.len(), 1);
    let state: Vec<_> = read
        .endpoints
        .iter()
        .map(|e| (e.ready, e.serving, e.terminating))
        .collect();
    let expected = [
        (true, true, false),
        (false, true, true),
        (false, false, false),
    ];
    assert_eq!(state, expected);
}

#[test]
fn who_announces_what_is_read_for_addresses_that_the_service_has() {
    let of = |text: &str| {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "web",
                "annotations": {"evenkeel.io/announced-by": text}},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.1.1", "healthCheckNodePort": 30100},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7", "ipMode": "VIP"}]}},
        });
        service(&serde_json::from_value(object).unwrap()).unwrap()
    };
    let found = of("192.0.2.7=node-1@eth0@eth1,192.0.2.8=node-2");
    assert_eq!(found.health_port, Some(30100));
    let [one] = &found.announced[..] else {
        panic!("{:?}", found.announced);
    };
    assert_eq!(one.node, "node-1");
    assert_eq!(
        one.interfaces,
        ["eth0".to_owned(), "eth1".to_owned()].into()
    );
    assert_eq!(of("192.0.2.7=node-1").announced[0].interfaces.len(), 0);
    for nothing in ["", "192.0.2.7", "192.0.2.7=", "x=node-1", "=,,"] {
        assert_eq!(of(nothing).announced, [], "{nothing}");
    }
}
