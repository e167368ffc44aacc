//! A server for probes to ask, in a container: this very test binary, bound into a pod with the
//! libraries it needs. It answers the gRPC health protocol and HTTPS, as the file
//! `/state/serving` says.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// Says that the test binary runs as the server.
pub(crate) const SERVES: &str = "EVENKEEL_TEST_SERVES";
const STATE: &str = "/state/serving";
const GRPC_PORT: u16 = 9000;
const TLS_PORT: u16 = 9443;

/// A pod that serves, not ready until `/state/serving` is there: `grpc` asks for the service
/// `shop`, `tls` over HTTPS.
pub(crate) fn served_pod() -> String {
    let this = std::env::current_exe().expect("a test binary has a path");
    let this = this.display().to_string();
    let ldd = Command::new("ldd").arg(&this).output().expect("ldd runs");
    let listing = String::from_utf8_lossy(&ldd.stdout).into_owned();
    let libraries = listing
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    let (mut mounts, mut volumes) = (String::new(), String::new());
    for (number, file) in libraries.chain([this.as_str()]).enumerate() {
        write!(
            mounts,
            "\n    - {{name: f{number}, mountPath: \"{file}\", readOnly: true}}"
        )
        .expect("text grows");
        write!(
            volumes,
            "\n  - {{name: f{number}, hostPath: {{path: \"{file}\", type: File}}}}"
        )
        .expect("text grows");
    }
    let container = |name: &str, probe: &str| {
        format!(
            "
  - name: {name}
    image: busybox:test
    command: [\"{this}\", --exact, pods::the_server_that_probes_ask, --ignored, --nocapture]
    env: [{{name: {SERVES}, value: {name}}}]
    readinessProbe: {{{probe}, periodSeconds: 1, failureThreshold: 1}}
    volumeMounts:
    - {{name: state, mountPath: /state}}{mounts}"
        )
    };
    let grpc = container("grpc", "grpc: {port: 9000, service: shop}");
    let tls = container(
        "tls",
        "httpGet: {port: 9443, scheme: HTTPS, path: /well}, timeoutSeconds: 5",
    );
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: served}}
spec:
  terminationGracePeriodSeconds: 1
  containers:{grpc}{tls}
  volumes:
  - {{name: state, emptyDir: {{}}}}{volumes}
"
    )
}

/// Serves until it is killed; `which` is `grpc` or `tls`.
pub(crate) fn serve(which: &str) {
    let work = async {
        match which {
            "grpc" => grpc().await,
            _ => tls().await,
        }
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work);
}

async fn listen(port: u16) -> TcpListener {
    TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port)))
        .await
        .expect("the pod's port is free")
}

fn serving() -> bool {
    std::path::Path::new(STATE).exists()
}

async fn grpc() {
    let listener = listen(GRPC_PORT).await;
    loop {
        let (stream, _) = listener.accept().await.expect("connections come");
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service_fn(check));
        tokio::spawn(connection);
    }
}

async fn check(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let known = request.uri().path() == "/grpc.health.v1.Health/Check";
    let asked = request.into_body().collect().await?.to_bytes();
    // Frame header, field 1, length, name.
    let shop = asked.get(7..) == Some(b"shop");
    let (code, answer) = match (known && shop, serving()) {
        (false, _) => ("5", Bytes::new()),
        (true, true) => ("0", Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1])),
        (true, false) => ("0", Bytes::from_static(&[0, 0, 0, 0, 2, 8, 2])),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    let body = Full::new(answer).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

async fn tls() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(vec!["nobody.example".to_owned()])
        .expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = listen(TLS_PORT).await;
    loop {
        let (stream, _) = listener.accept().await.expect("connections come");
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let answer = service_fn(|request: Request<Incoming>| async move {
                let well = serving() && request.uri().path() == "/well";
                let mut response = Response::new(Full::new(Bytes::from_static(b"so it is")));
                *response.status_mut() = http::StatusCode::from_u16(if well { 200 } else { 503 })
                    .expect("a status code");
                Ok::<_, Infallible>(response)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = connection.await {
                eprintln!("{error}");
            }
        });
    }
}
