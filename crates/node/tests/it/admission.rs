//! Pods that came past the scheduler: what does not fit is rejected before anything is made.

use serde_json::{Value, json};

use crate::cluster::{Node, container};

fn with_port() -> Value {
    let mut web = container("web");
    web["ports"] = json!([{ "containerPort": 80, "hostPort": 8080 }]);
    json!({ "containers": [web] })
}

#[tokio::test(start_paused = true)]
async fn a_taken_port_is_refused_until_it_is_free() {
    let node = Node::start();
    node.pod("first", with_port());
    node.until_ready("first").await;
    node.pod("second", with_port());
    let pod = node
        .until("second", |pod| pod["status"]["phase"] == "Failed")
        .await;
    assert_eq!(pod["status"]["reason"], "NodePorts");
    assert_eq!(
        pod["status"]["message"],
        "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the \
         requested pod ports"
    );
    // It never had containers, so there is nothing to say of them.
    assert!(pod["status"]["containerStatuses"].is_null(), "{pod:#}");
    let calls = node.runtime.calls();
    assert!(
        !calls.iter().any(|call| call.contains("second")),
        "{calls:?}"
    );

    node.delete("first", 0);
    node.until_gone("first").await;
    node.pod("third", with_port());
    node.until_ready("third").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_wants_another_node_is_refused() {
    let node = Node::start();
    let wants =
        |zone: &str| json!({ "nodeSelector": { "zone": zone }, "containers": [container("a")] });
    node.pod("lost", wants("b"));
    let pod = node
        .until("lost", |pod| pod["status"]["phase"] == "Failed")
        .await;
    assert_eq!(pod["status"]["reason"], "NodeAffinity");
    // A label that somebody gives the node later counts.
    node.api.change("nodes", "", "n1", |node| {
        node["metadata"]["labels"]["zone"] = json!("a");
    });
    node.pod("here", wants("a"));
    node.until_ready("here").await;
}

#[tokio::test(start_paused = true)]
async fn a_sysctl_that_may_harm_others_is_refused() {
    let node = Node::start();
    let sets = |name: &str| {
        json!({ "containers": [container("a")],
                "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } })
    };
    node.pod("bold", sets("kernel.msgmax"));
    let pod = node
        .until("bold", |pod| pod["status"]["phase"] == "Failed")
        .await;
    assert_eq!(pod["status"]["reason"], "SysctlForbidden");
    assert_eq!(
        pod["status"]["message"],
        "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted"
    );
    node.pod("safe", sets("kernel.shm_rmid_forced"));
    node.until_ready("safe").await;
}
