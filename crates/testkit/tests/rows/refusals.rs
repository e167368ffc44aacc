//! What is refused before anything is done: wrong paths, options and bodies.

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{APPLY_PATCH, JSON_PATCH, MERGE_PATCH, NAMESPACE, STRATEGIC_PATCH, open};

fn maps() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"suite": "refusals"}}})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]}}}})
}

#[tokio::test]
async fn nothing_is_done_in_all_namespaces_at_once() {
    let (_cluster, admin) = open().await;
    admin.post(&maps(), &map("a")).await.expect(201);
    let everywhere = "/api/v1/configmaps?labelSelector=suite%3Drefusals";
    let refused = admin.delete(everywhere, None).await.expect(405);
    assert_eq!(refused.reason(), "MethodNotAllowed");
    admin
        .post("/api/v1/configmaps", &map("b"))
        .await
        .expect(405);
    let one = "/api/v1/configmaps/a";
    admin.delete(one, None).await.expect(404);
    admin.post(one, &map("a")).await.expect(404);
    let list = admin.get(everywhere).await.expect(200).body;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    for path in [everywhere, &maps(), &format!("{}/a", maps()), "/version"] {
        assert_eq!(
            admin.send("HEAD", path, &[], None).await.code,
            405,
            "{path}"
        );
    }
    assert_eq!(admin.send("HEAD", "/healthz", &[], None).await.code, 200);
}

#[tokio::test]
async fn paths_that_lead_nowhere_are_told_in_plain_text() {
    let (_cluster, admin) = open().await;
    for path in ["/nonsense", "/apis/nonsense", "/apis/nonsense/v1/things"] {
        let answer = admin.get(path).await.expect(404);
        assert_eq!(answer.body, json!("404 page not found\n"), "{path}");
    }
    let posted = admin.post("/nonsense", &json!({})).await.expect(404);
    assert_eq!(posted.body, json!("404 page not found\n"));
    for path in ["/api/v1/nonsense", "/apis/apps/v2", "/apis/apps/v1/things"] {
        let answer = admin.get(path).await.expect(404);
        assert_eq!(answer.body["kind"], "Status", "{path}");
    }
}

#[tokio::test]
async fn options_are_checked_before_anything_is_done() {
    let (_cluster, admin) = open().await;
    admin.post(&maps(), &map("a")).await.expect(201);
    let one = format!("{}/a", maps());
    for (query, code) in [
        ("limit=x", 400),
        ("timeoutSeconds=x", 400),
        ("sendInitialEvents=true", 422),
        ("resourceVersionMatch=Foo", 422),
        ("watch=true&sendInitialEvents=true", 422),
    ] {
        let answer = admin.get(&format!("{}?{query}", maps())).await;
        assert_eq!(answer.code, code, "{query}: {:#}", answer.body);
    }
    for query in ["dryRun=Foo", "fieldValidation=Foo", "fieldManager=a%0Ab"] {
        let answer = admin.post(&format!("{}?{query}", maps()), &map("b")).await;
        let answer = answer.expect(422);
        assert_eq!(answer.body["details"]["kind"], "CreateOptions", "{query}");
        let answer = admin
            .patch(&format!("{one}?{query}"), MERGE_PATCH, &json!({}))
            .await;
        assert_eq!(answer.expect(422).body["details"]["kind"], "PatchOptions");
    }
    for body in [
        json!({"kind": "ConfigMap", "apiVersion": "v1"}),
        json!([]),
        json!({"gracePeriodSeconds": "x"}),
    ] {
        admin.delete(&one, Some(&body)).await.expect(400);
        admin.delete(&maps(), Some(&body)).await.expect(400);
    }
    for body in [
        json!({"orphanDependents": true, "propagationPolicy": "Orphan"}),
        json!({"dryRun": ["Foo"]}),
    ] {
        let answer = admin.delete(&one, Some(&body)).await.expect(422);
        assert_eq!(answer.body["details"]["kind"], "DeleteOptions");
    }
    let unreadable = json!({"ignoreStoreReadErrorWithClusterBreakingPotential": true});
    admin.delete(&one, Some(&unreadable)).await.expect(409);
    admin.delete(&maps(), Some(&unreadable)).await.expect(422);
    let grace = format!("{one}?gracePeriodSeconds=x");
    admin.delete(&grace, None).await.expect(400);
    admin.get(&one).await.expect(200);
}

#[tokio::test]
async fn what_a_patch_makes_must_be_of_the_kind() {
    let (_cluster, admin) = open().await;
    admin.post(&maps(), &map("a")).await.expect(201);
    let one = format!("{}/a", maps());
    let strict = format!("{one}?fieldValidation=Strict");
    for (path, kind, body, code, text) in [
        (
            &one,
            MERGE_PATCH,
            json!({"data": []}),
            422,
            " \"\" is invalid: patch: Invalid value: ",
        ),
        (
            &strict,
            STRATEGIC_PATCH,
            json!({"foo": "b"}),
            422,
            " \"\" is invalid: patch: Invalid value: \"map[foo:b]\": strict decoding error: unknown \
             field \"foo\"",
        ),
        (
            &one,
            MERGE_PATCH,
            json!({"metadata": {"uid": "x"}}),
            422,
            "ConfigMap \"a\" is invalid: metadata.uid: Invalid value: \"x\": field is immutable",
        ),
        (
            &one,
            MERGE_PATCH,
            json!({"kind": "Foo"}),
            422,
            "no kind \"Foo\" is registered",
        ),
        (
            &one,
            MERGE_PATCH,
            json!({"metadata": {"name": "b"}}),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            &one,
            MERGE_PATCH,
            json!({"metadata": null}),
            400,
            "the name of the object (a based on URL) was undeterminable: name must be provided",
        ),
        (
            &one,
            MERGE_PATCH,
            json!({"metadata": {"namespace": "b"}}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ] {
        let answer = admin.patch(path, kind, &body).await;
        assert_eq!(answer.code, code, "{body}: {:#}", answer.body);
        assert!(answer.message().contains(text), "{}", answer.message());
    }
    for (kind, body) in [
        (MERGE_PATCH, json!({"kind": null})),
        (
            STRATEGIC_PATCH,
            json!({"kind": "Foo", "apiVersion": "apps/v1"}),
        ),
        (JSON_PATCH, json!([{"op": "remove", "path": "/kind"}])),
    ] {
        let answer = admin.patch(&one, kind, &body).await.expect(200);
        assert_eq!(answer.body["kind"], "ConfigMap");
    }
    let nameless = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}});
    let path = format!("{}/b?fieldManager=x", maps());
    admin.patch(&path, APPLY_PATCH, &nameless).await.expect(400);
    let path = format!("{one}?fieldManager=x");
    admin.patch(&path, APPLY_PATCH, &nameless).await.expect(200);
}

#[tokio::test]
async fn a_version_of_what_is_not_there_yet_is_refused_where_it_is_one() {
    let (_cluster, admin) = open().await;
    let mut versioned = map("a");
    versioned["metadata"]["resourceVersion"] = "5".into();
    let refused = admin.post(&maps(), &versioned).await.expect(500);
    assert_eq!(
        refused.message(),
        "resourceVersion should not be set on objects to be created"
    );
    for (name, version) in [("a", "0"), ("b", "x")] {
        let mut versioned = map(name);
        versioned["metadata"]["resourceVersion"] = version.into();
        admin.post(&maps(), &versioned).await.expect(201);
    }
    let mut timed = map("c");
    timed["metadata"]["creationTimestamp"] = "".into();
    admin.post(&maps(), &timed).await.expect(400);
}

#[tokio::test]
async fn a_scale_is_put_and_applied_by_name() {
    let (_cluster, admin) = open().await;
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    admin.post(&path, &deployment("d")).await.expect(201);
    let scale = format!("{path}/d/scale");
    for metadata in [json!({}), json!({"name": "x"})] {
        let sent = json!({"metadata": metadata, "spec": {"replicas": 2}});
        admin.put(&scale, &sent).await.expect(400);
    }
    let sent = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2}});
    let put = admin.put(&scale, &sent).await.expect(200).body;
    assert_eq!(put["spec"]["replicas"], 2);

    let config = |replicas: i64| {
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
            "spec": {"replicas": replicas}})
    };
    let by = format!("{scale}?fieldManager=scaler");
    let conflict = admin.patch(&by, APPLY_PATCH, &config(3)).await.expect(409);
    assert!(conflict.message().contains(".spec.replicas"));
    let forced = format!("{by}&force=true");
    let applied = admin.patch(&forced, APPLY_PATCH, &config(3)).await;
    assert_eq!(applied.expect(200).body["spec"]["replicas"], 3);
    let value = admin.get(&format!("{path}/d")).await.expect(200).body;
    assert_eq!(value["spec"]["replicas"], 3);
    let owners = value["metadata"]["managedFields"].as_array().unwrap();
    let owner = owners.iter().find(|entry| entry["manager"] == "scaler");
    let owner = owner.unwrap();
    assert_eq!(
        (&owner["apiVersion"], &owner["subresource"]),
        (&json!("apps/v1"), &json!("scale"))
    );
    assert_eq!(owner["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
    admin.patch(&by, APPLY_PATCH, &other).await.expect(400);
    let absent = format!("{path}/x/scale?fieldManager=scaler");
    let mut nobody = config(3);
    nobody["metadata"]["name"] = "x".into();
    admin.patch(&absent, APPLY_PATCH, &nobody).await.expect(404);
}

#[tokio::test]
async fn bindings_tokens_and_evictions_are_about_what_their_path_names() {
    let (_cluster, admin) = open().await;
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "app", "image": "app:1"}]}});
    admin.post(&pods, &pod).await.expect(201);
    let binding = format!("{pods}/p/binding");
    for (name, kind, code) in [("p", "Foo", 500), ("q", "Node", 400)] {
        let body = json!({"metadata": {"name": name}, "target": {"kind": kind, "name": "n"}});
        admin.post(&binding, &body).await.expect(code);
    }
    let token = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default/token");
    for (metadata, code) in [
        (json!({"name": "other"}), 422),
        (json!({"namespace": "other"}), 400),
        (json!({"name": "default"}), 201),
    ] {
        let body = json!({"metadata": metadata, "spec": {}});
        admin.post(&token, &body).await.expect(code);
    }
    // Who takes the tolerations that every pod has away gets them back.
    let tolerant = json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}});
    let one = format!("{pods}/p");
    let patched = admin.patch(&one, STRATEGIC_PATCH, &tolerant).await;
    let patched = patched.expect(200).body;
    assert_eq!(patched["spec"]["tolerations"].as_array().unwrap().len(), 3);

    let eviction = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction",
        "metadata": {"name": "p"}});
    let path = format!("{pods}/p/eviction");
    admin.post(&path, &eviction).await.expect(201);
}

#[tokio::test]
async fn the_old_paths_of_watches_watch() {
    let (_cluster, admin) = open().await;
    for name in ["a", "b"] {
        admin.post(&maps(), &map(name)).await.expect(201);
    }
    let path = format!("/api/v1/watch/namespaces/{NAMESPACE}/configmaps/b");
    let mut watch = admin.watch(&path).await;
    let (kind, name, _) = watch.event().await;
    assert_eq!((kind.as_str(), name.as_str()), ("ADDED", "b"));
    let path = format!("{}/b?watch=true", maps());
    assert_eq!(admin.get(&path).await.expect(200).body["kind"], "ConfigMap");
}

#[tokio::test]
async fn odd_fields_are_told_in_their_order() {
    let (_cluster, admin) = open().await;
    let body = br#"{"metadata":{"name":"odd"},"zeta":1,"data":{"a":"1","a":"2"},"alpha":2}"#;
    let path = format!("{}?fieldValidation=Strict", maps());
    let answer = admin.exchange("POST", &path, &[], body.to_vec()).await;
    assert_eq!(answer.status(), 400);
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&bytes).unwrap();
    let odd = "unknown field \"zeta\", duplicate field \"data.a\", unknown field \"alpha\"";
    assert_eq!(
        status["message"],
        format!(
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: {odd}"
        )
    );
}

#[tokio::test]
async fn fields_that_stand_twice_in_yaml_are_told_by_their_lines() {
    let (_cluster, admin) = open().await;
    let body =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: odd\ndata:\n  a: '1'\n  a: '2'\n";
    let said = "yaml: unmarshal errors:\n  line 7: key \"a\" already set in map";
    let strict = |path: String| format!("{path}?fieldValidation=Strict&fieldManager=m");
    let one = format!("{}/odd", maps());
    for (method, path, content_type, prefix) in [
        (
            "POST",
            strict(maps()),
            "application/yaml",
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: ",
        ),
        (
            "PATCH",
            strict(one),
            APPLY_PATCH,
            "error strict decoding patch: error converting YAML to JSON: ",
        ),
    ] {
        let headers = [("content-type", content_type)];
        let answer = admin.exchange(method, &path, &headers, body.into()).await;
        assert_eq!(answer.status(), 400);
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(status["message"], format!("{prefix}{said}"));
    }
    admin.get(&format!("{}/odd", maps())).await.expect(404);
    let path = format!("{}?fieldValidation=Warn", maps());
    let headers = [("content-type", "application/yaml")];
    let answer = admin.exchange("POST", &path, &headers, body.into()).await;
    assert_eq!(answer.status(), 201);
    let warned = answer.headers()["warning"].to_str().unwrap().to_owned();
    let words = r#"299 - "line 7: key \"a\" already set in map""#;
    assert_eq!(warned, words);
}
