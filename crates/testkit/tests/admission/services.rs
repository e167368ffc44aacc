//! What services are given, and what of it nobody may say otherwise.

use std::time::Duration;

use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Cluster};
use serde_json::{Value, json};

use super::MERGE_PATCH;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": name},
        "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    service
}

#[tokio::test]
async fn the_door_stays_a_service() {
    let cluster = Cluster::door().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let address = "192.0.2.1".parse().unwrap();
    cluster.the_door().publish(address, 7443).await.unwrap();
    let paths = [
        format!("{SERVICES}/kubernetes"),
        "/api/v1/namespaces/default/endpoints/kubernetes".to_owned(),
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes".to_owned(),
    ];
    let mut before = Vec::new();
    for path in &paths {
        before.push(admin.get(path).await.expect(200).body);
        admin.delete(path, None).await.expect(200);
    }
    assert_eq!(before[0]["spec"]["ports"][0]["targetPort"], 6443);
    assert_eq!(before[1]["subsets"][0]["ports"][0]["port"], 7443);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    for (path, before) in paths.iter().zip(before) {
        let back = |now: &Value| {
            ["spec", "subsets", "endpoints"]
                .iter()
                .all(|part| now.get(part) == before.get(part))
        };
        admin.until(path, "what the door is comes back", back).await;
    }
}

#[tokio::test]
async fn addresses_are_of_the_network_and_for_life() {
    let cluster = Cluster::door().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    for ip in ["10.96.0.0", "10.96.255.255", "1.1.1.1"] {
        let asked = service("a", json!({"clusterIP": ip}));
        let refused = admin.post(SERVICES, &asked).await.expect(422);
        assert_eq!(
            refused.message(),
            format!(
                "Service \"a\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to \
                 allocate IP {ip}: the provided network does not match the current range"
            )
        );
    }
    let made = admin.post(SERVICES, &service("a", json!({}))).await;
    let ip = made.expect(201).body["spec"]["clusterIP"].clone();
    let path = format!("{SERVICES}/a");
    let patch = async |spec: Value| {
        let patch = json!({"spec": spec});
        admin.patch(&path, MERGE_PATCH, &patch).await
    };
    for (spec, said) in [
        (
            json!({"clusterIPs": ["1.1.1.1"]}),
            "spec.clusterIPs: Invalid value: [\"1.1.1.1\"]: first value must match `clusterIP`",
        ),
        (
            json!({"clusterIP": "1.1.1.1"}),
            "spec.clusterIPs[0]: Invalid value: [\"1.1.1.1\"]: may not change once set",
        ),
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not \
             configured for dual-stack services",
        ),
    ] {
        let refused = patch(spec).await.expect(422);
        assert_eq!(
            refused.message(),
            format!("Service \"a\" is invalid: {said}")
        );
    }
    for spec in [
        json!({"clusterIP": ""}),
        json!({"clusterIPs": null}),
        json!({"ipFamilies": null, "ipFamilyPolicy": "PreferDualStack"}),
    ] {
        let kept = patch(spec).await.expect(200);
        assert_eq!(kept.body["spec"]["clusterIPs"], json!([ip]));
        assert_eq!(kept.body["spec"]["ipFamilies"], json!(["IPv4"]));
    }
}

#[tokio::test]
async fn ports_of_nodes_are_given_out_once() {
    let cluster = Cluster::door().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "allocateLoadBalancerNodePorts": false});
    let made = admin.post(SERVICES, &service("a", local.clone())).await;
    let port = made.expect(201).body["spec"]["healthCheckNodePort"].clone();
    assert!(port.as_i64().is_some_and(|port| port >= 30_000), "{port}");
    let mut asks = service("b", local);
    asks["spec"]["healthCheckNodePort"] = port.clone();
    let refused = admin.post(SERVICES, &asks).await.expect(500);
    let said = "provided port is already allocated";
    assert!(refused.message().ends_with(said), "{}", refused.message());
    let asks = json!({"type": "NodePort",
        "ports": [{"port": 80, "protocol": "UDP", "nodePort": port}]});
    let refused = admin.post(SERVICES, &service("b", asks.clone())).await;
    let refused = refused.expect(422);
    assert!(refused.message().ends_with(said), "{}", refused.message());
    // What is given up is free.
    let patch = json!({"spec": {"externalTrafficPolicy": "Cluster"}});
    let path = format!("{SERVICES}/a");
    let given_up = admin.patch(&path, MERGE_PATCH, &patch).await.expect(200);
    assert!(given_up.body["spec"].get("healthCheckNodePort").is_none());
    admin.post(SERVICES, &service("b", asks)).await.expect(201);
    // A trial takes nothing from the change that follows it.
    let patch = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]}});
    for path in [format!("{path}?dryRun=All"), path] {
        admin.patch(&path, MERGE_PATCH, &patch).await.expect(200);
    }
}

#[tokio::test]
async fn who_writes_a_service_is_warned() {
    let cluster = Cluster::door().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let spec = json!({"externalIPs": ["192.0.2.7"]});
    let made = admin.post(SERVICES, &service("a", spec)).await.expect(201);
    let said = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
    assert!(made.warnings[0].contains(said), "{:?}", made.warnings);
}
