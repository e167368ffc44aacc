//! A webhook: an HTTPS server on loopback with a certificate of its own, whose answers the test
//! says.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// What a webhook does with the `request` of a review: its `response` without the UID.
type Answer = dyn Fn(&Value) -> Value + Send + Sync;

/// A running webhook.
pub(crate) struct Hook {
    pub(crate) port: u16,
    /// Its certificate as a CA bundle.
    pub(crate) bundle: String,
    /// What it was asked: `request` of each review.
    pub(crate) asked: Arc<Mutex<Vec<Value>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Hook {
    /// Starts a webhook whose certificate is about these names.
    pub(crate) async fn start(
        names: &[&str],
        answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self::with(rcgen::CertificateParams::new(names).unwrap(), answer).await
    }

    /// Starts a webhook with such a certificate, which is its own authority.
    pub(crate) async fn with(
        params: rcgen::CertificateParams,
        answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let signing = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&signing).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing.serialize_der()));
        let chain = vec![CertificateDer::from(cert.der().to_vec())];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answer> = Arc::new(answer);
        let serving = serve(
            listener,
            TlsAcceptor::from(Arc::new(tls)),
            answer,
            Arc::clone(&asked),
        );
        Self {
            port,
            bundle: STANDARD.encode(cert.pem()),
            asked,
            _serving: AbortOnDropHandle::new(tokio::spawn(serving)),
        }
    }

    /// A webhook entry that asks this server about everything that `rule` says.
    pub(crate) fn entry(&self, name: &str, rule: &Value) -> Value {
        json!({
            "name": name,
            "clientConfig": {
                "url": format!("https://localhost:{}/review", self.port),
                "caBundle": self.bundle,
            },
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        })
    }

    /// How often it was asked.
    pub(crate) fn count(&self) -> usize {
        self.asked.lock().len()
    }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    answer: Arc<Answer>,
    asked: Arc<Mutex<Vec<Value>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, answer, asked) = (tls.clone(), Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            // A client that does not trust this server hangs up here.
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                async move { review(request, &*answer, &asked).await }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            drop(connection.await);
        });
    }
}

async fn review(
    request: Request<Incoming>,
    answer: &Answer,
    asked: &Mutex<Vec<Value>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let mut review: Value = serde_json::from_slice(&body).unwrap();
    let request = review["request"].take();
    asked.lock().push(request.clone());
    let mut response = answer(&request);
    if response["hang"] == true {
        std::future::pending::<()>().await;
    }
    if let Some(code) = response["http"].as_u64() {
        let text = response["text"].as_str().unwrap_or_default().to_owned();
        let mut refused = Response::new(Full::new(Bytes::from(text)));
        *refused.status_mut() = u16::try_from(code).unwrap().try_into().unwrap();
        return Ok(refused);
    }
    if response.get("uid").is_none() {
        response["uid"] = request["uid"].clone();
    }
    review["response"] = response;
    Ok(Response::new(Full::new(Bytes::from(review.to_string()))))
}

/// A patch in the form of a response.
pub(crate) fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch",
        "patch": STANDARD.encode(operations.to_string())})
}
