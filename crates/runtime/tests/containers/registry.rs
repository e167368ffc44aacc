//! Pulling from a small registry inside the test.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use evenkeel_runtime::testing::{Compression, ImageBuilder, manifest};
use evenkeel_runtime::{ImageOptions, ImageStore, Images, RegistryAuth, RuntimeError};
use http_body_util::Full;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::Digest as _;

#[derive(Clone, Copy, PartialEq)]
enum Guard {
    None,
    Basic,
    Bearer,
}

struct Registry {
    address: String,
    blobs: HashMap<String, Vec<u8>>,
    tags: HashMap<String, String>,
    guard: Guard,
    /// The first this many layer answers stop half-way.
    breaks: AtomicUsize,
    ranges: AtomicUsize,
    requests: AtomicUsize,
}

fn digest(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    format!(
        "sha256:{}",
        hash.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    )
}

impl Registry {
    /// Serves busybox as `team/app:v1`, behind an index for two machines.
    async fn start(guard: Guard, breaks: usize) -> Arc<Self> {
        let (config, tars) = ImageBuilder::busybox()
            .expect("busybox-static")
            .parts()
            .expect("parts");
        let layers: Vec<Vec<u8>> = tars
            .iter()
            .map(|tar| Compression::Gzip.apply(tar).expect("packs"))
            .collect();
        let body =
            serde_json::to_vec(&manifest(&config, &layers, Compression::Gzip)).expect("JSON");
        let machine = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [
            {"mediaType": "m", "digest": digest(b"other"), "size": 1, "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": "m", "digest": digest(&body), "size": body.len(), "platform": {"os": "linux", "architecture": machine}},
        ]});
        let index = serde_json::to_vec(&index).expect("JSON");
        let tags = HashMap::from([("v1".to_owned(), digest(&index))]);
        let blobs = layers
            .into_iter()
            .chain([config, body, index])
            .map(|blob| (digest(&blob), blob))
            .collect();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("binds");
        let registry = Arc::new(Self {
            address: listener.local_addr().expect("an address").to_string(),
            blobs,
            tags,
            guard,
            breaks: AtomicUsize::new(breaks),
            ranges: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
        });
        let served = Arc::clone(&registry);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = Arc::clone(&served);
                let service = hyper::service::service_fn(move |request| {
                    let registry = Arc::clone(&registry);
                    async move { Ok::<_, Infallible>(registry.answer(&request)) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        registry
    }

    fn answer(&self, request: &Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
        let plain = |status, body: &[u8]| {
            Response::builder()
                .status(status)
                .body(Full::new(Bytes::copy_from_slice(body)))
                .expect("builds")
        };
        let path = request.uri().path().to_owned();
        let sent = request
            .headers()
            .get("authorization")
            .and_then(|v| v.to_str().ok())
            .unwrap_or("");
        // user:secret
        let basic = sent == "Basic dXNlcjpzZWNyZXQ=";
        if path == "/token" {
            let query = request.uri().query().unwrap_or("");
            assert!(
                query.contains("scope=repository:team/app:pull") && query.contains("service=test"),
                "{query}"
            );
            return if basic {
                plain(StatusCode::OK, br#"{"token":"good"}"#)
            } else {
                plain(StatusCode::UNAUTHORIZED, b"{}")
            };
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let allowed = match self.guard {
            Guard::None => true,
            Guard::Basic => basic,
            Guard::Bearer => sent == "Bearer good",
        };
        if !allowed {
            let challenge = match self.guard {
                Guard::Bearer => format!(
                    "Bearer realm=\"http://{}/token\",service=\"test\"",
                    self.address
                ),
                _ => "Basic realm=\"test\"".to_owned(),
            };
            let body =
                br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            return Response::builder()
                .status(401)
                .header("www-authenticate", challenge)
                .body(Full::new(Bytes::from_static(body)))
                .expect("builds");
        }
        let Some(rest) = path.strip_prefix("/v2/team/app/") else {
            return plain(StatusCode::NOT_FOUND, b"{}");
        };
        let (kind, name) = rest.split_once('/').expect("kind and name");
        let name = self.tags.get(name).map_or(name, String::as_str);
        let Some(blob) = self.blobs.get(name) else {
            return plain(StatusCode::NOT_FOUND, b"{}");
        };
        if kind == "blobs" && !request.uri().query().unwrap_or("").contains("moved") {
            // As registries with a blob store elsewhere do.
            let place = format!("{path}?moved=1");
            return Response::builder()
                .status(307)
                .header("location", place)
                .body(Full::default())
                .expect("builds");
        }
        let range = request.headers().get("range").and_then(|v| v.to_str().ok());
        let start: usize = range
            .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .unwrap_or(0);
        if start > 0 {
            self.ranges.fetch_add(1, Ordering::Relaxed);
        }
        let mut body = &blob[start.min(blob.len())..];
        if blob.len() > 100_000 && self.breaks.load(Ordering::Relaxed) > 0 {
            self.breaks.fetch_sub(1, Ordering::Relaxed);
            body = &body[..body.len() / 2];
        }
        plain(
            if start > 0 {
                StatusCode::PARTIAL_CONTENT
            } else {
                StatusCode::OK
            },
            body,
        )
    }
}

fn store(options: ImageOptions) -> (tempfile::TempDir, ImageStore) {
    crate::common::require_root();
    let dir = tempfile::tempdir().expect("a directory");
    let store = ImageStore::open(dir.path().join("images"), options).expect("opens");
    (dir, store)
}

fn credentials() -> RegistryAuth {
    RegistryAuth {
        username: "user".into(),
        password: "secret".into(),
        token: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_through_index_redirect_and_broken_transfers() {
    let registry = Registry::start(Guard::None, 2).await;
    let (_dir, store) = store(ImageOptions::default());
    let name = format!("{}/team/app:v1", registry.address);
    let image = store.pull(&name, None).await.expect("pulls");
    assert_eq!(image.tags, std::slice::from_ref(&name));
    assert_eq!(
        image.digests,
        [format!(
            "{}/team/app@{}",
            registry.address, registry.tags["v1"]
        )]
    );
    assert_eq!(
        registry.ranges.load(Ordering::Relaxed),
        2,
        "continued twice"
    );
    let before = registry.requests.load(Ordering::Relaxed);
    let again = store
        .pull(
            &format!("{}/team/app@{}", registry.address, registry.tags["v1"]),
            None,
        )
        .await
        .expect("pulls");
    assert_eq!(again.id, image.id);
    assert!(
        registry.requests.load(Ordering::Relaxed) - before <= 4,
        "layers are not fetched again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_and_given() {
    for guard in [Guard::Basic, Guard::Bearer] {
        let registry = Registry::start(guard, 0).await;
        let name = format!("{}/team/app:v1", registry.address);
        let (_dir, bare) = store(ImageOptions::default());
        let error = bare.pull(&name, None).await.expect_err("no credentials");
        assert!(
            matches!(
                error,
                RuntimeError::Pull {
                    reason: "ErrImagePull",
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("authorization failed") || error.to_string().contains("401"),
            "{error}"
        );
        bare.pull(&name, Some(&credentials()))
            .await
            .expect("pulls with the pod's");
        let known = ImageOptions {
            credentials: BTreeMap::from([(registry.address.clone(), credentials())]),
            ..ImageOptions::default()
        };
        let (_dir, knowing) = store(known);
        knowing
            .pull(&name, None)
            .await
            .expect("pulls with the node's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_come_first_and_the_errors_are_the_ones_users_know() {
    let registry = Registry::start(Guard::None, 0).await;
    let options = ImageOptions {
        mirrors: BTreeMap::from([(
            "registry.invalid".to_owned(),
            vec![
                "http://127.0.0.1:1".to_owned(),
                format!("http://{}/v2/", registry.address),
            ],
        )]),
        ..ImageOptions::default()
    };
    let (_dir, store) = store(options);
    let image = store
        .pull("registry.invalid/team/app:v1", None)
        .await
        .expect("from the mirror");
    assert_eq!(image.tags, ["registry.invalid/team/app:v1"]);
    // Who looks for the reason must not look at the registry alone.
    let error = store
        .pull("registry.invalid/team/app:v2", None)
        .await
        .expect_err("no tag in the mirror, and no registry");
    let error = error.to_string();
    let mirror = format!("mirror {}: ", registry.address);
    assert!(error.contains("mirror 127.0.0.1:1: "), "{error}");
    assert!(error.contains(&mirror), "{error}");
    assert!(error.ends_with("no such host"), "{error}");
    let error = store
        .pull("no-such-host.invalid/x:1", None)
        .await
        .expect_err("no host");
    assert!(error.to_string().ends_with("no such host"), "{error}");
    let error = store
        .pull(&format!("{}/team/app:v2", registry.address), None)
        .await
        .expect_err("no tag");
    assert!(error.to_string().ends_with(": not found"), "{error}");
    let error = store.pull("Not A Name", None).await.expect_err("no name");
    assert!(
        matches!(
            error,
            RuntimeError::Pull {
                reason: "InvalidImageName",
                ..
            }
        ),
        "{error:?}"
    );
    let error = store
        .pull("127.0.0.1:1/x:1", None)
        .await
        .expect_err("nobody listens");
    assert!(error.to_string().contains("refused"), "{error}");
}
