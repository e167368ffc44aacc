//! The door over a store, without loops: encryption at rest with keys that a service keeps, and
//! what a door makes and tells by itself.

#![allow(clippy::unwrap_used, reason = "tests")]

mod kms;
mod own;
mod sealed;

use std::sync::Arc;

use evenkeel_api::clock::{SharedClock, SystemClock};
use evenkeel_server::pki::Pki;
use evenkeel_server::seal::Seal;
use evenkeel_server::{DEFAULT_SEATS, Door, DoorOptions, Identity, Outside, TokenOptions};
use evenkeel_store::Store;
use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A door with its store.
struct Opened {
    door: Arc<Door>,
    store: Arc<EmbeddedStore>,
    pki: Arc<Pki>,
    follower: JoinHandle<()>,
    directory: TempDir,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// An answer: its code, and its body as JSON or text.
struct Reply {
    code: u16,
    body: Value,
}

impl Reply {
    fn expect(self, code: u16) -> Self {
        assert_eq!(self.code, code, "{:#}", self.body);
        self
    }

    fn revision(&self) -> u64 {
        let text = self.body["metadata"]["resourceVersion"].as_str().unwrap();
        text.parse().unwrap()
    }

    fn text(&self) -> &str {
        self.body.as_str().unwrap()
    }
}

fn admin() -> Identity {
    Identity::user("admin", &["system:masters"])
}

impl Opened {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let seal = Seal::open(&directory.path().join("key")).unwrap();
        Self::sealed(directory, &Arc::new(seal)).await
    }

    async fn sealed(directory: TempDir, seal: &Arc<Seal>) -> Self {
        let clock: SharedClock = Arc::new(SystemClock);
        let path = directory.path();
        let options = EmbeddedOptions::default();
        let store = Arc::new(EmbeddedStore::open(&path.join("store"), options).unwrap());
        let pki = Arc::new(Pki::open(&path.join("pki"), clock.now()).unwrap());
        let options = DoorOptions {
            store: Arc::clone(&store) as Arc<dyn Store>,
            pki: Arc::clone(&pki),
            seal: Arc::clone(seal),
            clock,
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            port: 6443,
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            tokens: TokenOptions::default(),
            seats: DEFAULT_SEATS,
            audit: None,
            outside: Outside::default(),
            gates: Vec::new(),
        };
        let (door, follower) = Door::open(options).await.unwrap();
        let follower = tokio::spawn(async move {
            // It ends with the store; a test that goes on after that sees its own failures.
            drop(follower.await);
        });
        Self {
            door,
            store,
            pki,
            follower,
            directory,
        }
    }

    /// Another process on the same data.
    async fn again(mut self, seal: &Arc<Seal>) -> Self {
        self.store.close();
        // With the store its watch ends, and with that what follows it.
        drop((&mut self.follower).await);
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        drop(self);
        Self::sealed(directory, seal).await
    }

    async fn ask(&self, who: Identity, method: &str, path: &str, body: &Value) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        let mut bytes = Vec::new();
        if !body.is_null() {
            request = request.header("content-type", "application/json");
            bytes = body.to_string().into_bytes();
        }
        let request = request.body(Full::new(bytes.into())).unwrap();
        let answer = self.door.handle(request, who).await;
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let text = || Value::from(String::from_utf8_lossy(&body).into_owned());
        Reply {
            code,
            body: serde_json::from_slice(&body).unwrap_or_else(|_| text()),
        }
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask(admin(), "GET", path, &Value::Null).await
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask(admin(), "POST", path, body).await
    }

    async fn put(&self, path: &str, body: &Value) -> Reply {
        self.ask(admin(), "PUT", path, body).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.ask(admin(), "DELETE", path, &Value::Null).await
    }
}
