//! Kinds that are two forms of the same objects: what is written through one is seen through the
//! other.

use serde_json::json;

use super::{MERGE_PATCH, NAMESPACE, open};

fn events(group: &str) -> String {
    format!("/{group}/namespaces/{NAMESPACE}/events")
}

fn autoscalers(version: &str) -> String {
    format!("/apis/autoscaling/{version}/namespaces/{NAMESPACE}/horizontalpodautoscalers")
}

#[tokio::test]
async fn events_of_both_groups_are_the_same() {
    let (_cluster, admin) = open().await;
    let (core, new) = (events("api/v1"), events("apis/events.k8s.io/v1"));
    let start = admin.get(&core).await.expect(200).revision();
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "tests.example.com/rows", "reportingInstance": "a",
        "action": "Testing", "reason": "Tested", "type": "Normal", "note": "told",
        "regarding": {"kind": "Pod", "name": "p", "namespace": NAMESPACE},
    });
    let made = admin.post(&new, &event).await.expect(201).body;
    assert_eq!(made["apiVersion"], "events.k8s.io/v1");
    assert_eq!(made["note"], "told");

    let seen = admin.get(&format!("{core}/e")).await.expect(200).body;
    assert_eq!(seen["apiVersion"], "v1");
    assert_eq!(seen["message"], "told");
    assert_eq!(seen["reportingComponent"], "tests.example.com/rows");
    assert_eq!(seen["involvedObject"]["name"], "p");
    assert_eq!(seen["metadata"], made["metadata"]);

    let select = "fieldSelector=regarding.name%3Dp,reportingController%3Dtests.example.com/rows";
    let list = admin.get(&format!("{new}?{select}")).await.expect(200).body;
    assert_eq!(list["kind"], "EventList");
    assert_eq!(list["apiVersion"], "events.k8s.io/v1");
    assert_eq!(list["items"][0]["regarding"]["name"], "p");

    // The older form's source is the reporting controller where it names none of its own.
    let select = "fieldSelector=source%3Dtests.example.com/rows";
    let list = admin
        .get(&format!("{core}?{select}"))
        .await
        .expect(200)
        .body;
    assert_eq!(list["items"][0]["metadata"]["name"], "e");

    // What is complete does not change; the older form may still count.
    let other = json!({"note": "other"});
    let refused = admin
        .patch(&format!("{new}/e"), MERGE_PATCH, &other)
        .await
        .expect(422)
        .body;
    assert_eq!(refused["details"]["causes"][0]["field"], "message");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    admin
        .patch(&format!("{new}/e"), MERGE_PATCH, &series)
        .await
        .expect(200);
    let counted = json!({"count": 3});
    let counted = admin
        .patch(&format!("{core}/e"), MERGE_PATCH, &counted)
        .await
        .expect(200);
    let both = admin.get(&format!("{new}/e")).await.expect(200);
    assert_eq!(both.body["deprecatedCount"], 3);
    assert_eq!(both.revision(), counted.revision());

    let mut lines = admin
        .watch(&format!("{new}?watch=true&resourceVersion={start}"))
        .await;
    for what in ["ADDED", "MODIFIED", "MODIFIED"] {
        let event = lines.next().await.unwrap();
        assert_eq!(event["type"], what);
        assert_eq!(event["object"]["apiVersion"], "events.k8s.io/v1");
        assert_eq!(event["object"]["note"], "told");
    }
    admin.delete(&format!("{new}/e"), None).await.expect(200);
    admin.get(&format!("{core}/e")).await.expect(404);
}

/// The other form is kept from the first request for it on: nobody notices.
#[tokio::test]
async fn a_form_that_nobody_has_asked_for_begins_with_its_history() {
    let (_cluster, admin) = open().await;
    let (core, new) = (events("api/v1"), events("apis/events.k8s.io/v1"));
    let start = admin.get(&core).await.expect(200).revision();
    let event = |name: &str| {
        json!({
            "metadata": {"name": name}, "message": "told", "reason": "Tested", "type": "Normal",
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": NAMESPACE},
        })
    };
    let (gone, kept) = (event("gone"), event("kept"));
    admin.post(&core, &gone).await.expect(201);
    admin.post(&core, &kept).await.expect(201);
    admin
        .delete(&format!("{core}/gone"), None)
        .await
        .expect(200);

    let mut lines = admin
        .watch(&format!("{new}?watch=true&resourceVersion={start}"))
        .await;
    admin.post(&core, &event("later")).await.expect(201);
    for (what, name) in [
        ("ADDED", "gone"),
        ("ADDED", "kept"),
        ("DELETED", "gone"),
        ("ADDED", "later"),
    ] {
        let event = lines.next().await.unwrap();
        assert_eq!(event["type"], what);
        assert_eq!(event["object"]["metadata"]["name"], name);
        assert_eq!(event["object"]["apiVersion"], "events.k8s.io/v1");
        assert_eq!(event["object"]["note"], "told");
    }
    let list = admin.get(&new).await.expect(200).body;
    let names = list["items"].as_array().unwrap().iter();
    let names: Vec<&str> = names
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["kept", "later"]);
}

#[tokio::test]
async fn autoscalers_of_both_versions_are_the_same() {
    let (_cluster, admin) = open().await;
    let (old, new) = (autoscalers("v1"), autoscalers("v2"));
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let body = json!({
        "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50},
    });
    let made = admin.post(&old, &body).await.expect(201).body;
    assert_eq!(made["spec"]["minReplicas"], 1);
    let seen = admin.get(&format!("{new}/a")).await.expect(200).body;
    assert_eq!(seen["apiVersion"], "autoscaling/v2");
    assert_eq!(
        seen["spec"]["metrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}}])
    );

    // What the old form has no field for survives a client that only knows the old form.
    let behavior = json!({"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}});
    admin
        .patch(&format!("{new}/a"), MERGE_PATCH, &behavior)
        .await
        .expect(200);
    let mut read = admin.get(&format!("{old}/a")).await.expect(200).body;
    read["spec"]["maxReplicas"] = 9.into();
    admin.put(&format!("{old}/a"), &read).await.expect(200);
    let seen = admin.get(&format!("{new}/a")).await.expect(200).body;
    assert_eq!(seen["spec"]["maxReplicas"], 9);
    assert_eq!(
        seen["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"],
        5
    );
    assert_eq!(seen["metadata"].get("annotations"), None);

    let wrong = json!({"spec": {"maxReplicas": 0}});
    let refused = admin
        .patch(&format!("{old}/a"), MERGE_PATCH, &wrong)
        .await
        .expect(422);
    assert_eq!(
        refused.body["details"]["causes"][0]["field"],
        "spec.maxReplicas"
    );
    let status = json!({"status": {"currentReplicas": 2, "desiredReplicas": 2,
        "conditions": [{"type": "AbleToScale", "status": "True"}]}});
    admin
        .patch(&format!("{new}/a/status"), MERGE_PATCH, &status)
        .await
        .expect(200);
    let read = admin.get(&format!("{old}/a")).await.expect(200).body;
    assert_eq!(read["status"]["currentReplicas"], 2);
    let conditions = &read["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/conditions"];
    assert!(conditions.as_str().unwrap().contains("AbleToScale"));
    admin.delete(&format!("{old}/a"), None).await.expect(200);
    admin.get(&format!("{new}/a")).await.expect(404);
}
