//! Requests against a door that answers from a script.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::{Pod, Volume};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Api;
use crate::{Client, Kind as _, errors};

/// What was asked: method, path with query, body.
type Asked = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A client whose every request gets this answer.
fn door(code: u16, answer: &Value) -> (Client, Asked) {
    let asked = Asked::default();
    let (seen, answer) = (Arc::clone(&asked), answer.to_string());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (seen, answer) = (Arc::clone(&seen), answer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let path = parts.uri.path_and_query().unwrap().to_string();
            seen.lock().push((parts.method.to_string(), path, body));
            let mut response = http::Response::new(Body::from(answer.into_bytes()));
            *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    (Client::new(service, "default"), asked)
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": name, "namespace": "a", "resourceVersion": "7",
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]}})
}

#[tokio::test]
async fn answers_come_without_managed_fields() {
    let (client, asked) = door(200, &pod("one"));
    let pods: Api<Pod> = Api::namespaced(client, "a");
    let one = pods.get("one").await.unwrap();
    assert_eq!(one.metadata.name.as_deref(), Some("one"));
    assert!(one.metadata.managed_fields.is_none());
    assert_eq!(asked.lock()[0].1, "/api/v1/namespaces/a/pods/one");

    let list = json!({"kind": "PodList", "metadata": {"resourceVersion": "9"},
        "items": [pod("one"), pod("two")]});
    let (client, asked) = door(200, &list);
    let list = Api::<Pod>::all(client)
        .list(&Default::default())
        .await
        .unwrap();
    assert_eq!(list.metadata.resource_version.as_deref(), Some("9"));
    assert_eq!(list.items.len(), 2);
    assert!(list.items[1].metadata.managed_fields.is_none());
    assert!(asked.lock()[0].1.starts_with("/api/v1/pods?"));
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_only_a_success_or_not() {
    let (params, pod) = (PostParams::default(), Pod::default());
    let (client, asked) = door(201, &json!("not a pod"));
    let pods: Api<Pod> = Api::namespaced(client, "a");
    pods.create_unread(&params, &pod).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"priority": 1}}));
    pods.patch_unread("one", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let methods: Vec<String> = asked.lock().iter().map(|it| it.0.clone()).collect();
    assert_eq!(methods, ["POST", "PATCH"]);

    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": "pods \"one\" already exists", "reason": "AlreadyExists", "code": 409});
    let (client, _) = door(409, &status);
    let pods: Api<Pod> = Api::namespaced(client, "a");
    let refused = pods.create_unread(&params, &pod).await.unwrap_err();
    assert!(errors::is_already_exists(&refused));
}

#[tokio::test]
async fn a_list_may_have_no_items() {
    for items in [json!(null), json!([])] {
        let (client, _) = door(200, &json!({"metadata": {}, "items": items}));
        let list = Api::<Pod>::all(client).list(&Default::default()).await;
        assert!(list.unwrap().items.is_empty());
    }
}

#[tokio::test]
async fn what_is_not_there_is_none() {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": "pods \"one\" not found", "reason": "NotFound", "code": 404});
    let (client, _) = door(404, &status);
    let pods: Api<Pod> = Api::namespaced(client, "a");
    assert!(pods.get_opt("one").await.unwrap().is_none());
    assert!(errors::is_not_found(&pods.get("one").await.unwrap_err()));
}

#[tokio::test]
async fn a_delete_answers_what_waits_or_that_it_is_gone() {
    let (client, asked) = door(200, &pod("one"));
    let pods: Api<Pod> = Api::namespaced(client, "a");
    let params = DeleteParams::default().grace_period(3);
    let left = pods.delete("one", &params).await.unwrap().left().unwrap();
    assert_eq!(left.metadata.name.as_deref(), Some("one"));
    assert_eq!(asked.lock()[0].2["gracePeriodSeconds"], 3);

    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
    let (client, _) = door(200, &gone);
    let pods: Api<Pod> = Api::namespaced(client, "a");
    assert!(pods.delete("one", &params).await.unwrap().is_right());
}

#[tokio::test]
async fn an_eviction_carries_its_preconditions() {
    let (client, asked) = door(201, &json!({"kind": "Status", "status": "Success"}));
    let options = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some("u".to_owned()),
            ..Preconditions::default()
        }),
        ..DeleteParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(client, "a");
    pods.evict("one", &options).await.unwrap();
    let (method, path, body) = asked.lock()[0].clone();
    assert_eq!(method, "POST");
    assert!(path.starts_with("/api/v1/namespaces/a/pods/one/eviction"));
    assert_eq!(body["deleteOptions"]["preconditions"]["uid"], "u");
    assert_eq!(body["metadata"]["name"], "one");
}

#[test]
fn a_pod_is_kept_without_projected_volumes() {
    let mut pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [],
        "volumes": [{"name": "token", "projected": {"sources": []}}, {"name": "data", "emptyDir": {}}]}}))
    .unwrap();
    pod.trim();
    let names = |volumes: &[Volume]| -> Vec<String> {
        volumes.iter().map(|volume| volume.name.clone()).collect()
    };
    assert_eq!(names(&pod.spec.unwrap().volumes.unwrap()), ["data"]);
}

/// A server that does not serve a path says so in a plain text, as the reference does.
#[tokio::test]
async fn a_path_that_nobody_serves_is_not_found() {
    let (client, _) = door(404, &Value::Null);
    let pods: Api<Pod> = Api::namespaced(client, "a");
    let error = pods.get("p").await.unwrap_err();
    assert!(errors::is_not_found(&error), "{error:?}");
}
