//! What a door makes by itself, and watches that begin in the future.

use std::time::Duration;

use evenkeel_server::Identity;
use serde_json::{Value, json};

use super::Opened;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn the_classes_of_the_system_are_there() {
    let opened = Opened::new().await;
    for (name, value) in [
        ("system-node-critical", 2_000_001_000),
        ("system-cluster-critical", 2_000_000_000),
    ] {
        let path = format!("/apis/scheduling.k8s.io/v1/priorityclasses/{name}");
        let class = opened.get(&path).await.expect(200).body;
        assert_eq!(class["value"], value);
        assert_eq!(class["preemptionPolicy"], "PreemptLowerPriority");
    }
}

#[tokio::test]
async fn cluster_info_is_for_everybody_and_kept() {
    let opened = Opened::new().await;
    let authority = opened.pki.ca().to_owned();
    let server = "https://192.0.2.1:6443";
    let door = &opened.door;
    door.publish_cluster_info(server, &authority).await.unwrap();
    let maps = "/api/v1/namespaces/kube-public/configmaps";
    let path = format!("{maps}/cluster-info");
    let anybody = || Identity::anonymous();
    let info = opened.ask(anybody(), "GET", &path, &Value::Null).await;
    let info = info.expect(200).body;
    let kubeconfig = info["data"]["kubeconfig"].as_str().unwrap();
    let head = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: ";
    assert!(kubeconfig.starts_with(head), "{kubeconfig}");
    let place = format!("\n    server: {server}\n  name: \"\"\n");
    assert!(kubeconfig.contains(&place), "{kubeconfig}");
    // Nothing else there is for everybody.
    let all = opened.ask(anybody(), "GET", maps, &Value::Null).await;
    all.expect(403);
    // A second start with the same address changes nothing, and one with another follows it.
    door.publish_cluster_info(server, &authority).await.unwrap();
    assert_eq!(opened.get(&path).await.expect(200).body, info);
    let other = "https://192.0.2.2:6443";
    door.publish_cluster_info(other, &authority).await.unwrap();
    let mut info = opened.get(&path).await.expect(200).body;
    let moved = kubeconfig.replace(server, other);
    assert_eq!(info["data"]["kubeconfig"], moved);
    // What an administrator has written stays, whatever address a start has.
    let balanced = kubeconfig.replace(server, "https://cluster.example:443");
    info["data"]["kubeconfig"] = balanced.clone().into();
    opened.put(&path, &info).await.expect(200);
    door.publish_cluster_info(server, &authority).await.unwrap();
    let info = opened.get(&path).await.expect(200).body;
    assert_eq!(info["data"]["kubeconfig"], balanced);
    // What signs it reads tokens there and writes here, and nothing else.
    let signer = Identity::service_account("kube-system", "bootstrap-signer");
    for (path, code) in [
        ("/api/v1/namespaces/kube-system/secrets", 200),
        ("/api/v1/namespaces/default/secrets", 403),
        (maps, 200),
    ] {
        let said = opened.ask(signer.clone(), "GET", path, &Value::Null).await;
        said.expect(code);
    }
    let written = opened.ask(signer, "PUT", &path, &info).await;
    written.expect(200);
}

/// Asks for an object until it is what is waited for.
async fn until(opened: &Opened, path: &str, there: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let found = opened.get(path).await;
            if found.code == 200 && there(&found.body) {
                return found.body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking)
        .await
        .unwrap_or_else(|_| panic!("{path} is not what it should be"))
}

#[tokio::test]
async fn what_others_are_told_is_kept_true() {
    let opened = Opened::new().await;
    let trust = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let whole = opened.get(trust).await.expect(200).body;
    opened.delete(trust).await.expect(200);
    until(&opened, trust, |found| found["data"] == whole["data"]).await;
    // Headers that another server has named stay beside this one's; anything else goes.
    let mut changed = opened.get(trust).await.expect(200).body;
    changed["data"] = json!({"requestheader-username-headers": "[\"X-Other\"]", "more": "x"});
    opened.put(trust, &changed).await.expect(200);
    let mut wanted = whole["data"].clone();
    wanted["requestheader-username-headers"] = "[\"X-Other\",\"X-Remote-User\"]".into();
    until(&opened, trust, |found| found["data"] == wanted).await;

    let info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    let authority = opened.pki.ca().to_owned();
    let server = "https://192.0.2.1:6443";
    let published = opened.door.publish_cluster_info(server, &authority);
    published.await.unwrap();
    let whole = opened.get(info).await.expect(200).body;
    opened.delete(info).await.expect(200);
    until(&opened, info, |found| found["data"] == whole["data"]).await;
    let mut emptied = opened.get(info).await.expect(200).body;
    emptied["data"] = json!({"jws-kubeconfig-abcdef": "signed"});
    opened.put(info, &emptied).await.expect(200);
    let found = until(&opened, info, |found| {
        found["data"]["kubeconfig"] == whole["data"]["kubeconfig"]
    })
    .await;
    assert_eq!(found["data"]["jws-kubeconfig-abcdef"], "signed");
}

#[tokio::test]
async fn a_watch_from_the_future_begins_and_tells_only_what_is_behind_it() {
    let opened = Opened::new().await;
    let start = opened.get(MAPS).await.expect(200).revision();
    let from = start + 3;
    let path = format!("{MAPS}?watch=true&resourceVersion={from}&timeoutSeconds=3");
    let watching = async {
        // It ends by itself; what it has told by then is its answer.
        opened.get(&path).await.expect(200).body.to_string()
    };
    let writing = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut first = None;
        for number in 0..6 {
            let map = json!({"metadata": {"name": format!("n{number}")}});
            let made = opened.post(MAPS, &map).await.expect(201).revision();
            if made > from {
                first.get_or_insert(number);
            }
        }
        first.unwrap()
    };
    let (told, first) = tokio::join!(watching, writing);
    assert!(first > 0, "one came before");
    for number in 0..6 {
        let name = format!("n{number}");
        let is_told = told.contains(&format!("\"name\":\"{name}\""))
            || told.contains(&format!("\\\"name\\\":\\\"{name}\\\""));
        assert_eq!(is_told, number >= first, "{name} in {told}");
    }
    // With its initial objects it can't begin: there are none yet.
    let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let path = format!("{MAPS}?watch=true&resourceVersion=999999999&{initial}");
    let refused = opened.get(&path).await.expect(504).body;
    assert_eq!(refused["reason"], "Timeout");
}
