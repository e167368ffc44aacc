//! The parts of the control plane, as `kubectl get componentstatuses` shows them, and pods whose
//! resources are changed in place.

use serde_json::{Value, json};

use super::{APPLY_PATCH, MERGE_PATCH, NAMESPACE, open};

#[tokio::test]
async fn parts_tell_whether_they_run() {
    let (cluster, admin) = open().await;
    let runs = cluster.the_door().components().runs("scheduler");
    let list = admin.get("/api/v1/componentstatuses").await.expect(200);
    assert_eq!(list.warnings.len(), 1, "it is deprecated");
    let text = admin.get("/metrics").await.expect(200).body;
    let wanted = "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",\
                  resource=\"componentstatuses\",subresource=\"\",version=\"v1\"} 1\n";
    assert!(text.as_str().unwrap().contains(wanted), "{wanted}");
    let told = |list: &Value| -> Vec<(String, String)> {
        let items = list["items"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        items
            .map(|item| {
                let condition = &item["conditions"][0];
                (text(&item["metadata"]["name"]), text(&condition["status"]))
            })
            .collect()
    };
    let pair = |name: &str, status: &str| (name.to_owned(), status.to_owned());
    assert_eq!(
        told(&list.body),
        [
            pair("controller-manager", "Unknown"),
            pair("scheduler", "True"),
            pair("etcd-0", "True")
        ]
    );
    drop(runs);
    let scheduler = "/api/v1/componentstatuses/scheduler";
    let one = admin.get(scheduler).await.expect(200).body;
    assert_eq!(one["conditions"][0]["status"], "Unknown");
    let nobody = admin.get("/api/v1/componentstatuses/x").await.expect(404);
    assert_eq!(nobody.message(), "componentstatus \"x\" not found");
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let table = admin
        .get_as("/api/v1/componentstatuses/etcd-0", table)
        .await;
    let table = table.expect(200).body;
    assert_eq!(
        table["rows"][0]["cells"],
        json!(["etcd-0", "Healthy", "ok", ""])
    );
    let made = json!({"metadata": {"name": "x"}});
    admin
        .post("/api/v1/componentstatuses", &made)
        .await
        .expect(405);
}

#[tokio::test]
async fn resources_change_through_resize_alone() {
    let (_cluster, admin) = open().await;
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "app", "image": "app:1", "resources": {
            "requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}}]}});
    let made = admin.post(&pods, &pod).await.expect(201).body;
    let more = json!({"spec": {"containers": [{"name": "app",
        "resources": {"requests": {"cpu": "200m"}}}]}});
    let path = format!("{pods}/p");
    admin
        .patch(&path, super::STRATEGIC_PATCH, &more)
        .await
        .expect(422);
    let resize = format!("{path}/resize");
    let resized = admin.patch(&resize, super::STRATEGIC_PATCH, &more).await;
    let resized = resized.expect(200).body;
    let resources = &resized["spec"]["containers"][0]["resources"];
    assert_eq!(
        resources["requests"],
        json!({"cpu": "200m", "memory": "1Gi"})
    );
    assert_eq!(resized["metadata"]["generation"], 2);
    assert_eq!(made["metadata"]["generation"], 1);
    let owners = resized["metadata"]["managedFields"].as_array().unwrap();
    assert!(owners.iter().any(|owner| owner["subresource"] == "resize"));

    let applied = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "app", "resources": {"requests": {"cpu": "300m"}}}]}});
    let by = format!("{resize}?fieldManager=scaler&force=true");
    let applied = admin
        .patch(&by, APPLY_PATCH, &applied)
        .await
        .expect(200)
        .body;
    let requests = &applied["spec"]["containers"][0]["resources"]["requests"];
    assert_eq!(requests["cpu"], "300m");

    // A node that does not say what its containers have can't change it.
    let status = json!({"status": {"containerStatuses": [{"name": "app", "image": "app:1",
        "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]}});
    admin
        .patch(&format!("{path}/status"), MERGE_PATCH, &status)
        .await
        .expect(200);
    let refused = admin.patch(&resize, super::STRATEGIC_PATCH, &more).await;
    assert_eq!(
        refused.expect(422).message(),
        "Pod \"p\" is invalid: spec: Forbidden: Pod running on node without support for resize"
    );
}

#[tokio::test]
async fn a_binding_changes_what_it_names_and_nothing_else() {
    let (_cluster, admin) = open().await;
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bound",
        "labels": {"app": "x", "tier": "old"}, "annotations": {"text": "{\"metadata\":{\"a\":\"}\"}}"}},
        "spec": {"containers": [{"name": "app", "image": "app:1", "args": ["\"", "{", "é\u{7}"],
            "resources": {"requests": {"cpu": "0.5", "memory": "1.1Gi"}}}],
            "tolerations": [{"operator": "Exists"}]}});
    let made = admin.post(&pods, &pod).await.expect(201).body;
    let path = format!("{pods}/bound");
    let binding = format!("{path}/binding");
    let target = json!({"kind": "Node", "name": "node-1"});
    let of = |uid: &str| {
        json!({"apiVersion": "v1", "kind": "Binding", "target": target, "metadata": {"name": "bound",
            "uid": uid, "labels": {"tier": "new"}, "annotations": {"by": "hand"}}})
    };
    let refused = admin.post(&binding, &of("another")).await.expect(409);
    assert!(refused.message().contains("UID in precondition: another"));
    let status = format!("{path}/status");
    for (change, said) in [
        (
            json!({"conditions": [{"type": "a b", "status": "True"}]}),
            "status.conditions[0].Type: Invalid value: \"a b\"",
        ),
        (
            json!({"nominatedNodeName": "A"}),
            "status.nominatedNodeName: Invalid value: \"A\"",
        ),
    ] {
        let change = json!({"status": change});
        let refused = admin
            .patch(&status, "application/merge-patch+json", &change)
            .await;
        let said_here = refused.expect(422).message().to_owned();
        assert!(said_here.contains(said), "{said_here}");
    }
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let tried = format!("{binding}?dryRun=All");
    admin.post(&tried, &of(uid)).await.expect(201);
    assert_eq!(admin.get(&path).await.expect(200).body, made);

    admin.post(&binding, &of(uid)).await.expect(201);
    let bound = admin.get(&path).await.expect(200).body;
    let mut expected = made.clone();
    expected["metadata"]["resourceVersion"] = bound["metadata"]["resourceVersion"].clone();
    expected["metadata"]["labels"]["tier"] = "new".into();
    expected["metadata"]["annotations"]["by"] = "hand".into();
    expected["spec"]["nodeName"] = "node-1".into();
    let since = bound["status"]["conditions"][0]["lastTransitionTime"].clone();
    assert!(since.is_string(), "{bound:#}");
    expected["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True",
        "lastProbeTime": null, "lastTransitionTime": since}]);
    assert_eq!(bound, expected);
    let listed = format!("{pods}?fieldSelector=spec.nodeName%3Dnode-1&labelSelector=tier%3Dnew");
    let listed = admin.get(&listed).await.expect(200).body;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);

    // It is written as an update would write it: one that changes nothing writes nothing.
    let same = admin
        .patch(&path, MERGE_PATCH, &json!({}))
        .await
        .expect(200);
    assert_eq!(same.body, bound);
    let again = admin.post(&binding, &of(uid)).await.expect(409);
    assert!(
        again
            .message()
            .contains("is already assigned to node \"node-1\"")
    );
}
