//! Versions that a webhook converts.

use super::hook::Hook;
use super::*;

const GROUP: &str = "/apis/stable.example.com";

/// `hostPort: "h:p"` in v1 is `host` and `port` in v2.
pub(super) fn definition(hook: &Hook, stored: &str) -> Value {
    let version = |name: &str, properties: Value| {
        json!({"name": name, "served": true, "storage": name == stored,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    json!({
        "metadata": {"name": "sites.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "sites", "kind": "Site"},
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1", "v1beta1"],
                "clientConfig": {
                    "url": format!("https://localhost:{}/convert", hook.port),
                    "caBundle": hook.bundle,
                },
            }},
            "versions": [
                version("v1", json!({"hostPort": {"type": "string"},
                    "status": {"type": "object", "properties": {"up": {"type": "boolean"}}}})),
                version("v2", json!({"host": {"type": "string"}, "port": {"type": "string"},
                    "status": {"type": "object", "properties": {"up": {"type": "boolean"}}}})),
            ],
        },
    })
}

fn turned(object: &Value, desired: &str) -> Value {
    let mut out = object.clone();
    out["apiVersion"] = desired.into();
    let fields = out.as_object_mut().unwrap();
    if desired.ends_with("/v2") {
        let both = fields.remove("hostPort").unwrap_or_default();
        let (host, port) = both.as_str().unwrap_or(":").split_once(':').unwrap();
        fields.insert("host".to_owned(), host.into());
        fields.insert("port".to_owned(), port.into());
    } else {
        let text = |fields: &mut serde_json::Map<String, Value>, name: &str| {
            let found = fields.remove(name).unwrap_or_default();
            found.as_str().unwrap_or_default().to_owned()
        };
        let (host, port) = (text(fields, "host"), text(fields, "port"));
        fields.insert("hostPort".to_owned(), format!("{host}:{port}").into());
    }
    out["metadata"]["labels"]["version"] = desired.rsplit('/').next().into();
    // What is not the webhook's to change is put back.
    out["metadata"]["generation"] = 77.into();
    out
}

pub(super) fn convert(request: &Value) -> Value {
    let desired = request["desiredAPIVersion"].as_str().unwrap();
    let objects = request["objects"].as_array().unwrap();
    let converted: Vec<Value> = objects.iter().map(|it| turned(it, desired)).collect();
    json!({"result": {"status": "Success"}, "convertedObjects": converted})
}

pub(super) fn site(version: &str, name: &str, rest: Value) -> Value {
    let mut out = json!({"apiVersion": format!("stable.example.com/{version}"), "kind": "Site",
        "metadata": {"name": name}});
    for (key, value) in rest.as_object().unwrap() {
        out[key] = value.clone();
    }
    out
}

pub(super) fn path(version: &str) -> String {
    format!("{GROUP}/{version}/namespaces/{NAMESPACE}/sites")
}

async fn stored(cluster: &Cluster, name: &str) -> Value {
    use evenkeel_store::{Range, Store as _};
    let key = format!("/registry/stable.example.com/sites/{NAMESPACE}/{name}");
    let found = cluster.store().range(Range::key(key)).await.unwrap();
    serde_json::from_slice(&found.kvs[0].value).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_converts_what_is_written_and_read() {
    let (cluster, admin) = open().await;
    let hook = Hook::start(&["localhost"], convert).await;
    establish(&admin, &definition(&hook, "v1")).await;
    let mut watch = admin.watch(&format!("{}?watch=true", path("v2"))).await;

    // Written in v1, which is stored: nobody is asked. Read in v2.
    let first = site("v1", "a", json!({"hostPort": "h:1"}));
    let made = admin.post(&path("v1"), &first).await.expect(201).body;
    assert_eq!(made["hostPort"], "h:1");
    let seen = admin
        .get(&format!("{}/a", path("v2")))
        .await
        .expect(200)
        .body;
    assert_eq!((&seen["host"], &seen["port"]), (&"h".into(), &"1".into()));
    assert_eq!(seen["apiVersion"], "stable.example.com/v2");
    assert!(seen.get("hostPort").is_none());
    assert_eq!(seen["metadata"]["generation"], 1);
    assert_eq!(seen["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(seen["metadata"]["labels"]["version"], "v2");
    assert_eq!(
        seen["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]), (&"ADDED".into(), &seen));

    // Written in v2, stored in v1, and answered as it will be read.
    let second = site("v2", "b", json!({"host": "i", "port": "2"}));
    let made = admin.post(&path("v2"), &second).await.expect(201).body;
    assert_eq!((&made["host"], &made["port"]), (&"i".into(), &"2".into()));
    assert_eq!(stored(&cluster, "b").await["hostPort"], "i:2");
    let event = watch.next().await.unwrap();
    assert_eq!(event["object"], made);

    // Lists ask for all that is missing at once; labels select as they are after conversion.
    hook.asked.lock().clear();
    for name in ["c", "d", "e"] {
        let more = site("v1", name, json!({"hostPort": "j:3"}));
        admin.post(&path("v1"), &more).await.expect(201);
        assert_eq!(watch.next().await.unwrap()["object"]["host"], "j");
    }
    let listed = admin
        .get(&format!("{}?labelSelector=version%3Dv2", path("v2")))
        .await
        .expect(200)
        .body;
    assert_eq!(listed["items"].as_array().unwrap().len(), 5);
    let none = admin
        .get(&format!(
            "{}?labelSelector=version%3Dv2&limit=2",
            path("v1")
        ))
        .await
        .expect(200)
        .body;
    // The one that was stored through v2 was labelled on its way to v1.
    assert_eq!(none["items"].as_array().unwrap().len(), 0);

    // Patches and updates, of status too; a write that changes nothing is none.
    let one = format!("{}/a", path("v2"));
    let patch = json!({"port": "9"});
    let patched = admin
        .patch(&one, MERGE_PATCH, &patch)
        .await
        .expect(200)
        .body;
    assert_eq!(patched["port"], "9");
    assert_eq!(patched["metadata"]["generation"], 2);
    assert_eq!(watch.next().await.unwrap()["object"], patched);
    assert_eq!(stored(&cluster, "a").await["hostPort"], "h:9");
    let again = admin.put(&one, &patched).await.expect(200).body;
    assert_eq!(
        again["metadata"]["resourceVersion"],
        patched["metadata"]["resourceVersion"]
    );
    let mut up = patched.clone();
    up["status"] = json!({"up": true});
    let up = admin
        .put(&format!("{one}/status"), &up)
        .await
        .expect(200)
        .body;
    assert_eq!(up["status"]["up"], true);
    assert_eq!(up["metadata"]["generation"], 2);
    let apply = site("v2", "a", json!({"port": "10"}));
    let applied = admin
        .patch(
            &format!("{one}?fieldManager=m&force=true"),
            APPLY_PATCH,
            &apply,
        )
        .await
        .expect(200)
        .body;
    assert_eq!(
        (&applied["host"], &applied["port"]),
        (&"h".into(), &"10".into())
    );

    // Another version is stored from now on; what was stored before is read in both.
    let name = format!("{DEFINITIONS}/sites.stable.example.com");
    let mut next = admin.get(&name).await.expect(200).body;
    next["spec"]["versions"][0]["storage"] = false.into();
    next["spec"]["versions"][1]["storage"] = true.into();
    admin.put(&name, &next).await.expect(200);
    let third = site("v1", "f", json!({"hostPort": "k:4"}));
    admin.post(&path("v1"), &third).await.expect(201);
    assert_eq!(stored(&cluster, "f").await["host"], "k");
    for version in ["v1", "v2"] {
        let listed = admin.get(&path(version)).await.expect(200).body;
        let items = listed["items"].as_array().unwrap();
        assert_eq!(items.len(), 6);
        let wanted = format!("stable.example.com/{version}");
        assert!(items.iter().all(|item| item["apiVersion"] == *wanted));
    }
    admin.delete(&path("v2"), None).await.expect(200);
    admin.delete(&name, None).await.expect(200);
    until("the definition to go", || async {
        (admin.get(&name).await.code == 404).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_webhook_may_not_do_is_told_in_the_references_words() {
    let (_cluster, admin) = open().await;
    let mode = std::sync::Arc::new(parking_lot::Mutex::new("ok"));
    let asked = std::sync::Arc::clone(&mode);
    let hook = Hook::start(&["localhost"], move |request| {
        let mut said = convert(request);
        let first = &mut said["convertedObjects"][0];
        match *asked.lock() {
            "version" => first["apiVersion"] = "stable.example.com/v9".into(),
            "name" => first["metadata"]["name"] = "other".into(),
            "uid" => first["metadata"]["uid"] = "other".into(),
            "metadata" => first["metadata"]["labels"] = json!({"a": 1}),
            "label" => first["metadata"]["labels"] = json!({"a": "ü"}),
            "count" => said["convertedObjects"] = json!([]),
            "failed" => said["result"] = json!({"status": "Failed", "message": "no idea"}),
            "silent" => said["result"] = json!({}),
            "stranger" => said["uid"] = "x".into(),
            "http" => return json!({"http": 500, "text": "broken"}),
            _ => {}
        }
        said
    })
    .await;
    establish(&admin, &definition(&hook, "v1")).await;
    let first = site("v1", "a", json!({"hostPort": "h:1"}));
    let made = admin.post(&path("v1"), &first).await.expect(201).body;
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let head = "conversion webhook for stable.example.com/v1, Kind=Site";
    let same_uid =
        format!("{head} returned invalid object: must have the same UID: {uid} != other");
    let cases = [
        (
            "version",
            "returned invalid object at index 0: invalid groupVersion (expected \
             stable.example.com/v2, received stable.example.com/v9)",
        ),
        (
            "name",
            "returned invalid object: must have the same name: a != other",
        ),
        ("uid", &same_uid[head.len() + 1..]),
        (
            "metadata",
            "returned invalid metadata: metadata.labels[a] must be a string, but is int64 in \
             converted object",
        ),
        ("count", "returned 0 objects, expected 1"),
        ("failed", "failed: no idea"),
        (
            "silent",
            "failed: response.result.status was '', not 'Success'",
        ),
        (
            "http",
            "failed: an error on the server (\"broken\") has prevented the request from succeeding",
        ),
    ];
    let one = format!("{}/a", path("v2"));
    for (name, wanted) in cases {
        *mode.lock() = name;
        let refused = admin.get(&one).await.expect(500);
        assert_eq!(refused.message(), format!("{head} {wanted}"), "{name}");
        assert_eq!(refused.reason(), "");
    }
    for (name, part) in [
        ("stranger", "expected response.uid="),
        ("label", "metadata.labels: Invalid value: \"ü\": "),
    ] {
        *mode.lock() = name;
        let refused = admin.get(&path("v2")).await.expect(500);
        assert!(refused.message().contains(part), "{}", refused.message());
    }
    // A watch that can't be continued says so and ends.
    *mode.lock() = "ok";
    let mut watch = admin.watch(&format!("{}?watch=true", path("v2"))).await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    *mode.lock() = "failed";
    // The stored version is untouched by all this.
    let patch = json!({"hostPort": "h:2"});
    let stored = format!("{}/a", path("v1"));
    admin.patch(&stored, MERGE_PATCH, &patch).await.expect(200);
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(
        event["object"]["message"],
        format!("{head} failed: no idea")
    );
    assert_eq!(watch.next().await, None);
    // Nothing is written that can't be converted for the store.
    let second = site("v2", "b", json!({"host": "i", "port": "2"}));
    let refused = admin.post(&path("v2"), &second).await.expect(500);
    assert_eq!(
        refused.message(),
        "conversion webhook for stable.example.com/v2, Kind=Site failed: no idea"
    );
    assert_eq!(admin.get(&format!("{}/b", path("v1"))).await.code, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_with_a_webhook_are_held_to_its_form() {
    let (_cluster, admin) = open().await;
    let hook = Hook::start(&["localhost"], convert).await;
    let at = "spec.conversion";
    let cases = [
        (
            json!({"strategy": "Webhook"}),
            vec![
                format!(
                    "{at}.webhookClientConfig: Required value: required when strategy is set to Webhook"
                ),
                format!("{at}.conversionReviewVersions: Required value"),
            ],
        ),
        (
            json!({"strategy": "Webhook", "webhook": {"clientConfig": {},
                "conversionReviewVersions": ["v0", "v0"]}}),
            vec![
                format!(
                    "{at}.webhookClientConfig: Required value: exactly one of url or service is required"
                ),
                format!(
                    "{at}.conversionReviewVersions[1]: Invalid value: \"v0\": duplicate version"
                ),
                format!(
                    "{at}.conversionReviewVersions: Invalid value: [\"v0\",\"v0\"]: must include at least one of v1, v1beta1"
                ),
            ],
        ),
        (
            json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "http://a/b"},
                "conversionReviewVersions": ["v1"]}}),
            vec![format!(
                "{at}.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only \
                 allowed URL scheme"
            )],
        ),
    ];
    for (conversion, wanted) in cases {
        let mut given = definition(&hook, "v1");
        given["spec"]["conversion"] = conversion;
        let refused = admin.post(DEFINITIONS, &given).await.expect(422);
        for text in wanted {
            assert!(refused.message().contains(&text), "{}", refused.message());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admission_webhooks_see_the_version_that_they_ask_for() {
    let (_cluster, admin) = open().await;
    let converter = Hook::start(&["localhost"], convert).await;
    establish(&admin, &definition(&converter, "v1")).await;
    let mutator = Hook::start(&["localhost"], |_| {
        super::hook::patch(&json!([{"op": "replace", "path": "/port", "value": "80"}]))
    })
    .await;
    let rule = json!({"operations": ["CREATE", "UPDATE"], "apiGroups": ["stable.example.com"],
        "apiVersions": ["v2"], "resources": ["sites"]});
    let configuration = json!({"metadata": {"name": "ports"},
        "webhooks": [mutator.entry("ports.example.com", &rule)]});
    admin
        .post(
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            &configuration,
        )
        .await
        .expect(201);
    let first = site("v1", "a", json!({"hostPort": "h:1"}));
    let made = admin.post(&path("v1"), &first).await.expect(201).body;
    assert_eq!(made["hostPort"], "h:80");
    assert_eq!(made["apiVersion"], "stable.example.com/v1");
    let patch = json!({"hostPort": "k:1"});
    let one = format!("{}/a", path("v1"));
    let patched = admin
        .patch(&one, MERGE_PATCH, &patch)
        .await
        .expect(200)
        .body;
    assert_eq!(patched["hostPort"], "k:80");
    let asked = mutator.asked.lock().clone();
    assert_eq!(asked.len(), 2);
    let version = |of: &Value| of["version"].as_str().unwrap().to_owned();
    for request in &asked {
        assert_eq!(version(&request["kind"]), "v2");
        assert_eq!(version(&request["resource"]), "v2");
        assert_eq!(version(&request["requestKind"]), "v1");
        assert_eq!(version(&request["requestResource"]), "v1");
        assert_eq!(request["object"]["apiVersion"], "stable.example.com/v2");
    }
    assert_eq!(asked[1]["oldObject"]["port"], "80");
    assert_eq!(asked[1]["object"]["host"], "k");
}
