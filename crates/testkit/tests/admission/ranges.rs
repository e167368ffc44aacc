//! The networks that services get addresses of, and the IPAddress of each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_server::Identity;
use evenkeel_store::{Op, Range, Store, Txn};
use evenkeel_testkit::{ADMIN, Caller, Cluster};
use serde_json::{Value, json};

use super::MERGE_PATCH;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const OUTSIDE: &str = "the provided network does not match the current range";
const TAKEN: &str = "provided IP is already allocated";

fn admin(cluster: &Cluster) -> Caller {
    cluster.caller(Identity::user("admin", &[ADMIN]))
}

fn service(name: &str, ip: Option<&str>) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    if let Some(ip) = ip {
        service["spec"]["clusterIP"] = ip.into();
    }
    service
}

fn cidr(name: &str, network: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"cidrs": [network]}})
}

/// Makes a service, and answers its address.
async fn made(admin: &Caller, name: &str, ip: Option<&str>) -> String {
    let made = admin.post(SERVICES, &service(name, ip)).await.expect(201);
    made.body["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

async fn refused(admin: &Caller, ip: &str, why: &str) {
    let asked = service("refused", Some(ip));
    let refused = admin.post(SERVICES, &asked).await.expect(422);
    assert!(refused.message().ends_with(why), "{}", refused.message());
}

/// Has the door look after its ranges.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

async fn reasons(admin: &Caller) -> Vec<String> {
    let events = admin.get(EVENTS).await.expect(200).body;
    let events = events["items"].as_array().unwrap().iter();
    let reason = |event: &Value| event["reason"].as_str().map(str::to_owned);
    events.filter_map(reason).collect()
}

#[tokio::test]
async fn the_network_of_the_cluster_is_there_and_ready() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let found = admin.get(&format!("{CIDRS}/kubernetes")).await.expect(200);
    assert_eq!(found.body["spec"]["cidrs"], json!(["10.96.0.0/16"]));
    let ready = &found.body["status"]["conditions"][0];
    assert_eq!(
        (&ready["type"], &ready["status"]),
        (&json!("Ready"), &json!("True"))
    );
    assert_eq!(ready["message"], "Kubernetes default Service CIDR is ready");
    let own = admin
        .get(&format!("{ADDRESSES}/10.96.0.1"))
        .await
        .expect(200);
    assert_eq!(own.body["spec"]["parentRef"]["name"], "kubernetes");
    // Another server with another network leaves it and says so.
    let store = Arc::clone(cluster.store()) as Arc<dyn Store>;
    let other = Cluster::door_options(|options| {
        options.store = store;
        options.service_cidr = "10.97.0.0/16".parse().unwrap();
    })
    .await;
    let after = admin.get(&format!("{CIDRS}/kubernetes")).await.expect(200);
    assert_eq!(after.body, found.body);
    let events = admin.get(EVENTS).await.expect(200).body;
    let event = &events["items"][0];
    assert_eq!(event["reason"], "KubernetesDefaultServiceCIDRInconsistent");
    assert_eq!(
        event["message"],
        "The default ServiceCIDR [10.96.0.0/16] does not match the controller flag configurations \
         [10.97.0.0/16]"
    );
    drop(other);
    // It comes back.
    let deleted = admin.delete(&format!("{CIDRS}/kubernetes"), None).await;
    deleted.expect(200);
    pass(Duration::from_secs(10)).await;
    let back = |now: &Value| now["status"]["conditions"][0]["status"] == "True";
    let path = format!("{CIDRS}/kubernetes");
    admin.until(&path, "it comes back ready", back).await;
}

#[tokio::test]
async fn an_address_comes_and_goes_with_its_service() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let dry = format!("{SERVICES}?dryRun=All");
    let tried = admin.post(&dry, &service("a", Some("10.96.0.9"))).await;
    tried.expect(201);
    let path = format!("{ADDRESSES}/10.96.0.9");
    admin.get(&path).await.expect(404);
    let service_path = format!("{SERVICES}/a");
    let made = admin.post(SERVICES, &service("a", Some("10.96.0.9"))).await;
    let made = made.expect(201);
    let found = admin.get(&path).await.expect(200);
    assert_eq!(
        found.revision(),
        made.revision(),
        "they are written together"
    );
    assert_eq!(
        found.body["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    assert_eq!(
        found.body["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "a"})
    );
    assert!(found.body["metadata"]["uid"].is_string());
    // A change that leaves the address leaves the object.
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let changed = admin.patch(&service_path, MERGE_PATCH, &labels).await;
    changed.expect(200);
    assert_eq!(admin.get(&path).await.body, found.body);
    let external = json!({"spec": {"type": "ExternalName", "externalName": "a.example.com",
        "clusterIP": null, "clusterIPs": null}});
    let changed = admin.patch(&service_path, MERGE_PATCH, &external).await;
    changed.expect(200);
    admin.get(&path).await.expect(404);
    let back = json!({"spec": {"type": "ClusterIP", "externalName": null}});
    let back = admin.patch(&service_path, MERGE_PATCH, &back).await;
    let ip = back.expect(200).body["spec"]["clusterIP"].clone();
    let path = format!("{ADDRESSES}/{}", ip.as_str().unwrap());
    let mut watch = admin
        .watch(&format!(
            "{ADDRESSES}?watch=1&fieldSelector=metadata.name%3D{}",
            ip.as_str().unwrap()
        ))
        .await;
    assert_eq!(watch.event().await.0, "ADDED");
    admin.delete(&service_path, None).await.expect(200);
    assert_eq!(watch.event().await.0, "DELETED");
    admin.get(&path).await.expect(404);
}

#[tokio::test]
async fn an_address_of_somebody_else_is_taken() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let gateway = json!({"metadata": {"name": "10.96.7.7"}, "spec": {"parentRef": {
        "group": "gateway.networking.k8s.io", "resource": "gateways", "name": "g"}}});
    admin.post(ADDRESSES, &gateway).await.expect(201);
    refused(&admin, "10.96.7.7", TAKEN).await;
    let path = format!("{ADDRESSES}/10.96.7.7");
    admin.delete(&path, None).await.expect(200);
    made(&admin, "a", Some("10.96.7.7")).await;
    let again = admin.post(ADDRESSES, &gateway).await;
    again.expect(409);
}

#[tokio::test]
async fn services_get_addresses_of_all_ranges_that_are_ready() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    refused(&admin, "10.99.0.5", OUTSIDE).await;
    admin
        .post(CIDRS, &cidr("more", "10.99.0.0/29"))
        .await
        .expect(201);
    for end in ["10.99.0.0", "10.99.0.7"] {
        refused(&admin, end, OUTSIDE).await;
    }
    made(&admin, "asked", Some("10.99.0.5")).await;
    refused(&admin, "10.99.0.5", TAKEN).await;

    // The first range gives none any more: the other one does, until it is full.
    let ready = |status: &str| {
        json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": "Test",
            "message": "a test", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
    };
    let status = format!("{CIDRS}/kubernetes/status");
    let patched = admin.patch(&status, MERGE_PATCH, &ready("False")).await;
    patched.expect(200);
    refused(&admin, "10.96.0.9", OUTSIDE).await;
    let mut given = BTreeSet::from(["10.99.0.5".to_owned()]);
    for number in 0..5 {
        given.insert(made(&admin, &format!("any-{number}"), None).await);
    }
    let all = (1..=6).map(|last| format!("10.99.0.{last}"));
    assert_eq!(given, all.collect());
    let full = admin
        .post(SERVICES, &service("late", None))
        .await
        .expect(500);
    assert_eq!(
        full.message(),
        "Internal error occurred: failed to allocate a serviceIP for Service \"late\": range is full"
    );
    let patched = admin.patch(&status, MERGE_PATCH, &ready("True")).await;
    patched.expect(200);
    let ip = made(&admin, "late", None).await;
    assert!(ip.starts_with("10.96."), "{ip}");

    // One that goes gives none.
    admin
        .delete(&format!("{SERVICES}/asked"), None)
        .await
        .expect(200);
    let path = format!("{CIDRS}/more");
    let held = json!({"metadata": {"finalizers": ["example.com/test"]}});
    admin.patch(&path, MERGE_PATCH, &held).await.expect(200);
    admin.delete(&path, None).await.expect(200);
    refused(&admin, "10.99.0.5", OUTSIDE).await;
}

#[tokio::test]
async fn what_somebody_has_changed_is_mended() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let ip = made(&admin, "a", None).await;
    let path = format!("{ADDRESSES}/{ip}");
    admin.delete(&path, None).await.expect(200);
    let mut stray = json!({"metadata": {"name": "10.96.7.7",
        "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "a"}}});
    admin.post(ADDRESSES, &stray).await.expect(201);
    stray["metadata"] = json!({"name": "10.96.8.8"});
    admin.post(ADDRESSES, &stray).await.expect(201);
    pass(Duration::from_secs(10)).await;
    let back = |now: &Value| now["spec"]["parentRef"]["name"] == "a";
    admin.until(&path, "the address comes back", back).await;
    let stray = format!("{ADDRESSES}/10.96.7.7");
    let gone = |now: &Value| now["code"] == 404;
    admin.until(&stray, "nobody's address goes", gone).await;
    // It never was a service's.
    admin
        .get(&format!("{ADDRESSES}/10.96.8.8"))
        .await
        .expect(200);
    let reasons = reasons(&admin).await;
    for reason in ["ClusterIPNotAllocated", "IPAddressWrongReference"] {
        assert!(reasons.iter().any(|found| found == reason), "{reasons:?}");
    }
}

#[tokio::test]
async fn services_of_earlier_versions_get_their_addresses_at_the_start() {
    let cluster = Cluster::door().await;
    let ip = made(&admin(&cluster), "a", None).await;
    let old = format!("/registry/claims/service/{ip}");
    let port = "/registry/claims/service/30001";
    // As it was before there were IPAddresses.
    let all = Range::prefix(Bytes::from_static(b"/registry/")).keys_only();
    let keys = cluster.store().range(all.clone()).await.unwrap().kvs;
    let keys = keys.into_iter().map(|kv| kv.key);
    let is_address = |key: &Bytes| String::from_utf8_lossy(key).contains("/ipaddresses/");
    let mut success: Vec<Op> = keys
        .filter(is_address)
        .map(|key| Op::Delete { key })
        .collect();
    assert_eq!(success.len(), 2, "that of the service and that of the door");
    success.extend([old.clone(), port.to_owned()].map(|key| Op::Put {
        key: key.into(),
        value: Bytes::new(),
    }));
    let txn = Txn {
        compare: Vec::new(),
        success,
        failure: Vec::new(),
    };
    cluster.store().txn(txn).await.unwrap();
    let cluster = cluster.restarted().await;
    let admin = admin(&cluster);
    for (ip, name) in [(ip.as_str(), "a"), ("10.96.0.1", "kubernetes")] {
        let found = admin.get(&format!("{ADDRESSES}/{ip}")).await.expect(200);
        assert_eq!(found.body["spec"]["parentRef"]["name"], name);
    }
    assert_eq!(reasons(&admin).await, [""; 0], "it is nobody's fault");
    let keys = cluster.store().range(all).await.unwrap().kvs;
    let has = |wanted: &str| keys.iter().any(|kv| kv.key == wanted.as_bytes());
    assert!(!has(&old) && has(port));
}

#[tokio::test]
async fn two_servers_give_an_address_out_once() {
    let one = Cluster::door().await;
    let store = Arc::clone(one.store()) as Arc<dyn Store>;
    let two = Cluster::door_options(|options| options.store = store).await;
    let (one, two) = (&admin(&one), &admin(&two));
    one.post(CIDRS, &cidr("more", "10.99.0.0/24"))
        .await
        .expect(201);
    two.get(&format!("{CIDRS}/more")).await.expect(200);
    let ask = |caller, name: String| async move {
        let asked = service(&name, Some("10.99.0.9"));
        Caller::post(caller, SERVICES, &asked).await.code
    };
    let codes = tokio::join!(ask(one, "one".to_owned()), ask(two, "two".to_owned()));
    assert!(matches!(codes, (201, 422) | (422, 201)), "{codes:?}");
    let many = |caller, who: &'static str| async move {
        let names = (0..20).map(|number| format!("{who}-{number}"));
        let all = names.map(|name| async move { made(caller, &name, None).await });
        futures::future::join_all(all).await
    };
    let (first, second) = tokio::join!(many(one, "one"), many(two, "two"));
    let given: BTreeSet<String> = first.into_iter().chain(second).collect();
    assert_eq!(given.len(), 40);
    let addresses = two.get(ADDRESSES).await.expect(200).body;
    assert_eq!(addresses["items"].as_array().unwrap().len(), 42);
}

#[tokio::test]
async fn a_range_waits_for_its_addresses() {
    let mut cluster = Cluster::door().await;
    cluster.run_controllers();
    let admin = admin(&cluster);
    admin
        .post(CIDRS, &cidr("more", "10.99.0.0/24"))
        .await
        .expect(201);
    let path = format!("{CIDRS}/more");
    let is = |status: &'static str| {
        move |now: &Value| now["status"]["conditions"][0]["status"] == status
    };
    let ready = admin.until(&path, "it is ready", is("True")).await;
    assert_eq!(
        ready["metadata"]["finalizers"],
        json!(["networking.k8s.io/service-cidr-finalizer"])
    );
    made(&admin, "a", Some("10.99.0.5")).await;
    admin.delete(&path, None).await.expect(200);
    let waits = admin
        .until(&path, "it says why it stays", is("False"))
        .await;
    let condition = &waits["status"]["conditions"][0];
    assert_eq!(condition["reason"], "Terminating");
    assert_eq!(
        condition["message"],
        "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
         ServiceCIDR"
    );
}
