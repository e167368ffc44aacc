//! From specification to runtime configuration: tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_node::pod::model::PodModel;
use evenkeel_node::spec::dns::{DnsFacts, parse_resolv_conf, resolve};
use evenkeel_node::spec::env::{Sources, environment};
use evenkeel_node::spec::fields::NodeFacts;
use evenkeel_node::spec::hosts::{host_name, managed_hosts, uts_name};
use evenkeel_node::spec::resources::{oom_score_adj, pod_resources, qos_class, quota, shares};
use evenkeel_node::spec::security::security;
use evenkeel_node::spec::service_env::{ServiceFacts, add};
use evenkeel_runtime::ImageStatus;
use serde_json::{Value, json};

fn model(spec: Value) -> PodModel {
    let pod = json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u1",
                      "labels": { "app": "web" }, "annotations": { "note": "a \"b\"" } },
        "spec": spec,
    });
    PodModel::new(Arc::new(serde_json::from_value(pod).expect("a pod")))
}

#[test]
fn environment_in_kubelets_order_and_words() {
    let pod = model(json!({ "serviceAccountName": "sa", "containers": [{
        "name": "app",
        "resources": { "limits": { "cpu": "1500m", "memory": "64Mi" } },
        "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "map" } },
                    { "secretRef": { "name": "none", "optional": true } }],
        "env": [
            { "name": "A", "value": "1" },
            { "name": "B", "value": "$(A)-$(P_x)-$(NOPE)-$$(A)-$(KUBERNETES_SERVICE_HOST)" },
            { "name": "LABEL", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
            { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            { "name": "SA", "valueFrom": { "fieldRef": { "fieldPath": "spec.serviceAccountName" } } },
            { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
            { "name": "MEM", "valueFrom": { "resourceFieldRef":
                { "resource": "limits.memory", "divisor": "1Mi" } } },
            { "name": "REQ", "valueFrom": { "resourceFieldRef": { "resource": "requests.cpu" } } },
            { "name": "OPT", "valueFrom": { "secretKeyRef":
                { "name": "none", "key": "k", "optional": true } } },
        ] }] }));
    let map = serde_json::from_value(json!({ "data": { "x": "y" } })).expect("a config map");
    let sources = Sources {
        config_maps: BTreeMap::from([("map".to_owned(), Some(map))]),
        secrets: BTreeMap::from([("none".to_owned(), None)]),
    };
    let mut services = BTreeMap::new();
    let kubernetes = ServiceFacts {
        name: "kubernetes".to_owned(),
        cluster_ip: "10.96.0.1".to_owned(),
        ports: vec![("https".to_owned(), 443, "TCP".to_owned())],
    };
    add(&mut services, &kubernetes);
    let facts = NodeFacts {
        pod_ips: vec!["10.0.0.5".to_owned()],
        ..NodeFacts::default()
    };
    let container = &pod.container("app").expect("there").spec;
    let env: BTreeMap<_, _> = environment(&pod, container, &facts, &sources, &services)
        .expect("good")
        .into_iter()
        .collect();
    for (name, value) in [
        ("P_x", "y"),
        ("B", "1-y-$(NOPE)-$(A)-10.96.0.1"),
        ("LABEL", "web"),
        ("IP", "10.0.0.5"),
        ("SA", "sa"),
        ("CPU", "2"),
        ("MEM", "64"),
        ("REQ", "0"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
        ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
        ("KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!env.contains_key("OPT"));
}

#[test]
fn names_and_hosts() {
    let plain = model(json!({ "containers": [] }));
    assert_eq!(
        host_name(&plain, "cluster.local"),
        ("web".to_owned(), String::new())
    );
    let named = model(json!({ "containers": [], "hostname": "h", "subdomain": "s",
                              "setHostnameAsFQDN": true }));
    let (name, domain) = host_name(&named, "cluster.local");
    assert_eq!(
        (name.as_str(), domain.as_str()),
        ("h", "s.shop.svc.cluster.local")
    );
    assert_eq!(
        uts_name(&named, "cluster.local").expect("short"),
        "h.s.shop.svc.cluster.local"
    );
    let aliases = serde_json::from_value(json!([{ "ip": "1.2.3.4", "hostnames": ["a", "b"] }]));
    let text = managed_hosts(
        &["10.0.0.5".to_owned()],
        &name,
        &domain,
        &aliases.unwrap_or(vec![]),
    );
    assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
    assert!(text.ends_with(
        "10.0.0.5\th.s.shop.svc.cluster.local\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
    ));
}

#[test]
fn resolv_conf_by_policy() {
    let facts = DnsFacts {
        cluster_dns: vec!["10.96.0.10".parse().expect("an address")],
        cluster_domain: "cluster.local".to_owned(),
        host: parse_resolv_conf("nameserver 9.9.9.9 # x\nsearch corp.example\noptions timeout:1"),
    };
    let of = |spec: Value| resolve(&model(spec), &facts);
    let cluster = of(json!({ "containers": [], "dnsConfig": {
        "options": [{ "name": "ndots", "value": "2" }, { "name": "use-vc" }] } }));
    assert_eq!(cluster.servers, ["10.96.0.10"]);
    assert_eq!(
        cluster.searches,
        [
            "shop.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            "corp.example"
        ]
    );
    assert_eq!(cluster.options, ["ndots:2", "use-vc"]);
    let host = of(json!({ "containers": [], "hostNetwork": true }));
    assert_eq!(host.servers, ["9.9.9.9"]);
    let both = of(json!({ "containers": [], "hostNetwork": true,
                          "dnsPolicy": "ClusterFirstWithHostNet" }));
    assert_eq!(both.servers, ["10.96.0.10"]);
    let none = of(json!({ "containers": [], "dnsPolicy": "None",
                          "dnsConfig": { "nameservers": ["1.1.1.1"] } }));
    assert_eq!(
        (none.servers, none.searches),
        (vec!["1.1.1.1".to_owned()], vec![])
    );
}

#[test]
fn limits_as_kubelet_computes_them() {
    assert_eq!((shares(0), shares(250), shares(1000)), (2, 256, 1024));
    assert_eq!((quota(500), quota(1)), (50_000, 1_000));
    let with = |resources: Value| {
        model(json!({ "containers": [{ "name": "app", "resources": resources }] }))
    };
    let adj =
        |pod: &PodModel| oom_score_adj(pod, &pod.container("app").expect("there").spec, 4 << 30);
    let best = with(json!({}));
    assert_eq!((qos_class(&best), adj(&best)), ("BestEffort", 1000));
    assert_eq!(pod_resources(&best).cpu_shares, Some(2));
    let exact = with(json!({ "limits": { "cpu": "1", "memory": "1Gi" } }));
    assert_eq!((qos_class(&exact), adj(&exact)), ("Guaranteed", -997));
    assert_eq!(pod_resources(&exact).memory_limit, Some(1 << 30));
    let burst = with(json!({ "requests": { "memory": "1Gi" } }));
    assert_eq!((qos_class(&burst), adj(&burst)), ("Burstable", 750));
    assert_eq!(pod_resources(&burst).memory_limit, None);
}

#[test]
fn root_is_refused_where_it_must_not_be() {
    let pod = model(
        json!({ "securityContext": { "runAsNonRoot": true, "fsGroup": 7 },
        "containers": [{ "name": "app" }, { "name": "zero", "securityContext": { "runAsUser": 0 } },
                       { "name": "ok", "securityContext": { "runAsUser": 9,
                            "capabilities": { "drop": ["ALL"], "add": ["CAP_NET_RAW"] } } }] }),
    );
    let check = |name: &str, user: &str| {
        let image = ImageStatus {
            user: user.to_owned(),
            ..ImageStatus::default()
        };
        let container = &pod.container(name).expect("there").spec;
        security(&pod, container, &image, "/seccomp".as_ref()).map_err(|error| error.to_string())
    };
    for (name, user, wanted) in [
        (
            "app",
            "",
            "container has runAsNonRoot and image will run as root (pod: \"web_shop(u1)\", container: app)",
        ),
        (
            "app",
            "nobody",
            "container has runAsNonRoot and image has non-numeric user (nobody), cannot verify user is non-root (pod: \"web_shop(u1)\", container: app)",
        ),
        (
            "zero",
            "5",
            "container's runAsUser breaks non-root policy (pod: \"web_shop(u1)\", container: zero)",
        ),
    ] {
        assert_eq!(check(name, user).expect_err(name), wanted);
    }
    assert!(check("app", "5:5").is_ok());
    let given = check("ok", "").expect("it may run");
    assert_eq!(
        (given.run_as_user, given.supplemental_groups),
        (Some(9), vec![7])
    );
    assert_eq!(
        (given.drop_capabilities, given.add_capabilities),
        (vec!["ALL".to_owned()], vec!["NET_RAW".to_owned()])
    );
}
