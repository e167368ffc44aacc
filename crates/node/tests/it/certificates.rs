//! Pods' certificates and what they are trusted by, in projected volumes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use evenkeel_api::clock::rfc3339;
use evenkeel_api::kinds::certificates::pem::blocks;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::cluster::{LIMIT, Node, container};

const REQUESTS: &str = "podcertificaterequests";

fn started() -> Node {
    let node = Node::start();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "default", "uid": "account"}});
    node.api.put("serviceaccounts", account);
    node
}

fn mount(node: &Node, sources: &Value) -> impl Fn() -> PathBuf + use<> {
    let mut app = container("app");
    app["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    node.pod(
        "web",
        json!({ "containers": [app], "volumes": [
            { "name": "v", "projected": { "sources": sources } } ] }),
    );
    let runtime = node.runtime.clone();
    move || {
        let mounts = runtime.config("app").expect("made").mounts;
        let inside = |it: &&evenkeel_runtime::Mount| it.container_path.to_str() == Some("/v");
        mounts
            .iter()
            .find(inside)
            .expect("mounted")
            .host_path
            .clone()
    }
}

/// The request that nobody has answered yet.
async fn asked(node: &Node) -> Value {
    tokio::time::timeout(LIMIT, async {
        loop {
            let open = node.api.list(REQUESTS).into_iter().find(|request| {
                request["status"]["conditions"]
                    .as_array()
                    .is_none_or(Vec::is_empty)
            });
            if let Some(open) = open {
                return open;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("a request")
}

fn answer(node: &Node, request: &Value, kind: &str, more: &Value) {
    let name = request["metadata"]["name"].as_str().expect("a name");
    node.api.change(REQUESTS, "default", name, |request| {
        request["status"] = more.clone();
        request["status"]["conditions"] = json!([{ "type": kind, "status": "True",
            "reason": "Tested", "message": "by a test",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
    });
}

fn issued(text: &str, now: Timestamp) -> Value {
    let at = |minutes: i64| rfc3339(now + SignedDuration::from_mins(minutes));
    json!({ "certificateChain": format!("about it\n{text}"),
        "notBefore": at(0), "notAfter": at(120), "beginRefreshAt": at(60) })
}

fn chain(content: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n")
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_asked_for_and_replaced_in_time() {
    let node = started();
    let dir = mount(
        &node,
        &json!([{ "podCertificate": { "signerName": "example.com/pods", "keyType": "ED25519",
            "credentialBundlePath": "all.pem", "keyPath": "key.pem",
            "certificateChainPath": "chain.pem", "userAnnotations": {"example.com/a": "b"} } }]),
    );
    let request = asked(&node).await;
    let spec = &request["spec"];
    assert_eq!(spec["podUID"], "uid-web");
    assert_eq!(spec["serviceAccountUID"], "account");
    assert_eq!(spec["nodeName"], "n1");
    assert_eq!(spec["unverifiedUserAnnotations"]["example.com/a"], "b");
    assert_eq!(request["metadata"]["ownerReferences"][0]["kind"], "Pod");
    let began = node.now();
    answer(&node, &request, "Issued", &issued(&chain("AAAA"), began));
    node.until_ready("web").await;
    let dir = dir();
    let read = |name: &str| fs::read_to_string(dir.join(name)).expect(name);
    let (key, first) = (read("key.pem"), read("chain.pem"));
    assert_eq!(first, chain("AAAA"));
    assert_eq!(read("all.pem"), format!("{key}{first}"));
    assert_eq!(blocks(&key)[0].label, "PRIVATE KEY");
    // Nothing is asked before it is time, and what there is stays while the next is awaited.
    tokio::time::sleep(Duration::from_secs(58 * 60)).await;
    assert_eq!(node.api.list(REQUESTS).len(), 1);
    let request = asked(&node).await;
    let waited = node.now().duration_since(began);
    assert!(waited >= SignedDuration::from_mins(60), "{waited:?}");
    assert!(waited <= SignedDuration::from_mins(68), "{waited:?}");
    assert_eq!(read("all.pem"), format!("{key}{first}"));
    answer(
        &node,
        &request,
        "Issued",
        &issued(&chain("BBBB"), node.now()),
    );
    tokio::time::sleep(Duration::from_secs(125)).await;
    assert_eq!(read("chain.pem"), chain("BBBB"));
    assert_ne!(read("key.pem"), key);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_certificate_is_denied_waits_and_says_why() {
    let node = started();
    let _dir = mount(
        &node,
        &json!([{ "podCertificate": { "signerName": "example.com/pods", "keyType": "ECDSAP521",
            "credentialBundlePath": "all.pem" } }]),
    );
    let request = asked(&node).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let said = |node: &Node, wanted: &str| {
        let mut events = node.events().into_iter();
        events.any(|(_, message)| message.contains(wanted))
    };
    let (not_yet, denied) = (
        "MountVolume.SetUp failed for volume \"v\" : credential bundle is not issued yet",
        "PodCertificateRequest was permanently denied: reason=\"Tested\" message=\"by a test\"",
    );
    assert!(said(&node, not_yet), "{:?}", node.events());
    answer(&node, &request, "Denied", &json!({}));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(said(&node, denied), "{:?}", node.events());
    let name = request["metadata"]["name"].as_str().expect("a name");
    let event = format!(
        "PodCertificateRequest default/{name} was denied, reason=\"Tested\", message=\"by a test\""
    );
    assert!(said(&node, &event), "{:?}", node.events());
    assert_eq!(node.api.list(REQUESTS).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn bundles_are_joined_and_follow_changes() {
    let node = started();
    let put = |name: &str, signer: &str, label: &str, text: &str| {
        let bundle = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle",
            "metadata": {"name": name, "labels": {"of": label}},
            "spec": {"signerName": signer, "trustBundle": text}});
        node.api.put("clustertrustbundles", bundle);
    };
    put("plain", "", "x", &format!("words\n{}", chain("AAAA")));
    put("s:a", "example.com/s", "x", &chain("BBBB"));
    put(
        "s:b",
        "example.com/s",
        "x",
        &format!("{}{}", chain("BBBB"), chain("CCCC")),
    );
    put("s:c", "example.com/s", "y", &chain("DDDD"));
    put("t:a", "example.com/t", "x", &chain("EEEE"));
    let of_signer = |path: &str, more: Value| {
        let mut source = json!({"signerName": "example.com/s", "path": path});
        for (name, value) in more.as_object().expect("fields") {
            source[name] = value.clone();
        }
        json!({ "clusterTrustBundle": source })
    };
    let selector = json!({"matchLabels": {"of": "x"}});
    let dir = mount(
        &node,
        &json!([
            { "clusterTrustBundle": {"name": "plain", "path": "plain.pem"} },
            { "clusterTrustBundle": {"name": "none", "path": "none.pem", "optional": true} },
            of_signer("some.pem", json!({"labelSelector": selector})),
            of_signer("all.pem", json!({"labelSelector": {}})),
            of_signer("nothing.pem", json!({"optional": true})),
        ]),
    );
    node.until_ready("web").await;
    let dir = dir();
    let read = |name: &str| fs::read_to_string(dir.join(name)).expect(name);
    assert_eq!(read("plain.pem"), chain("AAAA"));
    assert_eq!(read("none.pem"), "");
    assert_eq!(read("nothing.pem"), "");
    assert_eq!(blocks(&read("some.pem")).len(), 2);
    let all = read("all.pem");
    assert_eq!(blocks(&all).len(), 3);
    for content in ["BBBB", "CCCC", "DDDD"] {
        assert!(all.contains(&chain(content)), "{all}");
    }
    put("plain", "", "x", &chain("FFFF"));
    tokio::time::sleep(Duration::from_secs(125)).await;
    assert_eq!(read("plain.pem"), chain("FFFF"));
}

#[tokio::test(start_paused = true)]
async fn bundles_that_are_missing_are_named() {
    let node = started();
    let _dir = mount(
        &node,
        &json!([
            { "clusterTrustBundle": {"name": "none", "path": "a"} },
            { "clusterTrustBundle": {"signerName": "example.com/s", "path": "b"} },
        ]),
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let wanted = "MountVolume.SetUp failed for volume \"v\" : [while getting ClusterTrustBundle: \
                  clustertrustbundle.certificates.k8s.io \"none\" not found, combination of \
                  signerName and labelSelector matched zero ClusterTrustBundles]";
    let events = node.events();
    assert!(
        events.iter().any(|(_, message)| message == wanted),
        "{events:?}"
    );
}
