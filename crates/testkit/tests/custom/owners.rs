//! Owners of fields of a custom kind with several versions.

use evenkeel_testkit::Reply;

use super::conversion::{convert, definition, path as sites, site};
use super::hook::Hook;
use super::*;

const GROUP: &str = "/apis/shop.example.com";
const OLD: &str = "shop.example.com/v1beta1";
const NEW: &str = "shop.example.com/v1";

/// Tags are one value in the old version and a set in the new one, which is stored.
fn widgets() -> Value {
    let version = |name: &str, list: &str| {
        json!({"name": name, "served": true, "storage": name == "v1",
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {
                    "size": {"type": "integer"},
                    "tags": {"type": "array", "x-kubernetes-list-type": list,
                        "items": {"type": "string"}}}},
                "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}}}})
    };
    json!({
        "metadata": {"name": "widgets.shop.example.com"},
        "spec": {
            "group": "shop.example.com", "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [version("v1beta1", "atomic"), version("v1", "set")],
        },
    })
}

async fn apply(admin: &Caller, manager: &str, version: &str, spec: Value, force: bool) -> Reply {
    let config = json!({"apiVersion": version, "kind": "Widget", "metadata": {"name": "w"},
        "spec": spec});
    let version = version.rsplit('/').next().unwrap();
    let path = format!("{GROUP}/{version}/widgets/w?fieldManager={manager}&force={force}");
    admin.patch(&path, APPLY_PATCH, &config).await
}

/// Who owns what, in which version.
fn owners(object: &Value) -> Vec<(String, String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array();
    entries
        .into_iter()
        .flatten()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            (
                text("manager"),
                text("apiVersion"),
                entry["fieldsV1"].clone(),
            )
        })
        .collect()
}

fn owner(manager: &str, version: &str, set: Value) -> (String, String, Value) {
    (manager.to_owned(), version.to_owned(), set)
}

/// A set of fields of the spec.
fn spec(set: Value) -> Value {
    json!({ "f:spec": set })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_see_changes_in_the_shape_of_their_version() {
    let (_cluster, admin) = open().await;
    establish(&admin, &widgets()).await;
    let first = json!({"size": 1, "tags": ["a"]});
    let made = apply(&admin, "one", OLD, first, false)
        .await
        .expect(201)
        .body;
    let ones = spec(json!({"f:size": {}, "f:tags": {}}));
    assert_eq!(owners(&made), [owner("one", OLD, ones)]);

    // One more tag is another value for who has all of them.
    let more = json!({"tags": ["b"]});
    let refused = apply(&admin, "two", NEW, more.clone(), false).await;
    assert_eq!(
        refused.expect(409).message(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.tags"
    );
    let both = apply(&admin, "two", NEW, more, true).await.expect(200).body;
    assert_eq!(both["spec"]["tags"], json!(["a", "b"]));
    let ones = owner("one", OLD, spec(json!({"f:size": {}})));
    let twos = owner("two", NEW, spec(json!({"f:tags": {"v:\"b\"": {}}})));
    assert_eq!(owners(&both), [ones.clone(), twos.clone()]);

    // A status through one version takes nothing from who wrote a spec through another.
    for (version, ready) in [("v1beta1", true), ("v1", false)] {
        let path = format!("{GROUP}/{version}/widgets/w/status?fieldManager=loop-{version}");
        let status = json!({"spec": {"size": 7}, "status": {"ready": ready}});
        let seen = admin.patch(&path, MERGE_PATCH, &status).await.expect(200);
        assert_eq!(owners(&seen.body)[..2], [ones.clone(), twos.clone()]);
        let set = json!({"f:status": if version == "v1beta1" {
            json!({".": {}, "f:ready": {}})
        } else {
            json!({"f:ready": {}})
        }});
        let last = owner(
            &format!("loop-{version}"),
            &format!("shop.example.com/{version}"),
            set,
        );
        assert!(owners(&seen.body).contains(&last), "{:#}", seen.body);
    }

    // A version that is not served any more is still one.
    let name = format!("{DEFINITIONS}/widgets.shop.example.com");
    let unserved = json!([{"op": "replace", "path": "/spec/versions/0/served", "value": false}]);
    admin.patch(&name, JSON_PATCH, &unserved).await.expect(200);
    let old = format!("{GROUP}/v1beta1/widgets");
    until("the version to go", || async {
        (admin.get(&old).await.code == 404).then_some(())
    })
    .await;
    let refused = apply(&admin, "two", NEW, json!({"size": 2, "tags": ["b"]}), false).await;
    assert_eq!(
        refused.expect(409).message(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.size"
    );
    let less = apply(&admin, "two", NEW, json!({"size": 1}), false)
        .await
        .expect(200)
        .body;
    // A list goes with the last who had anything in it.
    assert_eq!(less["spec"], json!({"size": 1}));
    let twos = owner("two", NEW, spec(json!({"f:size": {}})));
    assert_eq!(owners(&less)[..2], [ones, twos.clone()]);

    // One that the definition does not have any more is none: its owners are forgotten.
    let gone = json!([{"op": "remove", "path": "/spec/versions/0"}]);
    admin.patch(&name, JSON_PATCH, &gone).await.expect(200);
    let bigger = until("the new definition", || async {
        let reply = apply(&admin, "two", NEW, json!({"size": 2}), false).await;
        (reply.code == 200).then_some(reply.body)
    })
    .await;
    assert_eq!(bigger["spec"]["size"], 2);
    let left = owners(&bigger);
    let names: Vec<&str> = left.iter().map(|it| it.0.as_str()).collect();
    assert_eq!(names, ["two", "loop-v1"]);
    assert_eq!(left[0], twos);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_says_what_owners_of_another_version_see() {
    let (_cluster, admin) = open().await;
    let works = std::sync::Arc::new(parking_lot::Mutex::new(true));
    let asked = std::sync::Arc::clone(&works);
    let hook = Hook::start(&["localhost"], move |request| {
        if *asked.lock() {
            return convert(request);
        }
        json!({"result": {"status": "Failed", "message": "no idea"}})
    })
    .await;
    establish(&admin, &definition(&hook, "v1")).await;
    let (v1, v2) = ("stable.example.com/v1", "stable.example.com/v2");
    let apply = async |manager: &str, version: &str, rest: Value, force: bool| -> Reply {
        let path = format!("{}/a?fieldManager={manager}&force={force}", sites(version));
        admin
            .patch(&path, APPLY_PATCH, &site(version, "a", rest))
            .await
    };
    let patch = async |manager: &str, rest: Value| -> Reply {
        let path = format!("{}/a?fieldManager={manager}", sites("v1"));
        admin.patch(&path, MERGE_PATCH, &rest).await
    };

    // Nobody is asked while all owners wrote in the version of the request.
    apply("zero", "v1", json!({"hostPort": "g:0"}), false)
        .await
        .expect(201);
    patch("zero", json!({"hostPort": "g:1"})).await.expect(200);
    assert_eq!(hook.count(), 0);
    admin
        .delete(&format!("{}/a", sites("v1")), None)
        .await
        .expect(200);

    let made = apply("one", "v2", json!({"host": "h", "port": "1"}), false)
        .await
        .expect(201)
        .body;
    let set = json!({"f:host": {}, "f:port": {}});
    assert_eq!(owners(&made), [owner("one", v2, set)]);
    // Another port is another value in this version, and the port alone in the owner's.
    let seen = patch("two", json!({"hostPort": "h:2"}))
        .await
        .expect(200)
        .body;
    let ones = owner("one", v2, json!({"f:host": {}}));
    let twos = owner("two", v1, json!({"f:hostPort": {}}));
    assert_eq!(owners(&seen), [ones.clone(), twos.clone()]);
    let refused = apply("three", "v2", json!({"port": "3"}), false).await;
    assert_eq!(
        refused.expect(409).message(),
        "Apply failed with 1 conflict: conflict with \"two\" using stable.example.com/v1: \
         .hostPort"
    );
    let refused = apply("four", "v1", json!({"hostPort": "i:2"}), false).await;
    assert_eq!(
        refused.expect(409).message(),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .host\nconflicts with \"two\" \
         using stable.example.com/v1:\n- .hostPort"
    );
    // What is the same in one version is so in all of them: nobody is asked.
    let count = hook.count();
    patch("five", json!({"hostPort": "h:2"})).await.expect(200);
    assert_eq!(hook.count(), count);

    // Without an answer an apply is refused, and an update leaves the owners as they are.
    *works.lock() = false;
    let refused = apply("four", "v1", json!({"hostPort": "i:2"}), true).await;
    let refused = refused.expect(500);
    assert_eq!(
        refused.message(),
        "conversion webhook for stable.example.com/v1, Kind=Site failed: no idea"
    );
    assert_eq!(refused.reason(), "");
    let seen = patch("five", json!({"hostPort": "h:5"}))
        .await
        .expect(200)
        .body;
    assert_eq!(seen["hostPort"], "h:5");
    assert_eq!(owners(&seen), [ones, twos]);
    *works.lock() = true;

    // One goes to the other version and back, with all that is one's own.
    let seen = apply("one", "v1", json!({"hostPort": "k:5"}), true)
        .await
        .expect(200)
        .body;
    assert_eq!(owners(&seen), [owner("one", v1, json!({"f:hostPort": {}}))]);
    let seen = apply("one", "v2", json!({"host": "l"}), false)
        .await
        .expect(200)
        .body;
    assert_eq!((&seen["host"], &seen["port"]), (&"l".into(), &"5".into()));
    assert_eq!(owners(&seen), [owner("one", v2, json!({"f:host": {}}))]);
}
