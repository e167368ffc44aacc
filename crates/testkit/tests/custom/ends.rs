//! The end of a custom kind, and loops that work on all kinds.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_goes_when_its_objects_are_gone() {
    let (_cluster, admin) = open().await;
    establish(&admin, &cron_tabs()).await;
    let mut held = cron_tab("held", json!({"cronSpec": "* * * * *"}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    admin.post(&path(), &held).await.expect(201);
    admin
        .post(&path(), &cron_tab("free", json!({"cronSpec": "* * * * *"})))
        .await
        .expect(201);
    let definition = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let marked = admin.delete(&definition, None).await.expect(200).body;
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    assert_eq!(
        condition(&marked, "Terminating").unwrap()["reason"],
        "InstanceDeletionPending"
    );
    until("the deletion of what is free", || async {
        (admin.get(&format!("{}/free", path())).await.code == 404).then_some(())
    })
    .await;
    let refused = admin
        .post(&path(), &cron_tab("late", json!({"cronSpec": "* * * * *"})))
        .await
        .expect(403);
    assert!(
        refused
            .message()
            .ends_with("create not allowed while custom resource definition is terminating"),
        "{}",
        refused.message()
    );
    let resources = admin
        .get("/apis/stable.example.com/v1")
        .await
        .expect(200)
        .body;
    let verbs = resources["resources"][0]["verbs"].as_array().unwrap();
    assert!(!verbs.contains(&json!("create")), "{verbs:?}");
    let waiting = admin.get(&definition).await.expect(200).body;
    assert!(condition(&waiting, "Terminating").is_some());
    let mut watch = admin
        .watch(&format!(
            "{DEFINITIONS}?watch=true&resourceVersion={}",
            waiting["metadata"]["resourceVersion"].as_str().unwrap()
        ))
        .await;

    let one = format!("{}/held", path());
    let release = json!({"metadata": {"finalizers": null}});
    admin.patch(&one, MERGE_PATCH, &release).await.expect(200);
    loop {
        let event = watch.next().await.unwrap();
        if event["type"] == "DELETED" {
            break;
        }
    }
    assert_eq!(admin.get(&definition).await.code, 404);
    assert_eq!(admin.get(&path()).await.code, 404);
    let groups = admin.get("/apis").await.expect(200).body.to_string();
    assert!(!groups.contains("stable.example.com"));
    // The same name again is another kind, without the old objects.
    establish(&admin, &cron_tabs()).await;
    let list = admin.get(&path()).await.expect(200).body;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_and_owners_take_custom_objects_along() {
    let (mut cluster, admin) = open().await;
    establish(&admin, &cron_tabs()).await;
    cluster.run_loops();
    let owner = json!({"metadata": {"name": "owner"}});
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let owner = admin.post(&maps, &owner).await.expect(201).body;
    let mut child = cron_tab("child", json!({"cronSpec": "* * * * *"}));
    child["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
        "name": "owner", "uid": owner["metadata"]["uid"]}]);
    admin.post(&path(), &child).await.expect(201);
    admin
        .post(
            &path(),
            &cron_tab("other", json!({"cronSpec": "* * * * *"})),
        )
        .await
        .expect(201);
    admin
        .delete(&format!("{maps}/owner"), None)
        .await
        .expect(200);
    until("the end of the child", || async {
        (admin.get(&format!("{}/child", path())).await.code == 404).then_some(())
    })
    .await;
    admin.get(&format!("{}/other", path())).await.expect(200);
    admin
        .delete(&format!("/api/v1/namespaces/{NAMESPACE}"), None)
        .await
        .expect(200);
    until("the end of the namespace", || async {
        let path = format!("/api/v1/namespaces/{NAMESPACE}");
        (admin.get(&path).await.code == 404).then_some(())
    })
    .await;
    let everywhere = admin
        .get("/apis/stable.example.com/v1/crontabs")
        .await
        .expect(200)
        .body;
    assert_eq!(everywhere["items"], json!([]));
}
