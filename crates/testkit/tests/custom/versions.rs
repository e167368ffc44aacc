//! Several versions of a kind: one set of objects, shown in each.

use super::*;

const GROUP: &str = "/apis/shop.example.com";

fn widgets(stored: &str) -> Value {
    let version = |name: &str, properties: Value| {
        json!({"name": name, "served": true, "storage": name == stored,
            "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": properties}}}}})
    };
    let mut old = version(
        "v1beta1",
        json!({"size": {"type": "integer"}, "old": {"type": "string"}}),
    );
    old["deprecated"] = true.into();
    json!({
        "metadata": {"name": "widgets.shop.example.com"},
        "spec": {
            "group": "shop.example.com", "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                old,
                version("v1", json!({"size": {"type": "integer"},
                    "color": {"type": "string", "default": "grey"}})),
            ],
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_shows_the_same_objects() {
    let (cluster, admin) = open().await;
    let made = establish(&admin, &widgets("v1beta1")).await;
    assert_eq!(made["status"]["storedVersions"], json!(["v1beta1"]));
    let groups = admin.get(GROUP).await.expect(200).body;
    assert_eq!(groups["preferredVersion"]["version"], "v1");
    let versions: Vec<&str> = groups["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["v1", "v1beta1"]);

    let (old, new) = (
        format!("{GROUP}/v1beta1/widgets"),
        format!("{GROUP}/v1/widgets"),
    );
    let mut watch = admin.watch(&format!("{new}?watch=true")).await;
    let sent = json!({"apiVersion": "shop.example.com/v1beta1", "kind": "Widget",
        "metadata": {"name": "w"}, "spec": {"size": 1, "old": "x"}});
    let answer = admin.post(&old, &sent).await.expect(201);
    assert_eq!(
        answer.warnings,
        ["299 - \"shop.example.com/v1beta1 Widget is deprecated; use shop.example.com/v1 Widget\""]
    );
    let seen = admin.get(&format!("{new}/w")).await.expect(200).body;
    assert_eq!(seen["apiVersion"], "shop.example.com/v1");
    assert_eq!(seen["spec"], json!({"size": 1, "color": "grey"}));
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["apiVersion"], "shop.example.com/v1");
    assert_eq!(event["object"]["spec"]["color"], "grey");

    // A write through one version is seen through the other.
    let patch = json!({"spec": {"size": 2}});
    let patched = admin
        .patch(&format!("{new}/w"), MERGE_PATCH, &patch)
        .await
        .expect(200)
        .body;
    assert_eq!(patched["spec"], json!({"size": 2, "color": "grey"}));
    let listed = admin.get(&old).await.expect(200).body;
    assert_eq!(listed["items"][0]["spec"]["size"], 2);
    assert_eq!(listed["items"][0]["apiVersion"], "shop.example.com/v1beta1");
    assert_eq!(
        listed["items"][0]["metadata"]["resourceVersion"],
        patched["metadata"]["resourceVersion"]
    );
    let stored = stored(&cluster, "w").await;
    assert_eq!(stored["apiVersion"], "shop.example.com/v1beta1");

    assert_eq!(watch.next().await.unwrap()["type"], "MODIFIED");

    // Another version is stored from now on. A write that changes nothing moves the object.
    let definition = format!("{DEFINITIONS}/widgets.shop.example.com");
    let current = admin.get(&definition).await.expect(200).body;
    let mut next = current.clone();
    next["spec"]["versions"][0]["storage"] = false.into();
    next["spec"]["versions"][1]["storage"] = true.into();
    let next = admin.put(&definition, &next).await.expect(200).body;
    assert_eq!(next["status"]["storedVersions"], json!(["v1beta1", "v1"]));
    assert_eq!(watch.next().await, None, "the watch of the old schema ends");
    let same = admin.get(&format!("{new}/w")).await.expect(200).body;
    let moved = admin.put(&format!("{new}/w"), &same).await.expect(200).body;
    assert_ne!(
        moved["metadata"]["resourceVersion"],
        same["metadata"]["resourceVersion"]
    );
    let stored = self::stored(&cluster, "w").await;
    assert_eq!(stored["apiVersion"], "shop.example.com/v1");
    let again = admin
        .put(&format!("{new}/w"), &moved)
        .await
        .expect(200)
        .body;
    assert_eq!(
        moved["metadata"]["resourceVersion"],
        again["metadata"]["resourceVersion"]
    );

    // A version with stored objects can't be left out.
    let mut without = admin.get(&definition).await.expect(200).body;
    without["spec"]["versions"]
        .as_array_mut()
        .unwrap()
        .remove(0);
    let refused = admin.put(&definition, &without).await.expect(422);
    assert!(
        refused.message().contains(
            "status.storedVersions[0]: Invalid value: \"v1beta1\": missing from spec.versions"
        ),
        "{}",
        refused.message()
    );
    // One that is not served any more is gone from the paths.
    let mut unserved = admin.get(&definition).await.expect(200).body;
    unserved["spec"]["versions"][0]["served"] = false.into();
    admin.put(&definition, &unserved).await.expect(200);
    assert_eq!(admin.get(&old).await.code, 404);
    admin.get(&new).await.expect(200);
}

/// An object as it is in the store.
async fn stored(cluster: &Cluster, name: &str) -> Value {
    use evenkeel_store::{Range, Store as _};
    let key = format!("/registry/shop.example.com/widgets/{name}");
    let found = cluster.store().range(Range::key(key)).await.unwrap();
    serde_json::from_slice(&found.kvs[0].value).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defaults_that_come_later_are_seen_and_a_restart_changes_nothing() {
    let (cluster, admin) = open().await;
    establish(&admin, &cron_tabs()).await;
    let one = format!("{}/t", path());
    admin
        .post(&path(), &cron_tab("t", json!({"cronSpec": "* * * * *"})))
        .await
        .expect(201);
    let before = admin.get(&one).await.expect(200).body;
    let definition = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let later = json!([{"op": "add",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/image/default",
        "value": "busybox"}]);
    admin
        .patch(&definition, JSON_PATCH, &later)
        .await
        .expect(200);
    let after = admin.get(&one).await.expect(200).body;
    assert_eq!(after["spec"]["image"], "busybox");
    assert_eq!(
        after["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );
    let cluster = cluster.restarted().await;
    let admin = super::admin(&cluster);
    let again = admin.get(&one).await.expect(200).body;
    assert_eq!(again, after);
    let found = admin.get(&definition).await.expect(200).body;
    assert_eq!(condition(&found, "Established").unwrap()["status"], "True");
}
