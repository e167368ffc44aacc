//! A server behind the door.

use std::sync::atomic::Ordering;

use evenkeel_server::Identity;
use evenkeel_server::pki::LeafSpec;
use evenkeel_testkit::{ADMIN, Caller, Cluster};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::extension::Extension;
use super::wire::Wire;
use super::{admin, until};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const FLUNDERS: &str = "/apis/wardle.example.com/v1/namespaces/default/flunders";
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn api_service(extension: &Extension) -> Value {
    json!({"metadata": {"name": "v1.wardle.example.com"}, "spec": {
        "group": "wardle.example.com", "version": "v1",
        "groupPriorityMinimum": 17_900, "versionPriority": 15,
        "caBundle": extension.bundle,
        "service": {"namespace": "wardle", "name": "flunders"}}})
}

/// The authority that the ConfigMap tells.
pub(crate) async fn front_ca(admin: &Caller) -> String {
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let told = admin.get(path).await.expect(200).body;
    let data = &told["data"];
    assert_eq!(
        data["requestheader-username-headers"],
        "[\"X-Remote-User\"]"
    );
    assert_eq!(
        data["requestheader-allowed-names"],
        "[\"front-proxy-client\"]"
    );
    assert!(
        data["client-ca-file"]
            .as_str()
            .unwrap()
            .contains("BEGIN CERT")
    );
    data["requestheader-client-ca-file"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn available(admin: &Caller, status: &str, reason: &str) -> Value {
    let path = format!("{SERVICES}/v1.wardle.example.com");
    until(reason, || async {
        let found = admin.get(&path).await.expect(200).body;
        let condition = &found["status"]["conditions"][0];
        let there = condition["status"] == status && condition["reason"] == reason;
        there.then(|| condition.clone())
    })
    .await
}

/// The service of the server and its endpoint.
pub(crate) async fn connect(cluster: &Cluster, admin: &Caller, extension: &Extension) {
    let namespace = json!({"metadata": {"name": "wardle"}});
    admin
        .post("/api/v1/namespaces", &namespace)
        .await
        .expect(201);
    let service = json!({"metadata": {"name": "flunders"},
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}});
    let services = "/api/v1/namespaces/wardle/services";
    admin.post(services, &service).await.expect(201);
    endpoint(cluster, extension.port).await;
}

/// The API refuses endpoints on loopback, where the test's server is.
async fn endpoint(cluster: &Cluster, port: u16) {
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "flunders-1", "namespace": "wardle",
            "labels": {"kubernetes.io/service-name": "flunders"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
    let door = cluster.the_door();
    let rows = door.rows();
    let row = rows
        .by_kind("discovery.k8s.io", "v1", "EndpointSlice")
        .unwrap();
    door.registry().create(row, slice).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_door_serves_itself_has_local_services() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let core = admin.get(&format!("{SERVICES}/v1.")).await.expect(200).body;
    assert_eq!(
        core["spec"],
        json!({"version": "v1", "groupPriorityMinimum": 18_000,
        "versionPriority": 1})
    );
    let condition = &core["status"]["conditions"][0];
    assert_eq!(condition["reason"], "Local");
    assert_eq!(
        condition["message"],
        "Local APIServices are always available"
    );
    let apps = admin
        .get(&format!("{SERVICES}/v1.apps"))
        .await
        .expect(200)
        .body;
    assert_eq!(apps["spec"]["groupPriorityMinimum"], 17_800);
    assert_eq!(
        apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"],
        "onstart"
    );
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = admin.get_as(SERVICES, table).await.expect(200).body;
    let row = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["cells"][0] == "v1.apps");
    assert_eq!(row.unwrap()["cells"][1], "Local");
    assert_eq!(row.unwrap()["cells"][2], "True");
    // Groups stand in the order of their priorities, and the door's own first.
    let groups = admin.get("/apis").await.expect(200).body;
    let names: Vec<&str> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names[..4],
        [
            "apiregistration.k8s.io",
            "apps",
            "events.k8s.io",
            "authentication.k8s.io"
        ]
    );

    // Custom kinds come and go with theirs.
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {
        "group": "example.com", "scope": "Cluster",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1beta1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    admin.post(definitions, &definition).await.expect(201);
    let path = format!("{SERVICES}/v1beta1.example.com");
    let made = until("the APIService of the kind", || async {
        let found = admin.get(&path).await;
        (found.code == 200).then_some(found.body)
    })
    .await;
    assert_eq!(made["spec"]["groupPriorityMinimum"], 1000);
    assert_eq!(made["spec"]["versionPriority"], 100);
    admin
        .delete(&format!("{definitions}/things.example.com"), None)
        .await
        .expect(200);
    until("its end", || async {
        (admin.get(&path).await.code == 404).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_the_door_is_served_through_it() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let extension = Extension::start(&front_ca(&admin).await).await;
    let state = &extension.state;
    admin
        .post(SERVICES, &api_service(&extension))
        .await
        .expect(201);

    // What is missing on the way is told, step by step.
    let told = available(&admin, "False", "ServiceNotFound").await;
    assert_eq!(
        told["message"],
        "service/flunders in \"wardle\" is not present"
    );
    let refused = admin.get(FLUNDERS).await.expect(503);
    assert_eq!(refused.body, "service unavailable\n");
    let groups = admin.get("/apis/wardle.example.com").await.expect(200).body;
    assert_eq!(groups["preferredVersion"]["version"], "v1");
    let stale = admin.get_as("/apis", DISCOVERY).await.expect(200).body;
    let wardle = |all: &Value| -> Value {
        let items = all["items"].as_array().unwrap();
        let found = items
            .iter()
            .find(|it| it["metadata"]["name"] == "wardle.example.com");
        found.unwrap()["versions"][0].clone()
    };
    assert_eq!(wardle(&stale)["freshness"], "Stale");
    connect(&cluster, &admin, &extension).await;
    let told = available(&admin, "True", "Passed").await;
    assert_eq!(told["message"], "all checks passed");

    // Requests are passed on, with the caller's name and nothing that he says of himself.
    let caller = Identity {
        extra: [("example.com/Scopes".to_owned(), vec!["a".to_owned()])].into(),
        ..Identity::user("jane", &[ADMIN])
    };
    let jane = cluster.caller(caller);
    state.asked.lock().clear();
    let flunder = json!({"metadata": {"name": "f"}, "spec": {"x": 1}});
    let headers = [
        ("x-remote-user", "root"),
        ("authorization", "Bearer secret"),
    ];
    let made = jane
        .send("POST", FLUNDERS, &headers, Some(&flunder))
        .await
        .expect(201)
        .body;
    assert_eq!(made["metadata"]["namespace"], "default");
    // The aggregator asks for documents at the same time.
    let asked = state.asked.lock().clone();
    let posted = asked.iter().find(|(method, ..)| method == "POST");
    let (_, _, who) = posted.expect("it was asked");
    assert_eq!(who["x-remote-user"], ["jane"]);
    assert_eq!(who["x-remote-group"], [ADMIN, "system:authenticated"]);
    assert_eq!(who["x-remote-extra-example.com%2fscopes"], ["a"]);
    assert!(!who.contains_key("authorization"));
    let found = jane.get(&format!("{FLUNDERS}/f")).await.expect(200).body;
    assert_eq!(found["spec"]["x"], 1);
    let gone = jane.get(&format!("{FLUNDERS}/none")).await.expect(404);
    assert_eq!(gone.message(), "no such flunder");
    // Whoever may not is refused here.
    let nobody = cluster.caller(Identity::user("nobody", &[]));
    let refused = nobody.get(FLUNDERS).await.expect(403);
    assert!(
        refused
            .message()
            .contains("cannot list resource \"flunders\" in API group")
    );
    // Watches are passed on as they come.
    let mut watch = jane.watch(&format!("{FLUNDERS}?watch=true")).await;
    let second = json!({"metadata": {"name": "g"}});
    jane.post(FLUNDERS, &second).await.expect(201);
    assert_eq!(
        watch.next().await.unwrap()["object"]["metadata"]["name"],
        "g"
    );

    // Discovery and OpenAPI show its resources, of whichever form.
    let fresh = admin.get_as("/apis", DISCOVERY).await.expect(200).body;
    assert_eq!(wardle(&fresh)["freshness"], "Current");
    assert_eq!(wardle(&fresh)["resources"][0]["resource"], "flunders");
    let first = fresh["items"][1]["metadata"]["name"].as_str();
    assert_eq!(
        first,
        Some("wardle.example.com"),
        "its priority is above all built-in ones"
    );
    let resources = admin
        .get("/apis/wardle.example.com/v1")
        .await
        .expect(200)
        .body;
    assert_eq!(resources["resources"][0]["name"], "flunders");
    let index = admin.get("/openapi/v3").await.expect(200).body;
    let url = index["paths"]["apis/wardle.example.com/v1"]["serverRelativeURL"].as_str();
    let document = admin.get(url.unwrap()).await.expect(200).body;
    assert_eq!(document["info"]["title"], "wardle");

    // A server that fails is not asked any more, until it answers again.
    state.broken.store(true, Ordering::SeqCst);
    state.modern.store(false, Ordering::SeqCst);
    let mut changed = admin
        .get(&format!("{SERVICES}/v1.wardle.example.com"))
        .await
        .expect(200)
        .body;
    changed["spec"]["versionPriority"] = 16.into();
    let path = format!("{SERVICES}/v1.wardle.example.com");
    admin.put(&path, &changed).await.expect(200);
    let told = available(&admin, "False", "FailedDiscoveryCheck").await;
    let message = told["message"].as_str().unwrap();
    let url = format!(
        "https://127.0.0.1:{}/apis/wardle.example.com/v1",
        extension.port
    );
    assert_eq!(
        message,
        format!("failing or missing response from {url}: bad status from {url}: 500")
    );
    admin.get(FLUNDERS).await.expect(503);
    let stale = admin.get_as("/apis", DISCOVERY).await.expect(200).body;
    assert_eq!(wardle(&stale)["freshness"], "Stale");
    state.broken.store(false, Ordering::SeqCst);
    available(&admin, "True", "Passed").await;
    let fresh = admin.get_as("/apis", DISCOVERY).await.expect(200).body;
    assert_eq!(wardle(&fresh)["resources"][0]["resource"], "flunders");
    assert_eq!(wardle(&fresh)["freshness"], "Current");
    admin.get(FLUNDERS).await.expect(200);

    // It goes with its APIService.
    admin.delete(&path, None).await.expect(200);
    until("its end", || async {
        (admin.get(FLUNDERS).await.code == 404).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgraded_connections_reach_the_server_behind() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let extension = Extension::start(&front_ca(&admin).await).await;
    admin
        .post(SERVICES, &api_service(&extension))
        .await
        .expect(201);
    connect(&cluster, &admin, &extension).await;
    available(&admin, "True", "Passed").await;
    let wire = Wire::open(&cluster).await;
    let spec = LeafSpec {
        name: "somebody".to_owned(),
        common_name: "somebody".to_owned(),
        organizations: vec![ADMIN.to_owned()],
        client: true,
        ..LeafSpec::default()
    };
    let now = cluster.the_door().clock().now();
    let leaf = cluster.pki().issue(&spec, now).unwrap();
    let mut stream = wire.connect(Some(&leaf)).await;
    let request = format!(
        "GET {FLUNDERS}/f/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
         Upgrade: echo\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let talk = async {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(seen).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream.write_all(b"over and out").await.unwrap();
        let mut back = [0; 12];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"over and out");
    };
    tokio::time::timeout(super::BOUND, talk).await.unwrap();
    let asked = extension.state.asked.lock().clone();
    let (_, _, who) = asked
        .iter()
        .find(|(_, path, _)| path.ends_with("/echo"))
        .unwrap();
    assert_eq!(who["x-remote-user"], ["somebody"]);
    assert_eq!(who["x-forwarded-for"], ["192.0.2.7, 127.0.0.1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_waits_for_a_server_that_does_not_answer() {
    let mut cluster = Cluster::door().await;
    cluster.run_controllers();
    let admin = admin(&cluster);
    let extension = Extension::start(&front_ca(&admin).await).await;
    let mut service = api_service(&extension);
    service["spec"]["service"]["name"] = "missing".into();
    admin.post(SERVICES, &service).await.expect(201);
    available(&admin, "False", "ServiceNotFound").await;
    let namespace = json!({"metadata": {"name": "going"}});
    admin
        .post("/api/v1/namespaces", &namespace)
        .await
        .expect(201);
    let map = json!({"metadata": {"name": "m"}});
    admin
        .post("/api/v1/namespaces/going/configmaps", &map)
        .await
        .expect(201);
    let path = "/api/v1/namespaces/going";
    admin.delete(path, None).await.expect(200);
    let told = until("the condition", || async {
        let found = admin.get(path).await.expect(200).body;
        let conditions = found["status"]["conditions"].as_array()?.clone();
        conditions
            .into_iter()
            .find(|it| it["type"] == "NamespaceDeletionDiscoveryFailure" && it["status"] == "True")
    })
    .await;
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("stale GroupVersion discovery: wardle.example.com/v1"),
        "{message}"
    );
    // All else goes meanwhile.
    let map = "/api/v1/namespaces/going/configmaps/m";
    until("the map's end", || async {
        (admin.get(map).await.code == 404).then_some(())
    })
    .await;
    assert_eq!(admin.get(path).await.code, 200);
    admin
        .delete(&format!("{SERVICES}/v1.wardle.example.com"), None)
        .await
        .expect(200);
    until("the namespace's end", || async {
        (admin.get(path).await.code == 404).then_some(())
    })
    .await;
}

/// A Swagger document of the server: paths of its own and of others, a definition that the door has
/// too, and one that it has otherwise.
fn swagger(of: &str) -> Value {
    let meta = "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let answer = |definition: &str| {
        json!({"get": {"operationId": "list", "responses": {"200": {"description": "OK",
            "schema": {"$ref": format!("#/definitions/{definition}")}}}}})
    };
    let flunder = format!("com.example.wardle.v1.{of}");
    json!({
        "swagger": "2.0", "info": {"title": "wardle", "version": "1"},
        "paths": {
            "/apis/wardle.example.com/v1/flunders": answer(&flunder),
            "/apis/wardle.example.com/v2/flunders": answer("com.example.wardle.v2.Flunder"),
            "/version/": answer("com.example.wardle.Version"),
        },
        "definitions": {
            flunder: {"type": "object", "properties": {"metadata": {"$ref": meta}},
                "x-kubernetes-group-version-kind": [
                    {"group": "wardle.example.com", "version": "v1", "kind": "Flunder"}]},
            "com.example.wardle.v2.Flunder": {"type": "object"},
            "com.example.wardle.Version": {"type": "object"},
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {"type": "object",
                "description": "what wardle knows of it"},
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_swagger_document_shows_what_a_server_behind_the_door_serves() {
    const PATH: &str = "/apis/wardle.example.com/v1/flunders";
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let before = admin.get("/openapi/v2").await.expect(200);
    let extension = Extension::start(&front_ca(&admin).await).await;
    let fixed = |of: &str| {
        let mut fixed = extension.state.fixed.lock();
        fixed.insert("/openapi/v2".to_owned(), swagger(of));
    };
    fixed("Flunder");
    connect(&cluster, &admin, &extension).await;
    admin
        .post(SERVICES, &api_service(&extension))
        .await
        .expect(201);
    let shown = async |definition: &'static str| {
        until("the Swagger document", || async {
            let found = admin.get("/openapi/v2").await.expect(200);
            let there = found.body["definitions"].get(definition).is_some();
            there.then_some(found)
        })
        .await
    };
    let found = shown("com.example.wardle.v1.Flunder").await;
    assert_ne!(found.header("etag"), before.header("etag"));
    let known = [("if-none-match", found.header("etag"))];
    let again = admin.send("GET", "/openapi/v2", &known, None).await;
    assert_eq!(again.code, 304);
    let body = &found.body;
    let schema = &body["paths"][PATH]["get"]["responses"]["200"]["schema"]["$ref"];
    assert_eq!(schema, "#/definitions/com.example.wardle.v1.Flunder");
    // What it says of other paths does not count, nor what only those need.
    assert!(
        body["paths"]
            .get("/apis/wardle.example.com/v2/flunders")
            .is_none()
    );
    assert!(
        body["definitions"]
            .get("com.example.wardle.Version")
            .is_none()
    );
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    assert_eq!(body["definitions"][meta], before.body["definitions"][meta]);
    let other = format!("{meta}_v2");
    assert_eq!(
        body["definitions"][&other]["description"],
        "what wardle knows of it"
    );
    assert_eq!(
        body["definitions"]["com.example.wardle.v1.Flunder"]["properties"]["metadata"]["$ref"],
        format!("#/definitions/{other}")
    );
    assert!(
        body["paths"]
            .get("/apis/apps/v1/namespaces/{namespace}/deployments")
            .is_some()
    );
    let protobuf = admin
        .exchange(
            "GET",
            "/openapi/v2",
            &[(
                "accept",
                "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
            )],
            Vec::new(),
        )
        .await;
    let bytes = http_body_util::BodyExt::collect(protobuf.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert!(bytes.windows(PATH.len()).any(|at| at == PATH.as_bytes()));

    // It is asked again when the APIService changes, and forgotten when that goes.
    fixed("Other");
    let one = format!("{SERVICES}/v1.wardle.example.com");
    let patch = json!({"spec": {"versionPriority": 16}});
    let merge = "application/merge-patch+json";
    admin.patch(&one, merge, &patch).await.expect(200);
    let found = shown("com.example.wardle.v1.Other").await;
    assert!(
        found.body["definitions"]
            .get("com.example.wardle.v1.Flunder")
            .is_none()
    );
    admin.delete(&one, None).await.expect(200);
    until("the end of the server's part", || async {
        let found = admin.get("/openapi/v2").await.expect(200);
        let gone = found.body["paths"].get(PATH).is_none();
        gone.then(|| assert_eq!(found.header("etag"), before.header("etag")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_stands_for_a_name_is_followed() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let extension = Extension::start(&front_ca(&admin).await).await;
    let namespace = json!({"metadata": {"name": "wardle"}});
    admin
        .post("/api/v1/namespaces", &namespace)
        .await
        .expect(201);
    // The certificate is that of the service, whatever name it stands for.
    let services = "/api/v1/namespaces/wardle/services";
    let service = json!({"metadata": {"name": "flunders"},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}});
    admin.post(services, &service).await.expect(201);
    // A name has no ports: the one of the APIService is that of the other side.
    let mut wanted = api_service(&extension);
    wanted["spec"]["service"]["port"] = extension.port.into();
    admin.post(SERVICES, &wanted).await.expect(201);
    available(&admin, "True", "Passed").await;
    let flunder = json!({"metadata": {"name": "one"}, "kind": "Flunder",
        "apiVersion": "wardle.example.com/v1"});
    admin.post(FLUNDERS, &flunder).await.expect(201);
    let found = admin.get(&format!("{FLUNDERS}/one")).await.expect(200);
    assert_eq!(found.body["metadata"]["name"], "one");

    // A name that nobody has is told.
    let nobody = json!({"spec": {"externalName": "nobody.invalid"}});
    extension.state.broken.store(true, Ordering::SeqCst);
    admin
        .patch(
            &format!("{services}/flunders"),
            "application/merge-patch+json",
            &nobody,
        )
        .await
        .expect(200);
    let condition = available(&admin, "False", "FailedDiscoveryCheck").await;
    let port = extension.port;
    let url = format!("https://nobody.invalid:{port}/apis/wardle.example.com/v1");
    assert!(
        condition["message"].as_str().unwrap().contains(&url),
        "{condition}"
    );
}
