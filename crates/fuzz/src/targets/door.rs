//! Whole requests to a door in this process: method and path, headers, and a body after an empty
//! line. Nothing is kept: what would change something is tried only.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_api::patch::PatchError;
use evenkeel_server::Identity;
use evenkeel_server::http::{Attributes, Query};
use evenkeel_testkit::{ADMIN, Caller, Cluster};
use futures::FutureExt as _;
use http::{Method, Uri};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::Shape;

struct World {
    runtime: Runtime,
    caller: Caller,
    cluster: Cluster,
}

static WORLD: Mutex<Option<World>> = Mutex::new(None);

fn world() -> MutexGuard<'static, Option<World>> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes the door, and removes what it kept.
pub(crate) fn close() {
    if let Some(World {
        runtime, cluster, ..
    }) = world().take()
    {
        let _entered = runtime.enter();
        drop(cluster);
    }
}

fn open() -> World {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    let cluster = runtime.block_on(Cluster::door());
    let caller = cluster.caller(Identity::user("admin", &[ADMIN]));
    runtime.block_on(furnish(&caller));
    World {
        runtime,
        caller,
        cluster,
    }
}

/// Something to read and to change.
async fn furnish(caller: &Caller) {
    let metadata = |name: &str| json!({"name": name, "labels": {"app": name}});
    let container = json!({"name": "a", "image": "a"});
    let namespaced = "/api/v1/namespaces/default";
    for (path, object) in [
        (
            "/api/v1/namespaces".to_owned(),
            json!({"metadata": metadata("default")}),
        ),
        (
            format!("{namespaced}/configmaps"),
            json!({"metadata": metadata("a"), "data": {"a": "b"}}),
        ),
        (
            format!("{namespaced}/secrets"),
            json!({"metadata": metadata("a"), "stringData": {"a": "b"}}),
        ),
        (
            format!("{namespaced}/serviceaccounts"),
            json!({"metadata": metadata("default")}),
        ),
        (
            format!("{namespaced}/services"),
            json!({"metadata": metadata("a"), "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}}),
        ),
        (
            format!("{namespaced}/pods"),
            json!({"metadata": metadata("a"), "spec": {"containers": [container]}}),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments".to_owned(),
            json!({"metadata": metadata("a"), "spec": {
                "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": metadata("a"), "spec": {"containers": [container]}},
            }}),
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned(),
            json!({"metadata": {"name": "toys.example.com"}, "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "toys", "kind": "Toy"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                    "openAPIV3Schema": {"type": "object", "properties": {"spec": {
                        "type": "object",
                        "properties": {"size": {"type": "integer", "minimum": 0}},
                        "x-kubernetes-validations": [{"rule": "!has(self.size) || self.size < 100"}],
                    }}},
                }}],
            }}),
        ),
    ] {
        let made = caller.post(&path, &object).await;
        assert!(matches!(made.code, 201 | 409), "{path}: {:#}", made.body);
    }
    for _ in 0..500 {
        if caller.get("/apis/example.com/v1/toys").await.code == 200 {
            let toys = "/apis/example.com/v1/namespaces/default/toys";
            caller
                .post(
                    toys,
                    &json!({
                        "apiVersion": "example.com/v1", "kind": "Toy",
                        "metadata": metadata("a"), "spec": {"size": 1},
                    }),
                )
                .await
                .expect(201);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("toys are never served");
}

/// Method and path with its query, headers, body.
type Parts<'i> = (&'i str, String, Vec<(&'i str, &'i str)>, &'i [u8]);

fn parts(input: &[u8]) -> Option<Parts<'_>> {
    let end = input.windows(2).position(|two| two == b"\n\n");
    let (head, body) = match end {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (input, &b""[..]),
    };
    let mut lines = std::str::from_utf8(head).ok()?.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let parsed: Method = method.parse().ok()?;
    let mut path = path.to_owned();
    if !matches!(parsed, Method::GET | Method::HEAD | Method::OPTIONS) {
        // What is only tried leaves the world as it is for the next.
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str("dryRun=All");
    }
    path.parse::<Uri>()
        .ok()
        .filter(|uri| uri.path().starts_with('/'))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        http::HeaderName::from_bytes(name.as_bytes()).ok()?;
        http::HeaderValue::from_str(value.trim()).ok()?;
        headers.push((name, value.trim()));
    }
    Some((method, path, headers, body))
}

/// The door answers everything, soon, and never with an error of its own.
pub(super) fn door(input: &[u8]) -> Shape {
    let Some((method, path, headers, body)) = parts(input) else {
        return Shape(0);
    };
    let (plain, query) = path.split_once('?').unwrap_or((&path, ""));
    let attributes = Attributes::of(
        &method.parse().unwrap_or_default(),
        plain,
        &Query::parse(query),
    );
    // What leads to other machines is for other tests, and what waits for the future waits.
    if matches!(attributes.subresource.as_str(), "proxy") || query.contains("esourceVersion") {
        return Shape(1);
    }
    let mut world = world();
    let world = world.get_or_insert_with(open);
    let answered = world.runtime.block_on(async {
        let asked = world
            .caller
            .exchange(method, &path, &headers, body.to_vec());
        let answer = tokio::time::timeout(Duration::from_secs(10), asked)
            .await
            .expect("an answer");
        let (parts, mut body) = answer.into_parts();
        // A watch goes on: what is there at once is enough of it.
        let mut bytes = Vec::new();
        let mut ended = false;
        for _ in 0..64 {
            match body.frame().now_or_never() {
                Some(Some(frame)) => {
                    let data = frame.expect("it does not break").into_data();
                    bytes.extend_from_slice(&data.unwrap_or_default());
                }
                Some(None) => {
                    ended = true;
                    break;
                }
                None => break,
            }
        }
        (parts, bytes, ended)
    });
    judge(method == "PATCH", answered)
}

fn judge(patches: bool, (parts, bytes, ended): (http::response::Parts, Vec<u8>, bool)) -> Shape {
    let code = parts.status.as_u16();
    let kind = parts
        .headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let packed = parts.headers.contains_key("content-encoding");
    let mut message = String::new();
    let mut blames_the_patch = false;
    if kind == "application/json" && ended && !packed && !bytes.is_empty() {
        let value: Value = serde_json::from_slice(&bytes).expect("JSON is JSON");
        if value["kind"] == "Status" && value["apiVersion"] == "v1" && code >= 400 {
            assert_eq!(value["code"], code, "{value}");
            assert_eq!(value["status"], "Failure", "{value}");
        }
        message = value["message"].as_str().unwrap_or_default().to_owned();
        // The reference answers some patches with 500 and no reason, although it is they that are to
        // blame.
        let is_late = message == PatchError::Pending.to_string();
        blames_the_patch = patches && value.get("reason").is_none() && !is_late;
    }
    let fails = code == 500 && !blames_the_patch;
    assert!(!fails, "{}", String::from_utf8_lossy(&bytes));
    let warned = parts.headers.get_all("warning").iter().count().min(3);
    Shape::of((code, kind, Shape::of_message(&message), warned))
}
