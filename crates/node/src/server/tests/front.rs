//! As much of an API server as kubectl needs to reach the node's handlers: discovery of pods, one
//! pod, and its subresources rewritten to the node's paths. Upgrades pass through unchanged.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::fake::FakeNode;
use crate::server::query::Query;
use crate::server::respond::{self, Body};
use crate::server::{Caller, MastersOnly, NodeServer};

/// Serves on loopback until the token's guard is dropped.
pub(crate) async fn serve(node: Arc<FakeNode>) -> (SocketAddr, tokio_util::sync::DropGuard) {
    let shutdown = CancellationToken::new();
    let runtime = node.runtime.clone();
    let server = NodeServer::new(node, Arc::new(MastersOnly), shutdown.clone());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = shutdown.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted.unwrap(),
                () = end.cancelled() => return,
            };
            let (server, runtime) = (server.clone(), runtime.clone());
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let (server, runtime) = (server.clone(), runtime.clone());
                    async move {
                        let response = answer(&server, request).await;
                        if let Some(protocol) = response.headers().get("upgrade") {
                            runtime
                                .upgrades
                                .lock()
                                .push(protocol.to_str().unwrap().to_owned());
                        }
                        Ok::<_, Infallible>(response)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                // A kubectl that ends leaves its connection as it is.
                connection.await.ok();
            });
        }
    });
    (address, shutdown.drop_guard())
}

async fn answer(server: &NodeServer, mut request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    const POD: &str = "/api/v1/namespaces/default/pods/p";
    let known = match path.as_str() {
        "/api" => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
        "/version" => Some(json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0"})),
        "/api/v1" => Some(resources()),
        POD => Some(pod()),
        _ => None,
    };
    if let Some(value) = known {
        return respond::json(&value);
    }
    let query = Query::of(request.uri());
    let container = query.get("container").unwrap_or("c").to_owned();
    let node_path = match path.strip_prefix(POD) {
        Some("/log") => format!("/containerLogs/default/p/{container}"),
        Some("/exec") => format!("/exec/default/p/{container}"),
        Some("/attach") => format!("/attach/default/p/{container}"),
        Some("/portforward") => "/portForward/default/p".to_owned(),
        _ => {
            let text = Bytes::from(
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                       "reason": "NotFound", "message": format!("{path} not found")})
                .to_string(),
            );
            return respond::with_type(StatusCode::NOT_FOUND, "application/json", text);
        }
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    *request.uri_mut() = format!("{node_path}?{query}").parse().unwrap();
    let peer = Caller {
        name: "system:kube-apiserver".to_owned(),
        ..Caller::default()
    };
    let response = server.handle(Some(&peer), request).await;
    if response.status() != StatusCode::BAD_REQUEST || !path.ends_with("/log") {
        return response;
    }
    // What the API server makes of a node's refusal when it streams from there.
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": "BadRequest", "code": 400, "message": String::from_utf8_lossy(&text)});
    let text = Bytes::from(status.to_string());
    respond::with_type(StatusCode::BAD_REQUEST, "application/json", text)
}

fn resources() -> Value {
    let resource = |name: &str, kind: &str, verbs: &[&str]| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs});
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
        resource("pods", "Pod", &["get", "list"]),
        resource("pods/log", "Pod", &["get"]),
        resource("pods/exec", "PodExecOptions", &["create", "get"]),
        resource("pods/attach", "PodAttachOptions", &["create", "get"]),
        resource("pods/portforward", "PodPortForwardOptions", &["create", "get"]),
    ]})
}

fn pod() -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "p", "namespace": "default", "uid": "uid-p"},
        "spec": {"containers": [
            {"name": "c", "image": "i", "stdin": true, "ports": [{"containerPort": 80}]},
            {"name": "w", "image": "i"},
        ]},
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "c", "ready": true, "restartCount": 0, "image": "i", "imageID": "",
             "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}},
        ]},
    })
}
