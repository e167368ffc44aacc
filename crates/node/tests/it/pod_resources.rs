//! Who asks at the socket of the pod resources API, over a real socket and in real time.

use std::time::Duration;

use evenkeel_grpc::{Channel, Target};
use evenkeel_node::pod_resources::{DIRECTORY, proto};
use http::HeaderMap;
use serde_json::json;

use crate::cluster::Node;

const WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_monitor_is_told_which_pods_there_are() {
    let node = Node::start();
    node.pod(
        "web",
        json!({"containers": [{"name": "main", "image": "app:1"}],
            "initContainers": [{"name": "first", "image": "app:1"},
                {"name": "beside", "image": "app:1", "restartPolicy": "Always"}]}),
    );
    let path = node
        .dir
        .path()
        .join("node")
        .join(DIRECTORY)
        .join("kubelet.sock");
    let channel = Channel::new(Target::Unix { path }, HeaderMap::new());
    let method = |name: &str| format!("/v1.PodResourcesLister/{name}");
    let listed = async {
        loop {
            let asked = channel
                .unary::<proto::ListResponse>(
                    &method("List"),
                    &proto::AllocatableResponse::default(),
                    WITHIN,
                )
                .await;
            if let Ok(found) = asked
                && let [pod] = found.pod_resources.as_slice()
            {
                return pod.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let pod = tokio::time::timeout(Duration::from_secs(60), listed)
        .await
        .expect("the pod is told");
    assert_eq!(
        (pod.namespace.as_str(), pod.name.as_str()),
        ("default", "web")
    );
    let names: Vec<&str> = pod.containers.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["beside", "main"]);
    let asked = proto::GetRequest {
        pod_name: "web".to_owned(),
        pod_namespace: "default".to_owned(),
    };
    let found: proto::GetResponse = channel
        .unary(&method("Get"), &asked, WITHIN)
        .await
        .expect("it is there");
    assert_eq!(found.pod_resources, Some(pod));
    let nobody = proto::GetRequest::default();
    let refused = channel
        .unary::<proto::GetResponse>(&method("Get"), &nobody, WITHIN)
        .await;
    assert!(refused.is_err());
    let all: proto::AllocatableResponse = channel
        .unary(&method("GetAllocatableResources"), &nobody, WITHIN)
        .await
        .expect("an answer");
    assert_eq!(all.devices, []);
}
