//! Objects have what Go's structs write though nobody gave it.

use evenkeel_api::row::Verb;
use serde_json::{Value, json};

use super::{MERGE_PATCH, NAMESPACE, kinds, open};

fn path(group: &str, plural: &str) -> String {
    format!("/{group}/namespaces/{NAMESPACE}/{plural}")
}

#[tokio::test]
async fn structs_are_there_and_times_are_null() {
    let (_cluster, admin) = open().await;
    let containers = json!([{"name": "app", "image": "app:1",
        "env": [{"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
    let pods = path("api/v1", "pods");
    let made = admin.post(&pods, &pod).await.expect(201).body;
    let container = &made["spec"]["containers"][0];
    assert_eq!(container["resources"], json!({}));
    let divisor = "/env/0/valueFrom/resourceFieldRef/divisor";
    assert_eq!(container.pointer(divisor), Some(&json!("0")));
    assert_eq!(made["status"]["phase"], "Pending");

    let condition = json!({"status": {"conditions": [{"type": "Tested", "status": "True"}]}});
    let status = format!("{pods}/p/status");
    let told = admin
        .patch(&status, MERGE_PATCH, &condition)
        .await
        .expect(200);
    let condition = &told.body["status"]["conditions"][0];
    assert_eq!(condition.get("lastProbeTime"), Some(&Value::Null));
    assert_eq!(condition.get("lastTransitionTime"), Some(&Value::Null));

    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": containers}}}});
    let deployments = path("apis/apps/v1", "deployments");
    let made = admin.post(&deployments, &deployment).await.expect(201).body;
    assert_eq!(made["status"], json!({}));
    assert_eq!(made["metadata"]["generation"], 1);
    // What is filled in is no change.
    let again = admin.put(&format!("{deployments}/d"), &deployment).await;
    let again = again.expect(200).body;
    assert_eq!(again["metadata"]["generation"], 1);
    assert_eq!(again["spec"], made["spec"]);

    let set = json!({"metadata": {"name": "s"}, "spec": {
        "selector": {"matchLabels": {"app": "s"}},
        "template": {"metadata": {"labels": {"app": "s"}}, "spec": {"containers": containers}}}});
    let made = admin.post(&path("apis/apps/v1", "daemonsets"), &set).await;
    let zeros = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0,
        "desiredNumberScheduled": 0, "numberReady": 0});
    assert_eq!(made.expect(201).body["status"], zeros);

    let role = json!({"metadata": {"name": "nothing"}});
    let roles = path("apis/rbac.authorization.k8s.io/v1", "roles");
    let made = admin.post(&roles, &role).await.expect(201).body;
    assert_eq!(made.get("rules"), Some(&Value::Null));
    let rule = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    for content_type in [MERGE_PATCH, super::STRATEGIC_PATCH] {
        let changed = admin
            .patch(&format!("{roles}/nothing"), content_type, &rule)
            .await;
        assert_eq!(changed.expect(200).body["rules"], rule["rules"]);
    }

    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = admin.post(reviews, &review).await.expect(201).body;
    assert_eq!(review["status"]["allowed"], true);
    assert!(review["metadata"].get("creationTimestamp").is_none());
}

/// What is written again as it was read is no write, for any kind.
#[tokio::test]
async fn an_object_read_and_written_stays_what_it_was() {
    let (cluster, admin) = open().await;
    for kind in kinds(&cluster) {
        if !kind.can(Verb::Update) || !kind.can(Verb::Create) {
            continue;
        }
        let name = kind.row.gvk.kind.to_string();
        let made = admin
            .post(&kind.path, &kind.object("same"))
            .await
            .expect(201);
        if kind.row.has_status() {
            assert!(made.body["status"].is_object(), "{name}: {:#}", made.body);
        }
        let same = admin.put(&kind.named("same"), &made.body).await.expect(200);
        assert_eq!(same.revision(), made.revision(), "{name}");
        assert_eq!(same.body, made.body, "{name}");
    }
}
