//! Definitions as objects: what they are held to and what becomes of them.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_established_and_served() {
    let (_cluster, admin) = open().await;
    assert_eq!(admin.get(&path()).await.code, 404);
    let made = establish(&admin, &cron_tabs()).await;
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(
        made["status"]["acceptedNames"],
        json!({"plural": "crontabs", "singular": "crontab", "kind": "CronTab",
            "listKind": "CronTabList", "shortNames": ["ct"], "categories": ["all"]})
    );
    let accepted = condition(&made, "NamesAccepted").unwrap();
    assert_eq!(accepted["reason"], "NoConflicts");
    assert_eq!(accepted["message"], "no conflicts found");
    let established = condition(&made, "Established").unwrap();
    assert_eq!(established["reason"], "InitialNamesAccepted");
    assert_eq!(made["spec"]["conversion"], json!({"strategy": "None"}));
    // Whoever has seen that it is established is served at once.
    let list = admin.get(&path()).await.expect(200).body;
    assert_eq!(list["kind"], "CronTabList");
    assert_eq!(list["apiVersion"], "stable.example.com/v1");
    assert_eq!(list["items"], json!([]));
    let table = admin
        .get_as(DEFINITIONS, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await
        .expect(200)
        .body;
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[0], "crontabs.stable.example.com");
    assert_eq!(cells[2], "v1(storage)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_and_openapi_follow_definitions() {
    let (_cluster, admin) = open().await;
    let hashes = |index: &Value| {
        let url = |path: &str| index["paths"][path]["serverRelativeURL"].clone();
        (url("apis/apps/v1"), url("apis/stable.example.com/v1"))
    };
    let before = hashes(&admin.get("/openapi/v3").await.expect(200).body);
    assert!(before.1.is_null());
    establish(&admin, &cron_tabs()).await;

    let groups = admin.get("/apis").await.expect(200).body;
    let group = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["name"] == "stable.example.com")
        .unwrap()
        .clone();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let resources = admin
        .get("/apis/stable.example.com/v1")
        .await
        .expect(200)
        .body;
    let names: Vec<&str> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["crontabs", "crontabs/status", "crontabs/scale"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["ct"]));
    assert_eq!(resources["resources"][0]["categories"], json!(["all"]));
    let aggregated = admin
        .get_as(
            "/apis",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        )
        .await
        .expect(200)
        .body;
    let found = aggregated["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["metadata"]["name"] == "stable.example.com")
        .unwrap();
    assert_eq!(found["versions"][0]["resources"][0]["resource"], "crontabs");

    let after = hashes(&admin.get("/openapi/v3").await.expect(200).body);
    assert_eq!(after.0, before.0, "documents of built-in kinds stay");
    let document = admin.get(after.1.as_str().unwrap()).await.expect(200).body;
    let model = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(model["description"], "A job at certain times.");
    assert_eq!(
        model["x-kubernetes-group-version-kind"],
        json!([{"group": "stable.example.com", "version": "v1", "kind": "CronTab"}])
    );
    let spec = &model["properties"]["spec"]["properties"];
    assert_eq!(spec["cronSpec"]["description"], "When the job runs.");
    assert_eq!(spec["ports"]["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(spec["template"]["properties"]["metadata"].is_object());
    let base = "/apis/stable.example.com/v1/namespaces/{namespace}/crontabs";
    assert!(document["paths"][base]["post"].is_object());
    assert!(document["paths"][format!("{base}/{{name}}/scale")]["put"].is_object());
    let v2 = admin.get("/openapi/v2").await.expect(200).body;
    let model = &v2["definitions"]["com.example.stable.v1.CronTab"];
    assert_eq!(
        model["properties"]["spec"]["properties"]["cronSpec"]["type"],
        "string"
    );
    assert!(v2["definitions"]["com.example.stable.v1.CronTabList"].is_object());

    // A changed schema is another document.
    let mut changed = admin
        .get(&format!("{DEFINITIONS}/crontabs.stable.example.com"))
        .await
        .expect(200)
        .body;
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "Else.".into();
    let name = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let put = admin.put(&name, &changed).await.expect(200).body;
    assert_eq!(put["metadata"]["generation"], 2);
    let last = hashes(&admin.get("/openapi/v3").await.expect(200).body);
    assert_ne!(last.1, after.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_refused_in_the_references_words() {
    let (_cluster, admin) = open().await;
    let refused = |change: fn(&mut Value)| {
        let mut definition = cron_tabs();
        change(&mut definition);
        let admin = admin.clone();
        async move {
            let answer = admin.post(DEFINITIONS, &definition).await;
            assert_eq!(answer.code, 422, "{:#}", answer.body);
            answer.message().to_owned()
        }
    };
    for (wrong, text) in [
        (
            refused(|it| it["metadata"]["name"] = "tabs.stable.example.com".into()).await,
            "metadata.name: Invalid value: \"tabs.stable.example.com\": must be \
             spec.names.plural+\".\"+spec.group",
        ),
        (
            refused(|it| it["spec"]["scope"] = "Galaxy".into()).await,
            "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \
             \"Namespaced\"",
        ),
        (
            refused(|it| it["spec"]["versions"][0]["storage"] = false.into()).await,
            "must have exactly one version marked as storage version",
        ),
        (
            refused(|it| {
                it.pointer_mut("/spec/versions/0").unwrap()["schema"] = Value::Null;
            })
            .await,
            "spec.versions[0].schema.openAPIV3Schema: Required value",
        ),
        (
            refused(|it| {
                it.pointer_mut(
                    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/image",
                )
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove("type");
            })
            .await,
            "spec.validation.openAPIV3Schema.properties[spec].properties[image].type: Required \
             value: must not be empty for specified object fields",
        ),
        (
            refused(|it| {
                it.pointer_mut(
                    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/replicas",
                )
                .unwrap()["default"] = 11.into();
            })
            .await,
            "spec.validation.openAPIV3Schema.properties[spec].properties[replicas].default: \
             Invalid value: 11:  in body should be less than or equal to 10",
        ),
        (
            refused(|it| {
                it.pointer_mut(
                    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/ports",
                )
                .unwrap()["x-kubernetes-list-map-keys"] = json!(["nope"]);
            })
            .await,
            "entries must all be names of item properties",
        ),
        (
            refused(|it| {
                it["spec"]["versions"][0]["subresources"]["scale"]["specReplicasPath"] =
                    ".status.replicas".into();
            })
            .await,
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.replicas\": \
             should be a json path under .spec",
        ),
        (
            refused(|it| {
                it["spec"]["versions"][0]["selectableFields"] =
                    json!([{"jsonPath": ".spec.ports"}]);
            })
            .await,
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.ports\": must point to a \
             field of type string, boolean or integer.",
        ),
        (
            refused(|it| {
                it["spec"]["group"] = "apps.k8s.io".into();
                it["metadata"]["name"] = "crontabs.apps.k8s.io".into();
            })
            .await,
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups \
             must have approval annotation \"api-approved.kubernetes.io\"",
        ),
        (
            refused(|it| it["spec"]["conversion"] = json!({"strategy": "Webhook"})).await,
            "spec.conversion",
        ),
    ] {
        assert!(wrong.contains(text), "{text}\n is not in\n{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_given_once() {
    let (_cluster, admin) = open().await;
    establish(&admin, &cron_tabs()).await;
    let mut other = cron_tabs();
    other["metadata"]["name"] = "tabs.stable.example.com".into();
    other["spec"]["names"] =
        json!({"plural": "tabs", "singular": "tab", "kind": "CronTab", "shortNames": ["ct"]});
    admin.post(DEFINITIONS, &other).await.expect(201);
    let path = format!("{DEFINITIONS}/tabs.stable.example.com");
    let waiting = until("a conflict", || async {
        let found = admin.get(&path).await.expect(200).body;
        condition(&found, "NamesAccepted")
            .is_some()
            .then_some(found)
    })
    .await;
    let accepted = condition(&waiting, "NamesAccepted").unwrap();
    assert_eq!(accepted["status"], "False");
    assert_eq!(accepted["reason"], "ListKindConflict");
    assert_eq!(accepted["message"], "\"CronTabList\" is already in use");
    let established = condition(&waiting, "Established").unwrap();
    assert_eq!(established["reason"], "NotAccepted");
    assert_eq!(
        admin.get("/apis/stable.example.com/v1/tabs").await.code,
        404
    );

    // The names become free with the definition that has them.
    let first = format!("{DEFINITIONS}/crontabs.stable.example.com");
    admin.delete(&first, None).await.expect(200);
    until("the other's turn", || async {
        let found = admin.get(&path).await.expect(200).body;
        condition(&found, "Established")
            .is_some_and(|it| it["status"] == "True")
            .then_some(())
    })
    .await;
    admin
        .get("/apis/stable.example.com/v1/tabs")
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn established_names_do_not_change() {
    let (_cluster, admin) = open().await;
    let made = establish(&admin, &cron_tabs()).await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    for (pointer, value, text) in [
        (
            "/spec/scope",
            "Cluster",
            "spec.scope: Invalid value: \"Cluster\": field is immutable",
        ),
        (
            "/spec/names/kind",
            "Other",
            "spec.names.kind: Invalid value: \"Other\": field is immutable",
        ),
    ] {
        let mut changed = made.clone();
        *changed.pointer_mut(pointer).unwrap() = value.into();
        let answer = admin.put(&path, &changed).await.expect(422);
        assert!(answer.message().contains(text), "{}", answer.message());
    }
    // Short names may.
    let patch = json!({"spec": {"names": {"shortNames": ["ct", "cts"]}}});
    admin.patch(&path, MERGE_PATCH, &patch).await.expect(200);
    until("another short name", || async {
        let resources = admin
            .get("/apis/stable.example.com/v1")
            .await
            .expect(200)
            .body;
        (resources["resources"][0]["shortNames"] == json!(["ct", "cts"])).then_some(())
    })
    .await;
}
