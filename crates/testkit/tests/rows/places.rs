//! Paths that are no objects: health, what this process is, and which paths there are.

use evenkeel_server::Identity;
use serde_json::json;

use super::open;

#[tokio::test]
async fn single_checks_are_asked_for_by_name() {
    let (_cluster, admin) = open().await;
    for kind in ["healthz", "livez", "readyz"] {
        for check in [
            "ping",
            "log",
            "etcd",
            "autoregister-completion",
            "poststarthook/rbac/bootstrap-roles",
            "poststarthook/storage-readiness",
        ] {
            let path = format!("/{kind}/{check}");
            let found = admin.get(&path).await.expect(200);
            assert_eq!(found.body, json!("ok"), "{path}");
            // One check is not told at length.
            let found = admin.get(&format!("{path}?verbose")).await.expect(200);
            assert_eq!(found.body, json!("ok"), "{path}");
        }
        for other in ["nope", "poststarthook", "poststarthook/rbac"] {
            admin.get(&format!("/{kind}/{other}")).await.expect(404);
        }
    }
    let told = admin.get("/livez?verbose&exclude=etcd&exclude=nope").await;
    let told = told
        .expect(200)
        .body
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(told.contains("[+]etcd excluded: ok\n"), "{told}");
    assert!(
        told.contains("no matches for \"nope\"\nlivez check passed\n"),
        "{told}"
    );
    admin.post("/livez", &json!({})).await.expect(200);

    // What came of the checks that were asked for together is counted.
    let counted = admin.get_as("/metrics/slis", "*/*").await.expect(200);
    let counted = counted.body.as_str().unwrap_or_default();
    for line in [
        "kubernetes_healthcheck{name=\"etcd\",type=\"livez\"} 1",
        "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"livez\"}",
    ] {
        assert!(counted.contains(line), "{line}: {counted}");
    }
}

#[tokio::test]
async fn the_list_of_paths_leads_somewhere() {
    let (_cluster, admin) = open().await;
    let found = admin.get("/").await.expect(200);
    let paths: Vec<&str> = found.body["paths"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|path| path.as_str())
        .collect();
    assert!(paths.is_sorted(), "{paths:?}");
    for path in [
        "/statusz",
        "/openid/v1/jwks",
        "/livez/poststarthook/rbac/bootstrap-roles",
    ] {
        assert!(paths.contains(&path), "{path}");
    }
    // Documents of everything take long to write.
    for path in paths.iter().filter(|path| !path.contains("openapi")) {
        admin.get_as(path, "*/*").await.expect(200);
    }
}

#[tokio::test]
async fn the_process_tells_what_it_is() {
    let (cluster, admin) = open().await;
    let version = admin.get("/version").await.expect(200).body;
    assert_eq!(version["emulationMinor"], version["minor"]);
    assert_eq!(version["minCompatibilityMinor"], "36");
    let of = "application/json;as=Statusz;v=v1beta1;g=config.k8s.io";
    let status = admin.get_as("/statusz", of).await.expect(200).body;
    assert_eq!(status["apiVersion"], "config.k8s.io/v1beta1");
    assert_eq!(status["binaryVersion"], "1.37");
    admin
        .get_as("/statusz", "application/json")
        .await
        .expect(406);
    admin.get_as("/statusz/", "text/plain").await.expect(404);
    cluster
        .the_door()
        .tell_flags([("listen".to_owned(), "somewhere".to_owned())].into());
    let flags = admin.get_as("/flagz", "text/plain").await.expect(200);
    let text = flags.body.as_str().unwrap_or_default();
    assert!(text.contains("\nlisten=somewhere\n"), "{text}");
    let stranger = cluster.caller(Identity::user("nobody", &[]));
    stranger.get_as("/flagz", "text/plain").await.expect(403);
    let monitor = cluster.caller(Identity::user("prober", &["system:monitoring"]));
    monitor.get_as("/flagz", "text/plain").await.expect(200);
}

#[tokio::test]
async fn what_is_said_of_tokens_has_one_form() {
    let (_cluster, admin) = open().await;
    let keys = "/openid/v1/jwks";
    let found = admin
        .get_as(keys, "application/jwk-set+json")
        .await
        .expect(200);
    assert_eq!(found.content_type, "application/jwk-set+json");
    assert_eq!(found.headers["cache-control"], "public, max-age=3600");
    admin.get_as(keys, "application/json").await.expect(406);
    admin.get_as("/version", "text/html").await.expect(406);
    admin
        .get_as("/version", "text/html, application/*")
        .await
        .expect(200);
}

#[tokio::test]
async fn old_paths_watch_what_can_be_watched() {
    let (_cluster, admin) = open().await;
    for path in [
        "/api/v1/watch/componentstatuses",
        "/api/v1/watch/pods/x",
        "/api/v1/watch/nodes/x/status",
        "/api/v1/watch/namespaces/default/pods/x/log",
    ] {
        admin.get(path).await.expect(404);
    }
}

#[tokio::test]
async fn a_namespace_selects_nothing_that_says_what_selects_it() {
    let (_cluster, admin) = open().await;
    for path in [
        "/api/v1/namespaces",
        "/api/v1/nodes",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    ] {
        let path = format!("{path}?fieldSelector=metadata.namespace=default");
        let refused = admin.get(&path).await.expect(400);
        assert_eq!(
            refused.message(),
            "field label not supported: metadata.namespace"
        );
    }
    let path = "/api/v1/persistentvolumes?fieldSelector=metadata.namespace=default";
    admin.get(path).await.expect(200);
}

#[tokio::test]
async fn discovery_leaves_out_what_is_its_own() {
    let (_cluster, admin) = open().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let found = admin.get_as("/apis", accept).await.expect(200).body;
    let group = |name: &str| {
        let groups = found["items"].as_array().unwrap();
        let mut groups = groups.iter().filter(|it| it["metadata"]["name"] == name);
        groups.next().unwrap()["versions"][0]["resources"].clone()
    };
    let apps = group("apps");
    let deployments = apps
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["resource"] == "deployments")
        .unwrap();
    let own = json!({"group": "", "version": "", "kind": "Deployment"});
    assert_eq!(deployments["responseKind"], own);
    let subresources = &deployments["subresources"];
    let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
    assert_eq!(subresources[0]["responseKind"], scale);
    assert_eq!(subresources[1]["subresource"], "status");
    let core = admin.get_as("/api", accept).await.expect(200).body;
    assert_eq!(core["items"][0]["metadata"], json!({}));
    let plain = admin
        .get("/apis/apiextensions.k8s.io/v1")
        .await
        .expect(200)
        .body;
    // Of v1beta1, in which the reference keeps them.
    assert_eq!(plain["resources"][0]["storageVersionHash"], "jfWCUB31mvA=");
}

#[tokio::test]
async fn a_scale_is_a_table_of_its_own() {
    let (_cluster, admin) = open().await;
    let all = "/apis/apps/v1/namespaces/rows/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    admin.post(all, &deployment).await.expect(201);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let scale = format!("{all}/d/scale");
    let table = admin.get_as(&scale, accept).await.expect(200).body;
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|column| column["name"].as_str())
        .collect();
    assert_eq!(columns, ["Name", "Desired", "Available", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().cloned().unwrap();
    assert_eq!(cells[..3], [json!("d"), json!(2), json!(0)]);
    // Nothing is behind it.
    admin.get(&format!("{scale}/more")).await.expect(404);
}

#[tokio::test]
async fn a_patch_leaves_the_version_where_it_is() {
    let (_cluster, admin) = open().await;
    let namespace = "/api/v1/namespaces/rows";
    let removed = json!([{"op": "remove", "path": "/apiVersion"}]);
    for (kind, patch) in [
        (super::MERGE_PATCH, json!({"apiVersion": null})),
        (super::MERGE_PATCH, json!({"apiVersion": ""})),
        (super::JSON_PATCH, removed),
    ] {
        let refused = admin.patch(namespace, kind, &patch).await.expect(400);
        assert_eq!(
            refused.message(),
            "the name of the object (rows based on URL) was undeterminable: name must be provided"
        );
    }
    let patch = json!({"kind": null});
    let kept = admin.patch(namespace, super::MERGE_PATCH, &patch).await;
    assert_eq!(kept.expect(200).body["kind"], "Namespace");
    let patch = json!({"apiVersion": null});
    admin
        .patch(namespace, super::STRATEGIC_PATCH, &patch)
        .await
        .expect(200);
}

#[tokio::test]
async fn paths_of_custom_kinds_are_no_routes() {
    let (_cluster, admin) = open().await;
    let definition = json!({"metadata": {"name": "foos.stable.example.com"}, "spec": {
        "group": "stable.example.com", "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    admin.post(definitions, &definition).await.expect(201);
    admin
        .until("/apis/stable.example.com/v1", "the kind", |it| {
            it["resources"].is_array()
        })
        .await;
    let group = "/apis/stable.example.com/v1";
    let one = format!("{group}/namespaces/rows/foos/x");
    for sub in ["nope", "log"] {
        let missed = admin.get(&format!("{one}/{sub}")).await.expect(404);
        assert_eq!(missed.message(), "foos.stable.example.com \"x\" not found");
    }
    let missed = admin.get(&format!("{group}/foos/x")).await.expect(404);
    assert_eq!(missed.body, json!("404 page not found\n"));
    let missed = admin.delete(&format!("{group}/foos"), None).await;
    assert_eq!(missed.expect(404).body, json!("404 page not found\n"));
    let refused = admin
        .send(
            "OPTIONS",
            &format!("{group}/namespaces/rows/foos"),
            &[],
            None,
        )
        .await
        .expect(405);
    assert_eq!(
        refused.message(),
        " is not supported on resources of kind \"foos.stable.example.com\""
    );
    // Their document is about them alone.
    let document = format!("/openapi/v3{group}");
    let document = admin.get(&document).await.expect(200).body;
    assert_eq!(document["info"]["title"], "Kubernetes CRD Swagger");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.keys().all(|path| path.contains("/foos")), "{paths:?}");
    let event = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
    assert!(document["components"]["schemas"].get(event).is_none());
    let found = admin.get(group).await.expect(200).body;
    let verbs = &found["resources"][0]["verbs"];
    let wanted = [
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "create",
        "update",
        "watch",
    ];
    assert_eq!(*verbs, json!(wanted));
}
