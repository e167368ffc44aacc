//! Claims are prepared once, kept over a restart, and taken back with the last pod.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::{Value, json};

use super::{Dra, version};
use crate::testing::dra::FakeResourceDriver;

const DRIVER: &str = "gpu.example.com";

fn pod(uid: &str) -> Pod {
    let spec = json!({
        "resourceClaims": [{"name": "gpu", "resourceClaimName": "shared"}],
        "containers": [
            {"name": "with", "resources": {"claims": [{"name": "gpu"}]}},
            {"name": "without"},
            {"name": "other", "resources": {"claims": [{"name": "gpu", "request": "other"}]}},
        ],
    });
    let pod = json!({"metadata": {"name": uid, "namespace": "a", "uid": uid}, "spec": spec});
    serde_json::from_value(pod).expect("a pod")
}

fn claim(reserved: &[&str]) -> Value {
    let reserved: Vec<Value> = reserved
        .iter()
        .map(|uid| json!({"resource": "pods", "name": uid, "uid": uid}))
        .collect();
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": "shared", "namespace": "a", "uid": "claim"},
        "spec": {},
        "status": {"reservedFor": reserved, "allocation": {"devices": {"results": [
            {"request": "gpu", "driver": DRIVER, "pool": "pool", "device": "one"}]}}},
    })
}

/// An API that has one claim and nothing else.
fn api(claim: Value) -> Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let found =
            request.uri().path() == "/apis/resource.k8s.io/v1/namespaces/a/resourceclaims/shared";
        let body = if found {
            claim.to_string()
        } else {
            "{}".to_owned()
        };
        async move {
            let body = http_body_util::Full::new(bytes::Bytes::from(body));
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        }
    });
    Client::new(service, "a")
}

fn node(home: &Path, client: Client, driver: &FakeResourceDriver) -> Dra {
    let dra = Dra::new(home, client);
    let socket = driver.socket().display().to_string();
    let versions = ["v1.DRAPlugin".to_owned()];
    dra.register(DRIVER, &versions, &socket)
        .expect("it is spoken");
    dra
}

#[test]
fn the_best_version_that_both_speak_is_spoken() {
    let of = |all: &[&str]| {
        let all: Vec<String> = all.iter().map(|it| (*it).to_owned()).collect();
        version(&all)
    };
    assert_eq!(of(&["v1beta1.DRAPlugin", "v1.DRAPlugin"]), Some("v1"));
    assert_eq!(of(&["v1beta1.DRAPlugin"]), Some("v1beta1"));
    assert_eq!(of(&["v1alpha4.Node", "1.0.0"]), None);
}

#[tokio::test]
async fn a_claim_is_prepared_once_and_taken_back_with_its_last_pod() {
    let home = tempfile::tempdir().expect("a directory");
    let driver = FakeResourceDriver::start(DRIVER, "v.com/gpu=one", home.path(), home.path());
    let client = api(claim(&["p", "q"]));
    let dra = node(home.path(), client.clone(), &driver);
    let (p, q) = (pod("p"), pod("q"));
    dra.prepare("p", &p).await.expect("prepared");
    dra.prepare("p", &p).await.expect("prepared already");
    dra.prepare("q", &q).await.expect("shared");
    assert_eq!(driver.calls(), ["prepare shared"]);
    let of = |dra: &Dra, at: usize| {
        let containers = &p.spec.as_ref().expect("a spec").containers;
        let used = dra.of("p", &p, &containers[at]).into_iter();
        used.flat_map(|used| used.cdi).collect::<Vec<_>>()
    };
    assert_eq!(of(&dra, 0), ["v.com/gpu=one"]);
    assert!(of(&dra, 1).is_empty());
    // The driver's device is for all requests.
    assert_eq!(of(&dra, 2), ["v.com/gpu=one"]);
    dra.release("p");
    assert!(dra.take_back().await && !dra.holds("p"));
    assert_eq!(driver.prepared().len(), 1, "q uses it");
    // Another agent knows what this one did.
    drop(dra);
    let dra = node(home.path(), client, &driver);
    dra.prepare("q", &q).await.expect("prepared before");
    assert_eq!(driver.calls(), ["prepare shared"]);
    // q went while no agent ran; the driver does not let go at once.
    dra.keep(&|_| false);
    assert!(dra.holds("q"));
    driver.refuse(Some("it is busy"));
    assert!(!dra.take_back().await);
    assert!(dra.holds("q"));
    driver.refuse(None);
    assert!(dra.take_back().await);
    assert!(!dra.holds("q") && driver.prepared().is_empty());
}

#[tokio::test]
async fn what_is_not_prepared_says_why() {
    let home = tempfile::tempdir().expect("a directory");
    let driver = FakeResourceDriver::start(DRIVER, "v.com/gpu=one", home.path(), home.path());
    let why = |dra: Dra| async move { dra.prepare("p", &pod("p")).await.expect_err("refused") };
    let stranger = node(home.path(), api(claim(&["q"])), &driver);
    assert!(why(stranger).await.contains("not reserved for pod p"));
    let nobody = Dra::new(home.path(), api(claim(&["p"])));
    let said = why(nobody).await;
    assert_eq!(said, "DRA driver gpu.example.com is not registered");
    driver.refuse(Some("out of order"));
    let refused = node(home.path(), api(claim(&["p"])), &driver);
    assert!(
        why(refused)
            .await
            .ends_with("ResourceClaim shared: out of order")
    );
    let mut free = claim(&["p"]);
    free["status"] = json!({});
    let unallocated = node(home.path(), api(free), &driver);
    assert!(why(unallocated).await.contains("not allocated"));
}

#[tokio::test]
async fn devices_of_extended_resources_are_prepared_for_the_containers_that_ask() {
    let home = tempfile::tempdir().expect("a directory");
    let driver = FakeResourceDriver::start(DRIVER, "v.com/gpu=one", home.path(), home.path());
    let dra = node(home.path(), api(claim(&["p"])), &driver);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "a", "uid": "p"},
        "spec": {"containers": [{"name": "with"}, {"name": "without"}]},
        "status": {"extendedResourceClaimStatus": {"resourceClaimName": "shared",
            "requestMappings": [{"containerName": "with", "resourceName": "example.com/gpu",
                "requestName": "container-0-request-0"}]}},
    }))
    .expect("a pod");
    dra.prepare("p", &pod).await.expect("prepared");
    dra.prepare("p", &pod).await.expect("prepared already");
    assert_eq!(driver.calls(), ["prepare shared"]);
    let containers = &pod.spec.as_ref().expect("a spec").containers;
    let used = |at: usize| dra.of("p", &pod, &containers[at]);
    assert_eq!(used(0).len(), 1);
    assert_eq!(used(0)[0].cdi, ["v.com/gpu=one"]);
    assert!(used(1).is_empty());
    dra.release("p");
    assert!(dra.take_back().await && !dra.holds("p"));
}
