//! Failures that the field knows as silent: each is told by an event, a condition or a warning,
//! and `evenkeel why` gives the chain and the next step.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use evenkeel_server::Identity;
use evenkeel_testkit::{Caller, Cluster};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const CORE: &str = "/api/v1/namespaces/default";
const APPS: &str = "/apis/apps/v1/namespaces/default";
const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];

fn admin(cluster: &Cluster) -> Caller {
    cluster.caller(Identity::user("admin", &["system:masters"]))
}

async fn post(admin: &Caller, path: &str, object: Value) {
    admin
        .send("POST", path, &[], Some(&object))
        .await
        .expect(201);
}

/// Asks why until the answer has all the words.
async fn why(cluster: &Cluster, question: &str, words: &[&str]) {
    let mut last = String::new();
    let asking = async {
        loop {
            let found = evenkeel_explain::why(&cluster.admin(), question, "default").await;
            last = found.map_or_else(|error| error.to_string(), |chain| chain.to_string());
            if words.iter().all(|word| last.contains(word)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(LIMIT, asking).await.is_err() {
        panic!("{question} does not say {words:?}, but:\n{last}");
    }
}

async fn account(admin: &Caller) {
    let path = format!("{CORE}/serviceaccounts/default");
    let made = async {
        while admin.send("GET", &path, &[], None).await.code != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.unwrap();
}

fn claim(name: &str, more: Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": spec})
}

fn pod_with(name: &str, claim: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "main", "image": "shop"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_wait_and_volumes_elsewhere_say_so() {
    let cluster = Cluster::start().await;
    let admin = admin(&cluster);
    let _node = cluster.node("one");
    account(&admin).await;
    let claims = format!("{CORE}/persistentvolumeclaims");
    let pods = format!("{CORE}/pods");

    // A class that nobody made.
    post(
        &admin,
        &claims,
        claim("typo", json!({"storageClassName": "fsat"})),
    )
    .await;
    let words = [
        "ProvisioningFailed",
        "StorageClass fsat: does not exist",
        "next: make the class",
    ];
    why(&cluster, "pvc/typo", &words).await;

    // A class whose provisioner is not there.
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "far"}, "provisioner": "none.example/far"});
    post(&admin, "/apis/storage.k8s.io/v1/storageclasses", class).await;
    post(
        &admin,
        &claims,
        claim("orphan", json!({"storageClassName": "far"})),
    )
    .await;
    let words = [
        "ExternalProvisioning",
        "next: see whether none.example/far is running",
    ];
    why(&cluster, "pvc/orphan", &words).await;
    post(&admin, &pods, pod_with("waiting", "orphan")).await;
    let words = [
        "unbound immediate PersistentVolumeClaims",
        "see whether none.example/far",
    ];
    why(&cluster, "pod/waiting", &words).await;

    // Nobody uses it.
    let local = json!({"storageClassName": "local-path"});
    post(&admin, &claims, claim("unused", local)).await;
    let words = [
        "WaitForFirstConsumer",
        "next: make a pod that uses claim unused",
    ];
    why(&cluster, "pvc/unused", &words).await;

    // Its volume is in a zone without nodes.
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "far"}, "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "storageClassName": "zonal",
            "local": {"path": "/far"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In",
                    "values": ["b"]}]}]}}}});
    post(&admin, "/api/v1/persistentvolumes", volume).await;
    post(
        &admin,
        &claims,
        claim("zonal", json!({"storageClassName": "zonal"})),
    )
    .await;
    why(&cluster, "pvc/zonal", &["is bound to volume far"]).await;
    post(&admin, &pods, pod_with("elsewhere", "zonal")).await;
    let words = [
        "node(s) didn't match PersistentVolume's node affinity",
        "topology.kubernetes.io/zone in (b) only, and there is none",
        "next: bring back a node",
    ];
    why(&cluster, "pod/elsewhere", &words).await;

    // A claim that goes, and a pod that has it.
    let mut holder = pod_with("holder", "unused");
    holder["spec"]["nodeName"] = "one".into();
    post(&admin, &pods, holder).await;
    let path = format!("{claims}/unused");
    admin.send("DELETE", &path, &[], None).await.expect(200);
    let words = [
        "is still used by pods holder",
        "next: kubectl delete pod holder",
    ];
    why(&cluster, "pvc/unused", &words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollouts_namespaces_budgets_and_quorums_say_what_blocks_them() {
    let cluster = Cluster::start().await;
    let admin = admin(&cluster);
    let _node = cluster.node("one");
    account(&admin).await;
    let template = |app: &str, more: Value| {
        let mut spec = json!({"containers": [{"name": "main", "image": "shop"}]});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        json!({"metadata": {"labels": {"app": app}}, "spec": spec})
    };

    // A rollout that no node takes.
    let nowhere = template("stuck", json!({"nodeSelector": {"no": "where"}}));
    post(
        &admin,
        &format!("{APPS}/deployments"),
        json!({"apiVersion": "apps/v1",
        "kind": "Deployment", "metadata": {"name": "stuck"}, "spec": {"replicas": 1,
            "progressDeadlineSeconds": 1, "selector": {"matchLabels": {"app": "stuck"}},
            "template": nowhere}}),
    )
    .await;
    let words = [
        "ProgressDeadlineExceeded",
        "has no node",
        "next: make the pod's node selector",
    ];
    why(&cluster, "deployment/stuck", &words).await;

    // A namespace with something that somebody holds.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "held"}});
    post(&admin, "/api/v1/namespaces", namespace).await;
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept",
        "finalizers": ["example.com/holds"]}});
    post(&admin, "/api/v1/namespaces/held/configmaps", held).await;
    admin
        .send("DELETE", "/api/v1/namespaces/held", &[], None)
        .await
        .expect(200);
    let words = [
        "example.com/holds",
        "next: see whether the owners of these finalizers",
    ];
    why(&cluster, "namespace/held", &words).await;

    // An eviction that a budget refuses.
    post(
        &admin,
        &format!("{APPS}/deployments"),
        json!({"apiVersion": "apps/v1",
        "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1,
            "selector": {"matchLabels": {"app": "web"}}, "template": template("web", json!({}))}}),
    )
    .await;
    why(&cluster, "deployment/web", &["has 1 of 1 replicas ready"]).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    post(
        &admin,
        budgets,
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "strict"}, "spec": {"minAvailable": 1,
            "selector": {"matchLabels": {"app": "web"}}}}),
    )
    .await;
    let words = [
        "none may ever go",
        "next: add replicas, or lower minAvailable",
    ];
    why(&cluster, "pdb/strict", &words).await;
    let cordon = json!({"spec": {"unschedulable": true}});
    admin
        .send("PATCH", "/api/v1/nodes/one", &MERGE, Some(&cordon))
        .await
        .expect(200);
    let words = [
        "budget strict allows no disruption",
        "next: evenkeel why pdb/strict -n default",
    ];
    why(&cluster, "node/one", &words).await;

    // Fewer than a majority of a group, at once.
    post(
        &admin,
        &format!("{APPS}/statefulsets"),
        json!({"apiVersion": "apps/v1",
        "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {"replicas": 3,
            "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": template("db", json!({}))}}),
    )
    .await;
    let scale = format!("{APPS}/statefulsets/db/scale");
    for (replicas, warns) in [(2, false), (3, false), (1, true)] {
        let patch = json!({"spec": {"replicas": replicas}});
        let answer = admin
            .send("PATCH", &scale, &MERGE, Some(&patch))
            .await
            .expect(200);
        let warned = answer
            .warnings
            .iter()
            .any(|text| text.contains("less than a majority"));
        assert_eq!(warned, warns, "to {replicas}: {:?}", answer.warnings);
    }
}
