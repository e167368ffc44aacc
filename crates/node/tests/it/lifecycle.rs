//! From binding to deletion.

use serde_json::json;

use crate::cluster::{Node, condition, container};

#[tokio::test(start_paused = true)]
async fn a_bound_pod_runs_gets_ready_and_is_deleted() {
    let node = Node::start();
    node.pod("web", json!({ "containers": [container("app")] }));
    let pod = node.until_ready("web").await;
    let status = &pod["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert_eq!(status["podIPs"][0]["ip"], status["podIP"]);
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["observedGeneration"], 1);
    let app = &status["containerStatuses"][0];
    assert_eq!(app["ready"], true);
    assert_eq!(app["started"], true);
    assert_eq!(app["restartCount"], 0);
    assert!(app["containerID"].as_str().is_some_and(|id| id.starts_with("evenkeel://")));
    for type_ in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&pod, type_)["status"], "True", "{type_}");
    }
    node.delete("web", 30);
    node.until_gone("web").await;
    assert!(node.runtime.calls().contains(&"stop app 30".to_owned()));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(node.runtime.is_empty());
    assert!(!node.dir.path().join("node/pods/uid-web").exists());
    let reasons: Vec<_> = node.events().into_iter().map(|(reason, _)| reason).collect();
    for reason in ["Pulled", "Created", "Started", "Killing"] {
        assert!(reasons.iter().any(|have| have == reason), "{reason} in {reasons:?}");
    }
}
