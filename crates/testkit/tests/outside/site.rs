//! An HTTPS server on loopback whose answers the test says.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// What the server answers to a path and a body; `None` for 404.
type Answer = dyn Fn(&str, &Value) -> Option<Value> + Send + Sync;

/// A running server.
pub(crate) struct Site {
    pub(crate) port: u16,
    /// Its certificate, PEM.
    pub(crate) certificate: String,
    /// Paths, bodies and `Authorization` of what it was asked.
    pub(crate) asked: Arc<Mutex<Vec<(String, Value, String)>>>,
    answer: Arc<Mutex<Box<Answer>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Site {
    /// Starts a server that has nothing to say yet.
    pub(crate) async fn start() -> Self {
        let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
        let chain = vec![CertificateDer::from(signed.cert.der().to_vec())];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer: Arc<Mutex<Box<Answer>>> = Arc::new(Mutex::new(Box::new(|_, _| None)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (said, seen) = (Arc::clone(&answer), Arc::clone(&asked));
        let tls = TlsAcceptor::from(Arc::new(tls));
        let serving = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, said, seen) = (tls.clone(), Arc::clone(&said), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (said, seen) = (Arc::clone(&said), Arc::clone(&seen));
                        async move {
                            let path = request.uri().path().to_owned();
                            let credential = request.headers().get("authorization");
                            let credential = credential
                                .map(|it| it.to_str().unwrap().to_owned())
                                .unwrap_or_default();
                            let body = request.into_body().collect().await?.to_bytes();
                            let body = serde_json::from_slice(&body).unwrap_or_default();
                            let answer = (said.lock())(&path, &body);
                            seen.lock().push((path, body, credential));
                            // A text is given as it is: a token is no JSON.
                            let text = match &answer {
                                Some(Value::String(text)) => text.clone(),
                                other => other.as_ref().map(Value::to_string).unwrap_or_default(),
                            };
                            let mut response = Response::new(Full::new(Bytes::from(text)));
                            if answer.is_none() {
                                *response.status_mut() = http::StatusCode::NOT_FOUND;
                            }
                            Ok::<_, hyper::Error>(response)
                        }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    drop(connection.await);
                });
            }
        };
        Self {
            port,
            certificate: signed.cert.pem(),
            asked,
            answer,
            _serving: AbortOnDropHandle::new(tokio::spawn(serving)),
        }
    }

    /// Says what it answers from now on.
    pub(crate) fn says(
        &self,
        answer: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static,
    ) {
        *self.answer.lock() = Box::new(answer);
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// A kubeconfig that names it, with a token.
    pub(crate) fn kubeconfig(&self, path: &str) -> String {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: x, user: u}}}}]\n\
             clusters: [{{name: x, cluster: {{server: '{}{path}', certificate-authority-data: \
             {ca}}}}}]\nusers: [{{name: u, user: {{token: door}}}}]\n",
            self.url()
        )
    }

    /// How often it was asked.
    pub(crate) fn count(&self) -> usize {
        self.asked.lock().len()
    }
}
