//! Objects of a custom kind: every verb, as for built-in kinds.

use super::*;

async fn ready() -> (Cluster, Caller) {
    let (cluster, admin) = open().await;
    establish(&admin, &cron_tabs()).await;
    (cluster, admin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_defaulted_pruned_and_checked() {
    let (_cluster, admin) = ready().await;
    let mut tab = cron_tab(
        "my-tab",
        json!({"cronSpec": "* * * * */5", "image": "a", "bogus": {"deep": 1}, "suspend": null,
            "port": "http", "ports": [{"name": "a", "odd": 1}], "env": {"A": "1"},
            "free": {"anything": [1, 2], "known": {"a": "x", "b": "y"}},
            "template": {"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "inner", "labels": {"a": "b"}, "unheard": 1}, "data": {}}}),
    );
    tab["status"] = json!({"replicas": 5});
    tab["more"] = 1.into();
    let made = admin.post(&path(), &tab).await.expect(201);
    let mut told = made.warnings.clone();
    told.sort();
    let expected: Vec<String> = [
        "more",
        "spec.bogus",
        "spec.free.known.b",
        "spec.ports[0].odd",
        "spec.template.metadata.unheard",
    ]
    .iter()
    .map(|path| format!("299 - \"unknown field \\\"{path}\\\"\""))
    .collect();
    assert_eq!(told, expected);
    assert_eq!(
        made.body["spec"],
        json!({"cronSpec": "* * * * */5", "image": "a", "suspend": null, "port": "http",
            "replicas": 1, "policy": "Allow", "ports": [{"name": "a", "port": 80}],
            "env": {"A": "1"}, "free": {"anything": [1, 2], "known": {"a": "x"}},
            "template": {"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "inner", "labels": {"a": "b"}}, "data": {}}})
    );
    assert!(made.body.get("status").is_none(), "status has its own path");
    assert_eq!(made.body["metadata"]["generation"], 1);
    let strict = admin
        .post(&format!("{}?fieldValidation=Strict", path()), &tab)
        .await
        .expect(400);
    assert!(
        strict.message().starts_with(
            "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: \
             unknown field"
        ),
        "{}",
        strict.message()
    );

    for (spec, text) in [
        (json!({}), "spec.cronSpec: Required value"),
        (
            json!({"cronSpec": 5}),
            "spec.cronSpec: Invalid value: \"integer\": spec.cronSpec in body must be of type \
             string: \"integer\"",
        ),
        (
            json!({"cronSpec": "x"}),
            "spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should match '^(\\d+|\\*)",
        ),
        (
            json!({"cronSpec": "* * * * *", "replicas": 0}),
            "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or \
             equal to 1",
        ),
        (
            json!({"cronSpec": "* * * * *", "replicas": 11}),
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal \
             to 10",
        ),
        (
            json!({"cronSpec": "* * * * *", "policy": "Maybe"}),
            "spec.policy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\"",
        ),
        (
            json!({"cronSpec": "* * * * *", "image": ""}),
            "spec.image: Invalid value: \"\": spec.image in body should be at least 1 chars long",
        ),
        (
            json!({"cronSpec": "* * * * *", "image": "x".repeat(65)}),
            "spec.image: Too long: may not be more than 64 bytes",
        ),
        (
            json!({"cronSpec": "* * * * *", "at": "yesterday"}),
            "spec.at: Invalid value: \"yesterday\": spec.at in body must be of type date-time: \
             \"yesterday\"",
        ),
        (
            json!({"cronSpec": "* * * * *", "port": true}),
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type \
             integer,string: \"boolean\"",
        ),
        (
            json!({"cronSpec": "* * * * *", "env": {"A": 1}}),
            "spec.env.A: Invalid value: \"integer\": spec.env.A in body must be of type string: \
             \"integer\"",
        ),
        (
            json!({"cronSpec": "* * * * *", "ports": [{"name": "a"}, {"name": "b"}, {"name": "c"},
                {"name": "d"}]}),
            "spec.ports: Too many: 4: must have at most 3 items",
        ),
        (
            json!({"cronSpec": "* * * * *", "ports": [{"name": "a"}, {"name": "a"}]}),
            "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        (
            json!({"cronSpec": "* * * * *", "hosts": ["a", "a"]}),
            "spec.hosts[1]: Duplicate value: \"a\"",
        ),
        (
            json!({"cronSpec": "* * * * *", "template": {"kind": "x y"}}),
            "spec.template.apiVersion: Required value",
        ),
    ] {
        let answer = admin.post(&path(), &cron_tab("wrong", spec.clone())).await;
        assert_eq!(answer.code, 422, "{spec} gave {:#}", answer.body);
        assert!(
            answer
                .message()
                .starts_with("CronTab.stable.example.com \"wrong\" is invalid:"),
            "{}",
            answer.message()
        );
        assert!(
            answer.message().contains(text),
            "{text}\n is not in\n{}",
            answer.message()
        );
    }
    let labels = cron_tab("labels", json!({"cronSpec": "* * * * *"}));
    let mut labels = labels;
    labels["metadata"]["labels"] = json!({"a": 1});
    let answer = admin.post(&path(), &labels).await.expect(400);
    assert!(
        answer.message().contains("cannot be handled as a CronTab"),
        "{}",
        answer.message()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_merge_and_what_was_wrong_may_stay() {
    let (_cluster, admin) = ready().await;
    let tab = cron_tab("t", json!({"cronSpec": "* * * * *", "env": {"A": "1"}}));
    admin.post(&path(), &tab).await.expect(201);
    let one = format!("{}/t", path());
    let merged = admin
        .patch(
            &one,
            MERGE_PATCH,
            &json!({"spec": {"env": {"A": null, "B": "2"}}}),
        )
        .await
        .expect(200)
        .body;
    assert_eq!(merged["spec"]["env"], json!({"B": "2"}));
    assert_eq!(merged["metadata"]["generation"], 2);
    let labelled = admin
        .patch(
            &one,
            MERGE_PATCH,
            &json!({"metadata": {"labels": {"x": "y"}}}),
        )
        .await
        .expect(200)
        .body;
    assert_eq!(labelled["metadata"]["generation"], 2);
    let patched = admin
        .patch(
            &one,
            JSON_PATCH,
            &json!([{"op": "replace", "path": "/spec/replicas", "value": 4}]),
        )
        .await
        .expect(200)
        .body;
    assert_eq!(patched["spec"]["replicas"], 4);
    let strategic = admin
        .patch(&one, "application/strategic-merge-patch+json", &json!({}))
        .await;
    assert_eq!(strategic.code, 415);
    assert!(
        strategic.message().ends_with(
            "application/json-patch+json, application/merge-patch+json, \
             application/apply-patch+yaml"
        ),
        "{}",
        strategic.message()
    );

    // The schema gets stricter than the object is.
    let definition = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let tighter = json!([{"op": "replace",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/replicas/maximum",
        "value": 2}]);
    admin
        .patch(&definition, JSON_PATCH, &tighter)
        .await
        .expect(200);
    let env = json!({"spec": {"env": {"C": "3"}}});
    admin.patch(&one, MERGE_PATCH, &env).await.expect(200);
    let worse = admin
        .patch(&one, MERGE_PATCH, &json!({"spec": {"replicas": 5}}))
        .await
        .expect(422);
    assert!(
        worse
            .message()
            .contains("should be less than or equal to 2")
    );
    let dry = admin
        .patch(
            &format!("{one}?dryRun=All"),
            MERGE_PATCH,
            &json!({"spec": {"replicas": 2}}),
        )
        .await
        .expect(200)
        .body;
    assert_eq!(dry["spec"]["replicas"], 2);
    let kept = admin.get(&one).await.expect(200).body;
    assert_eq!(kept["spec"]["replicas"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_owns_fields_and_items() {
    let (_cluster, admin) = ready().await;
    let one = format!("{}/applied", path());
    let apply = |manager: &str, spec: Value, force: bool| {
        let admin = admin.clone();
        let url = format!("{one}?fieldManager={manager}&force={force}");
        async move {
            let body = cron_tab("applied", spec);
            admin.patch(&url, APPLY_PATCH, &body).await
        }
    };
    let first = json!({"cronSpec": "* * * * *", "ports": [{"name": "a", "port": 1}],
        "hosts": ["x"]});
    apply("one", first, false).await.expect(201);
    let second = json!({"ports": [{"name": "b", "port": 2}], "hosts": ["y"]});
    let both = apply("two", second, false).await.expect(200).body;
    assert_eq!(
        both["spec"]["ports"],
        json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}])
    );
    assert_eq!(both["spec"]["hosts"], json!(["x", "y"]));
    let owners = both["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(owners.len(), 2);
    let two = owners
        .iter()
        .find(|entry| entry["manager"] == "two")
        .unwrap();
    assert_eq!(
        two["fieldsV1"]["f:spec"]["f:ports"]["k:{\"name\":\"b\"}"],
        json!({".": {}, "f:name": {}, "f:port": {}})
    );
    assert_eq!(two["apiVersion"], "stable.example.com/v1");
    let conflict = apply("two", json!({"cronSpec": "1 * * * *"}), false)
        .await
        .expect(409);
    assert!(
        conflict
            .message()
            .contains("conflict with \"one\": .spec.cronSpec"),
        "{}",
        conflict.message()
    );
    let forced = apply("two", json!({"cronSpec": "1 * * * *"}), true)
        .await
        .expect(200)
        .body;
    assert_eq!(forced["spec"]["cronSpec"], "1 * * * *");
    assert_eq!(forced["spec"]["ports"], json!([{"name": "a", "port": 1}]));
    let unknown = apply("one", json!({"cronSpec": "* * * * *", "bogus": 1}), true).await;
    assert_eq!(unknown.code, 500, "{:#}", unknown.body);
    assert!(
        unknown
            .message()
            .contains(".spec.bogus: field not declared in schema"),
        "{}",
        unknown.message()
    );
    // Through the status path only the status is owned.
    let status = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab",
        "metadata": {"name": "applied"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let url = format!("{one}/status?fieldManager=three");
    let answer = admin
        .patch(&url, APPLY_PATCH, &status)
        .await
        .expect(200)
        .body;
    assert_eq!(answer["status"]["conditions"][0]["status"], "True");
    assert_eq!(
        answer["metadata"]["generation"],
        forced["metadata"]["generation"]
    );
    let owners = answer["metadata"]["managedFields"].as_array().unwrap();
    let three = owners
        .iter()
        .find(|entry| entry["manager"] == "three")
        .unwrap();
    assert_eq!(three["subresource"], "status");
    assert!(three["fieldsV1"].get("f:spec").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_scale_have_paths_of_their_own() {
    let (_cluster, admin) = ready().await;
    let one = format!("{}/s", path());
    admin
        .post(&path(), &cron_tab("s", json!({"cronSpec": "* * * * *"})))
        .await
        .expect(201);
    let mut value = admin.get(&one).await.expect(200).body;
    value["status"] = json!({"replicas": 3, "labelSelector": "app=s", "odd": 1});
    value["spec"]["replicas"] = 9.into();
    let put = admin
        .put(&format!("{one}/status"), &value)
        .await
        .expect(200)
        .body;
    assert_eq!(
        put["status"],
        json!({"replicas": 3, "labelSelector": "app=s"})
    );
    assert_eq!(put["spec"]["replicas"], 1);
    assert_eq!(put["metadata"]["generation"], 1);
    // Nothing else is written through the status, and nothing without its version.
    let labelled = json!({"metadata": {"labels": {"a": "b"}}, "status": {"replicas": 3}});
    let patched = admin
        .patch(&format!("{one}/status"), MERGE_PATCH, &labelled)
        .await
        .expect(200)
        .body;
    assert_eq!(
        patched["metadata"].get("labels"),
        put["metadata"].get("labels")
    );
    let mut blind = put.clone();
    let metadata = blind["metadata"].as_object_mut().unwrap();
    metadata.remove("resourceVersion");
    for path in [one.clone(), format!("{one}/status")] {
        let refused = admin.put(&path, &blind).await.expect(422);
        assert!(
            refused
                .message()
                .contains("metadata.resourceVersion: Invalid value: 0"),
            "{}",
            refused.message()
        );
    }
    let wrong = admin
        .patch(
            &format!("{one}/status"),
            MERGE_PATCH,
            &json!({"status": {"replicas": "many"}}),
        )
        .await
        .expect(422);
    assert!(
        wrong.message().contains(
            "status.replicas: Invalid value: \"string\": replicas in body must be of type integer"
        ),
        "{}",
        wrong.message()
    );

    let scale = admin.get(&format!("{one}/scale")).await.expect(200).body;
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["spec"]["replicas"], 1);
    assert_eq!(scale["status"], json!({"replicas": 3, "selector": "app=s"}));
    let scaled = admin
        .patch(
            &format!("{one}/scale"),
            MERGE_PATCH,
            &json!({"spec": {"replicas": 4}}),
        )
        .await
        .expect(200)
        .body;
    assert_eq!(scaled["spec"]["replicas"], 4);
    let too_many = admin
        .patch(
            &format!("{one}/scale"),
            MERGE_PATCH,
            &json!({"spec": {"replicas": 40}}),
        )
        .await
        .expect(422);
    assert!(
        too_many
            .message()
            .contains("should be less than or equal to 10")
    );
    let value = admin.get(&one).await.expect(200).body;
    assert_eq!(value["spec"]["replicas"], 4);
    assert_eq!(value["metadata"]["generation"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_watches_and_tables() {
    let (_cluster, admin) = ready().await;
    for (name, image) in [("a", "red"), ("b", "blue"), ("c", "red")] {
        let mut tab = cron_tab(name, json!({"cronSpec": "* * * * *", "image": image}));
        tab["metadata"]["labels"] = json!({"image": image});
        admin.post(&path(), &tab).await.expect(201);
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    for (query, wanted) in [
        ("fieldSelector=spec.image%3Dred", vec!["a", "c"]),
        ("fieldSelector=spec.image%21%3Dred", vec!["b"]),
        ("labelSelector=image%3Dblue", vec!["b"]),
        ("fieldSelector=metadata.name%3Dc", vec!["c"]),
    ] {
        let list = admin
            .get(&format!("{}?{query}", path()))
            .await
            .expect(200)
            .body;
        assert_eq!(names(&list), wanted, "{query}");
    }
    let unknown = admin
        .get(&format!("{}?fieldSelector=spec.policy%3DAllow", path()))
        .await
        .expect(400);
    assert_eq!(unknown.message(), "field label not supported: spec.policy");
    let page = admin
        .get(&format!("{}?limit=2", path()))
        .await
        .expect(200)
        .body;
    assert_eq!(page["metadata"]["remainingItemCount"], 1);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = admin
        .get(&format!("{}?limit=2&continue={token}", path()))
        .await
        .expect(200)
        .body;
    assert_eq!(names(&rest), ["c"]);

    let table = admin
        .get_as(&path(), "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await
        .expect(200)
        .body;
    let columns: Vec<(&str, i64)> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            (
                it["name"].as_str().unwrap(),
                it["priority"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        columns,
        [
            ("Name", 0),
            ("Spec", 0),
            ("Replicas", 0),
            ("Ready", 1),
            ("Age", 0)
        ]
    );
    let cells = &table["rows"][0]["cells"];
    assert_eq!(cells[0], "a");
    assert_eq!(cells[1], "* * * * *");
    assert_eq!(cells[2], 1);
    assert_eq!(cells[3], Value::Null);
    assert!(cells[4].as_str().unwrap().ends_with('s'), "{cells}");

    let from = page["metadata"]["resourceVersion"].as_str().unwrap();
    let everywhere = "/apis/stable.example.com/v1/crontabs";
    let mut watch = admin
        .watch(&format!(
            "{everywhere}?watch=true&resourceVersion={from}&fieldSelector=spec.image%3Dred"
        ))
        .await;
    let paint = |name: &'static str, image: &'static str| {
        let admin = admin.clone();
        async move {
            let one = format!("{}/{name}", path());
            let patch = json!({"spec": {"image": image}});
            admin.patch(&one, MERGE_PATCH, &patch).await.expect(200);
        }
    };
    paint("b", "red").await;
    paint("a", "green").await;
    let gone = admin
        .delete(&format!("{}/c", path()), None)
        .await
        .expect(200);
    assert_eq!(gone.body["status"], "Success");
    for (kind, name) in [("ADDED", "b"), ("DELETED", "a"), ("DELETED", "c")] {
        let (found, named, _) = watch.event().await;
        assert_eq!((found.as_str(), named.as_str()), (kind, name));
    }
    let all = admin.delete(&path(), None).await.expect(200).body;
    assert_eq!(names(&all), ["a", "b"]);
    let (kind, name, _) = watch.event().await;
    assert_eq!((kind.as_str(), name.as_str()), ("DELETED", "b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_those_of_the_resource() {
    let (cluster, admin) = ready().await;
    let role = json!({"metadata": {"name": "tabs"}, "rules": [
        {"apiGroups": ["stable.example.com"], "resources": ["crontabs"], "verbs": ["get", "list"]}]});
    let roles = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}");
    admin
        .post(&format!("{roles}/roles"), &role)
        .await
        .expect(201);
    let binding = json!({"metadata": {"name": "tabs"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tabs"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "dora"}]});
    admin
        .post(&format!("{roles}/rolebindings"), &binding)
        .await
        .expect(201);
    let dora = cluster.caller(Identity::user("dora", &[]));
    dora.get(&path()).await.expect(200);
    let refused = dora
        .post(&path(), &cron_tab("x", json!({"cronSpec": "* * * * *"})))
        .await
        .expect(403);
    assert_eq!(
        refused.message(),
        "crontabs.stable.example.com is forbidden: User \"dora\" cannot create resource \
         \"crontabs\" in API group \"stable.example.com\" in the namespace \"custom\""
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_say_of_what_kind_they_are() {
    let (_cluster, admin) = ready().await;
    for (field, value, code, text) in [
        ("kind", Value::Null, 400, "Object 'Kind' is missing in "),
        (
            "apiVersion",
            Value::Null,
            400,
            "the API version in the data () does not match the expected API version",
        ),
        (
            "kind",
            "Other".into(),
            422,
            "kind: Invalid value: \"Other\": must be CronTab",
        ),
    ] {
        let mut tab = cron_tab("k", json!({"cronSpec": "* * * * *"}));
        tab[field] = value;
        let refused = admin.post(&path(), &tab).await;
        assert_eq!(refused.code, code, "{:#}", refused.body);
        assert!(refused.message().contains(text), "{}", refused.message());
    }
}
