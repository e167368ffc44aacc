//! Storage-version migrations on the whole cluster in a process: objects of a custom kind are
//! stored in today's version, and its definition forgets the others.

#![allow(clippy::unwrap_used, reason = "tests")]

use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Cluster};
use serde_json::{Value, json};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1/storageversionmigrations";
const GROUP: &str = "/apis/shop.example.com";

fn definition(stored: &str) -> Value {
    let version = |name: &str| {
        json!({"name": name, "served": true, "storage": name == stored,
            "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object",
                    "properties": {"size": {"type": "integer"}}}}}}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.shop.example.com"},
        "spec": {
            "group": "shop.example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [version("v1"), version("v2")],
        },
    })
}

fn condition<'a>(object: &'a Value, name: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array();
    all.and_then(|all| all.iter().find(|it| it["type"] == name))
        .unwrap_or(&Value::Null)
}

fn migration(name: &str, group: &str, resource: &str) -> Value {
    json!({
        "apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration",
        "metadata": {"name": name}, "spec": {"resource": {"group": group, "resource": resource}},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_stored_anew_and_the_definition_forgets_old_versions() {
    let mut cluster = Cluster::door().await;
    cluster.run_controllers();
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    admin.post(CRDS, &definition("v1")).await.expect(201);
    let crd = format!("{CRDS}/widgets.shop.example.com");
    let established = |it: &Value| condition(it, "Established")["status"] == "True";
    admin.until(&crd, "the kind", established).await;
    let widgets = format!("{GROUP}/v1/namespaces/default/widgets");
    for at in 0..5 {
        let widget = json!({"apiVersion": "shop.example.com/v1", "kind": "Widget",
            "metadata": {"name": format!("w{at}")}, "spec": {"size": at}});
        admin.post(&widgets, &widget).await.expect(201);
    }
    // Another version is stored from now on; what is there stays as it is.
    let patch = json!({"spec": {"versions": definition("v2")["spec"]["versions"]}});
    let changed = admin
        .patch(&crd, "application/merge-patch+json", &patch)
        .await
        .expect(200)
        .body;
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    let before = admin.get(&widgets).await.expect(200).body;
    let revision = |list: &Value, at: usize| -> u64 {
        let text = list["items"][at]["metadata"]["resourceVersion"].as_str();
        text.unwrap().parse().unwrap()
    };
    let again = migration("again", "shop.example.com", "widgets");
    admin.post(MIGRATIONS, &again).await.expect(201);
    let path = format!("{MIGRATIONS}/again");
    let done = admin
        .until(&path, "the end", |it| {
            condition(it, "Succeeded")["status"] == "True"
                && condition(it, "Running")["status"] == "False"
        })
        .await;
    assert_eq!(
        condition(&done, "Succeeded")["reason"],
        "StorageVersionMigrationSucceeded"
    );
    assert_eq!(condition(&done, "Running")["reason"], "MigrationCompleted");
    assert!(done["status"]["resourceVersion"].is_string(), "{done:#}");
    let after = admin.get(&widgets).await.expect(200).body;
    for at in 0..5 {
        assert!(
            revision(&after, at) > revision(&before, at),
            "{at} is as it was"
        );
        assert_eq!(after["items"][at]["spec"], before["items"][at]["spec"]);
    }
    let told = admin
        .until(&crd, "the definition", |it| {
            it["status"]["storedVersions"] == json!(["v2"])
        })
        .await;
    let migrating = condition(&told, "StorageMigrating");
    assert_eq!(migrating["status"], "False", "{told:#}");
    assert_eq!(migrating["reason"], "MigrationSucceeded");
    assert_eq!(condition(&told, "Established")["status"], "True");
    // Once more finds nothing to write: everything is stored as it should be.
    let twice = migration("twice", "shop.example.com", "widgets");
    admin.post(MIGRATIONS, &twice).await.expect(201);
    admin
        .until(&format!("{MIGRATIONS}/twice"), "the end", |it| {
            condition(it, "Succeeded")["status"] == "True"
        })
        .await;
    let still = admin.get(&widgets).await.expect(200).body;
    for at in 0..5 {
        assert_eq!(revision(&still, at), revision(&after, at));
    }
    // The old version may go now.
    let only = json!({"spec": {"versions": [definition("v2")["spec"]["versions"][1]]}});
    admin
        .patch(&crd, "application/merge-patch+json", &only)
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_migrated_fails_with_the_reason() {
    let mut cluster = Cluster::door().await;
    cluster.run_controllers();
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let path = |name: &str| format!("{MIGRATIONS}/{name}");
    let reviews = migration("reviews", "authentication.k8s.io", "tokenreviews");
    admin.post(MIGRATIONS, &reviews).await.expect(201);
    let failed = admin
        .until(&path("reviews"), "the end", |it| {
            condition(it, "Failed")["status"] == "True"
        })
        .await;
    let text = condition(&failed, "Failed")["message"].as_str().unwrap();
    assert!(
        text.contains("does not support discovery operations: [update patch list]"),
        "{text}"
    );
    // Built-in kinds are written again too.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    admin
        .post("/api/v1/namespaces/default/secrets", &secret)
        .await
        .expect(201);
    let secrets = migration("secrets", "", "secrets");
    admin.post(MIGRATIONS, &secrets).await.expect(201);
    admin
        .until(&path("secrets"), "the end", |it| {
            condition(it, "Succeeded")["status"] == "True"
        })
        .await;
}
