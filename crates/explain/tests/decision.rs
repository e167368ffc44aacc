//! `evenkeel why` and the scheduler's decisions, in a whole cluster.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use evenkeel_server::Identity;
use evenkeel_testkit::Cluster;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

async fn reason_of(cluster: &Cluster, path: &str) -> Value {
    let admin = cluster.caller(Identity::user("admin", &["system:masters"]));
    let waiting = async {
        loop {
            let pod = admin.send("GET", path, &[], None).await.expect(200).body;
            let conditions = pod["status"]["conditions"].as_array().cloned();
            let scheduled = conditions
                .into_iter()
                .flatten()
                .find(|known| known["type"] == "PodScheduled");
            if let Some(found) = scheduled {
                return found["reason"].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap()
}

fn a_pod(name: &str, spec: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "shop",
            "resources": {"requests": {"cpu": "900"}}}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_shows_what_failed_on_each_node_to_who_may_see_it() {
    let cluster = Cluster::start().await;
    let admin = cluster.caller(Identity::user("admin", &["system:masters"]));
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "small"}});
    admin
        .send("POST", "/api/v1/nodes", &[], Some(&node))
        .await
        .expect(201);
    let status = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "9"}}});
    let merge = [("content-type", "application/merge-patch+json")];
    admin
        .send("PATCH", "/api/v1/nodes/small/status", &merge, Some(&status))
        .await
        .expect(200);
    // A loop makes it, and no pod is let in before.
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    let made = async {
        while admin.send("GET", account, &[], None).await.code != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.unwrap();
    let pods = "/api/v1/namespaces/default/pods";
    let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
    for pod in [
        a_pod("web", &tolerant),
        a_pod(
            "gated",
            &json!({"schedulingGates": [{"name": "example.com/a"}]}),
        ),
    ] {
        admin.send("POST", pods, &[], Some(&pod)).await.expect(201);
    }
    let web = format!("{pods}/web");
    assert_eq!(reason_of(&cluster, &web).await, "Unschedulable");

    let wanted = "- small failed NodeResourcesFit: Insufficient cpu \
                  (cpu: 900000m wanted, 1000m of 1000m free)";
    // The scheduler may have looked before the node had its room.
    let told = async {
        loop {
            let chain = evenkeel_explain::why(&cluster.admin(), "pod/web", "default").await;
            if chain.unwrap().to_string().contains(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect(wanted);

    // Only with a right to the page, which may be given for one namespace.
    let alice = Identity::user("alice", &["system:authenticated"]);
    let trace = "/debug/scheduler/trace/default/web";
    let caller = cluster.caller(alice.clone());
    caller.send("GET", trace, &[], None).await.expect(403);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "traces"}, "rules": [{"verbs": ["get"],
            "nonResourceURLs": ["/debug/scheduler/trace/default/*"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding", "metadata": {"name": "traces"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "traces"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}]});
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{plural}");
        admin
            .send("POST", &path, &[], Some(&object))
            .await
            .expect(201);
    }
    let shown = caller.send("GET", trace, &[], None).await.expect(200).body;
    assert_eq!(shown["rejections"][0]["plugin"], "NodeResourcesFit");
    let elsewhere = "/debug/scheduler/trace/kube-system/web";
    caller.send("GET", elsewhere, &[], None).await.expect(403);
    let unknown = "/debug/scheduler/trace/default/nobody";
    caller.send("GET", unknown, &[], None).await.expect(404);

    // A gated pod says so from the start, and who has to act.
    let gated = format!("{pods}/gated");
    assert_eq!(reason_of(&cluster, &gated).await, "SchedulingGated");
    let chain = evenkeel_explain::why(&cluster.admin(), "pod/gated", "default").await;
    let told = chain.unwrap().to_string();
    assert!(told.contains("- gate example.com/a"), "{told}");
}
