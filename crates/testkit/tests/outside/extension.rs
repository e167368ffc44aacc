//! A small aggregated server: `wardle.example.com/v1 Flunder`, kept in memory. It believes a front
//! proxy by what the door has told in its ConfigMap, and answers nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Method, path and the headers about who asks.
type Asked = (String, String, BTreeMap<String, Vec<String>>);

/// What the server keeps and has seen.
pub(crate) struct State {
    objects: Mutex<BTreeMap<String, Value>>,
    events: broadcast::Sender<Value>,
    pub(crate) asked: Mutex<Vec<Asked>>,
    /// What it answers at these paths and queries, before all else.
    pub(crate) fixed: Mutex<BTreeMap<String, Value>>,
    /// It speaks aggregated discovery.
    pub(crate) modern: AtomicBool,
    /// It answers 500 to everything.
    pub(crate) broken: AtomicBool,
}

/// A running server.
pub(crate) struct Extension {
    pub(crate) port: u16,
    /// Its certificate as a CA bundle.
    pub(crate) bundle: String,
    pub(crate) state: Arc<State>,
    _serving: AbortOnDropHandle<()>,
}

impl Extension {
    /// Starts a server that believes clients whom this authority vouches for.
    pub(crate) async fn start(front_ca: &str) -> Self {
        let names = vec!["flunders.wardle.svc".to_owned()];
        let signed = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
        let chain = vec![CertificateDer::from(signed.cert.der().to_vec())];
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(front_ca.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let fronts = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        )
        .build()
        .unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(fronts)
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            objects: Mutex::default(),
            events: broadcast::Sender::new(64),
            asked: Mutex::default(),
            fixed: Mutex::default(),
            modern: AtomicBool::new(true),
            broken: AtomicBool::new(false),
        });
        let serving = serve(
            listener,
            TlsAcceptor::from(Arc::new(tls)),
            Arc::clone(&state),
        );
        Self {
            port,
            bundle: base64::engine::general_purpose::STANDARD.encode(signed.cert.pem()),
            state,
            _serving: AbortOnDropHandle::new(tokio::spawn(serving)),
        }
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            // Who is no front proxy gets no further.
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request: Request<Incoming>| {
                let state = Arc::clone(&state);
                async move { Ok::<_, std::convert::Infallible>(answer(request, &state).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            drop(connection.await);
        });
    }
}

fn full(code: StatusCode, content_type: &str, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    Response::builder()
        .status(code)
        .header("content-type", content_type)
        .body(body.boxed_unsync())
        .unwrap()
}

fn json_answer(value: &Value) -> Response<Body> {
    full(StatusCode::OK, "application/json", value.to_string())
}

async fn answer(mut request: Request<Incoming>, state: &Arc<State>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut who: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.headers() {
        let name = name.as_str();
        let told = name.starts_with("x-remote-") || name.starts_with("x-forwarded-");
        if told || name == "authorization" {
            let value = value.to_str().unwrap().to_owned();
            who.entry(name.to_owned()).or_default().push(value);
        }
    }
    let method = request.method().clone();
    state
        .asked
        .lock()
        .push((method.to_string(), path.clone(), who));
    if state.broken.load(Ordering::SeqCst) {
        return full(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain",
            String::new(),
        );
    }
    let whole = request.uri().path_and_query().map(ToString::to_string);
    let found = state.fixed.lock().get(&whole.unwrap_or_default()).cloned();
    if let Some(found) = found {
        return json_answer(&found);
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["apis"] if state.modern.load(Ordering::SeqCst) => {
            let kind = json!({"group": "wardle.example.com", "version": "v1", "kind": "Flunder"});
            let all = json!({"kind": "APIGroupDiscoveryList",
                "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": [
                    {"metadata": {"name": "wardle.example.com"}, "versions": [{"version": "v1",
                        "freshness": "Current", "resources": [{"resource": "flunders",
                            "responseKind": kind, "scope": "Namespaced",
                            "singularResource": "flunder",
                            "verbs": ["create", "delete", "get", "list", "watch"]}]}]}]});
            let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            full(StatusCode::OK, kind, all.to_string())
        }
        ["apis", "wardle.example.com", "v1"] => json_answer(&json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "wardle.example.com/v1", "resources": [
                {"name": "flunders", "singularName": "flunder", "namespaced": true,
                    "kind": "Flunder", "verbs": ["create", "delete", "get", "list", "watch"]}],
        })),
        ["openapi", "v3"] => json_answer(&json!({"paths": {"apis/wardle.example.com/v1":
            {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1?hash=ABC"}}})),
        ["openapi", "v3", "apis", "wardle.example.com", "v1"] => {
            json_answer(&json!({"openapi": "3.0.0", "info": {"title": "wardle"}, "paths": {}}))
        }
        ["apis", _, "v1", "namespaces", _, "flunders", _, "echo"] => {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let io = TokioIo::new(upgraded.await.unwrap());
                let (mut from, mut to) = tokio::io::split(io);
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
            let mut answer = full(StatusCode::SWITCHING_PROTOCOLS, "text/plain", String::new());
            let headers = answer.headers_mut();
            headers.insert("connection", "Upgrade".parse().unwrap());
            headers.insert("upgrade", "echo".parse().unwrap());
            answer
        }
        ["apis", _, "v1", "flunders"] => list(state, ""),
        ["apis", _, "v1", "namespaces", space, "flunders"] => {
            if request.uri().query().unwrap_or_default().contains("watch=") {
                let events = state.events.subscribe();
                let lines = futures::stream::unfold(events, |mut events| async move {
                    let event: Value = events.recv().await.ok()?;
                    let line = Bytes::from(format!("{event}\n"));
                    Some((Ok(Frame::data(line)), events))
                });
                let mut answer = full(StatusCode::OK, "application/json", String::new());
                *answer.body_mut() = StreamBody::new(lines.boxed()).boxed_unsync();
                return answer;
            }
            if method == Method::POST {
                let space = (*space).to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut made: Value = serde_json::from_slice(&body).unwrap();
                made["metadata"]["namespace"] = space.clone().into();
                let name = made["metadata"]["name"].as_str().unwrap().to_owned();
                state
                    .objects
                    .lock()
                    .insert(format!("{space}/{name}"), made.clone());
                let event = json!({"type": "ADDED", "object": made});
                drop(state.events.send(event));
                return full(StatusCode::CREATED, "application/json", made.to_string());
            }
            if method == Method::DELETE {
                let prefix = format!("{space}/");
                state
                    .objects
                    .lock()
                    .retain(|key, _| !key.starts_with(&prefix));
            }
            list(state, space)
        }
        ["apis", _, "v1", "namespaces", space, "flunders", name] => {
            let key = format!("{space}/{name}");
            if method == Method::DELETE {
                state.objects.lock().remove(&key);
                return json_answer(&json!({"kind": "Status", "apiVersion": "v1",
                    "status": "Success"}));
            }
            match state.objects.lock().get(&key) {
                Some(found) => json_answer(found),
                None => not_found(),
            }
        }
        _ => not_found(),
    }
}

fn not_found() -> Response<Body> {
    full(
        StatusCode::NOT_FOUND,
        "application/json",
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
            "reason": "NotFound", "message": "no such flunder"})
        .to_string(),
    )
}

fn list(state: &State, space: &str) -> Response<Body> {
    let objects = state.objects.lock();
    let items: Vec<&Value> = objects
        .values()
        .filter(|it| space.is_empty() || it["metadata"]["namespace"] == space)
        .collect();
    json_answer(
        &json!({"kind": "FlunderList", "apiVersion": "wardle.example.com/v1",
        "metadata": {"resourceVersion": "1"}, "items": items}),
    )
}
