//! Signatures of `kube-public/cluster-info`, one for each bootstrap token that may sign: a machine
//! that has nothing but a token checks by it that the address and the authority it has read are
//! those of the cluster.
//!
//! A signature is a detached JWS (RFC 7515, appendix F) with HMAC-SHA256. Only this config map and
//! the Secrets of tokens are watched, by selectors.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evenkeel_client::Api;
use evenkeel_client::view::{Event, Sink, Target, reflect};
use evenkeel_client::{LoopContext, ObjectKey, Outcome, WorkQueue, errors, run_loop};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::PostParams;
use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::watch;

use crate::error::ReconcileError;

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";
const TOKEN: &str = "bootstrap.kubernetes.io/token";

/// One kind of object, as it is now.
struct Known<K> {
    all: Mutex<HashMap<String, K>>,
    queue: Arc<WorkQueue<ObjectKey>>,
    listed: watch::Sender<bool>,
}

impl<K> Known<K> {
    fn new(queue: &Arc<WorkQueue<ObjectKey>>) -> Arc<Self> {
        Arc::new(Self {
            all: Mutex::default(),
            queue: Arc::clone(queue),
            listed: watch::Sender::new(false),
        })
    }

    fn changed(&self) {
        self.queue.add(ObjectKey::new(NAMESPACE, NAME));
    }

    async fn ready(&self) {
        // The sender lives in `self`, so that waiting can't fail.
        drop(self.listed.subscribe().wait_for(|listed| *listed).await);
    }
}

impl<K: kube::Resource + Send + 'static> Sink<K> for Known<K> {
    fn replace(&self, items: Vec<K>, _: u64) {
        let named = items
            .into_iter()
            .filter_map(|item| Some((item.meta().name.clone()?, item)));
        *self.all.lock() = named.collect();
        self.listed.send_replace(true);
        self.changed();
    }

    fn event(&self, event: Event<K>, _: u64) {
        match event {
            Event::Put(item) => {
                if let Some(name) = item.meta().name.clone() {
                    self.all.lock().insert(name, item);
                }
            }
            Event::Gone(item) => {
                if let Some(name) = &item.meta().name {
                    self.all.lock().remove(name);
                }
            }
        }
        self.changed();
    }

    fn bookmark(&self, _: u64) {}
}

/// Keeps the signatures right. Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let queue = WorkQueue::new(context.metrics.of("bootstrapsigner"));
    let (maps, secrets) = (
        Known::<ConfigMap>::new(&queue),
        Known::<Secret>::new(&queue),
    );
    let target = |path: &str, selector: String| Target {
        path: path.to_owned(),
        metadata_only: false,
        field_selector: Some(selector),
        label_selector: None,
    };
    let following_map = reflect(
        context.client.clone(),
        target(
            "/api/v1/namespaces/kube-public/configmaps",
            format!("metadata.name={NAME}"),
        ),
        Arc::clone(&maps),
        context.shutdown.clone(),
    );
    let following_tokens = reflect(
        context.client.clone(),
        target(
            "/api/v1/namespaces/kube-system/secrets",
            format!("type={TOKEN}"),
        ),
        Arc::clone(&secrets),
        context.shutdown.clone(),
    );
    let working = async {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            ((), ()) = async { tokio::join!(maps.ready(), secrets.ready()) } => {}
        }
        let shutdown = context.shutdown.clone();
        run_loop("bootstrapsigner", 1, queue, shutdown, |_| {
            reconcile(&context, &maps, &secrets)
        })
        .await;
    };
    tokio::join!(following_map, following_tokens, working);
}

async fn reconcile(
    context: &LoopContext,
    maps: &Known<ConfigMap>,
    secrets: &Known<Secret>,
) -> Result<Outcome, ReconcileError> {
    let Some(mut map) = maps.all.lock().get(NAME).cloned() else {
        return Ok(Outcome::Done);
    };
    let now = context.clock.now();
    let (tokens, until) = {
        let secrets = secrets.all.lock();
        tokens(secrets.values(), now)
    };
    let data = map.data.get_or_insert_default();
    let wanted = plan(data, &tokens);
    if *data != wanted {
        *data = wanted;
        let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), NAMESPACE);
        match api.replace(NAME, &PostParams::default(), &map).await {
            Ok(_) => {}
            // The watch tells what is there now.
            Err(error) if errors::is_conflict(&error) || errors::is_not_found(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(until.map_or(Outcome::Done, |until| {
        Outcome::After(Duration::try_from(until.duration_since(now)).unwrap_or_default())
    }))
}

/// The tokens that may sign, secret by name, and when the first of them ends.
fn tokens<'s>(
    secrets: impl Iterator<Item = &'s Secret>,
    now: Timestamp,
) -> (BTreeMap<String, String>, Option<Timestamp>) {
    let mut tokens = BTreeMap::new();
    let mut first = None;
    for secret in secrets {
        let text = |name: &str| -> String {
            let bytes = secret.data.as_ref().and_then(|data| data.get(name));
            bytes
                .and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
                .unwrap_or_default()
        };
        let (id, key) = (text("token-id"), text("token-secret"));
        let named = secret.metadata.name.as_deref() == Some(&format!("bootstrap-token-{id}"));
        let ours = secret.type_.as_deref() == Some(TOKEN);
        if !named || !ours || key.is_empty() || text("usage-bootstrap-signing") != "true" {
            continue;
        }
        let expiration = text("expiration");
        if !expiration.is_empty() {
            match expiration.parse::<Timestamp>() {
                Ok(until) if until > now => {
                    first = Some(first.map_or(until, |first: Timestamp| first.min(until)));
                }
                // It is over, or nobody can say when it is.
                _ => continue,
            }
        }
        tokens.insert(id, key);
    }
    (tokens, first)
}

/// What the config map must hold: what others have written, and the signatures.
fn plan(
    data: &BTreeMap<String, String>,
    tokens: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut wanted: BTreeMap<String, String> = data
        .iter()
        .filter(|(name, _)| !name.starts_with(SIGNATURE))
        .map(|(name, text)| (name.clone(), text.clone()))
        .collect();
    if let Some(content) = data.get(KUBECONFIG) {
        for (id, secret) in tokens {
            wanted.insert(format!("{SIGNATURE}{id}"), signature(content, id, secret));
        }
    }
    wanted
}

/// A JWS without its content.
fn signature(content: &str, id: &str, secret: &str) -> String {
    let header = serde_json::json!({"alg": "HS256", "kid": id}).to_string();
    let header = URL_SAFE_NO_PAD.encode(header);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(data: &[(&str, &str)]) -> Secret {
        let mut all = BTreeMap::from([
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-signing", "true"),
        ]);
        all.extend(data.iter().copied());
        let name = "bootstrap-token-abcdef";
        serde_json::from_value(json!({"metadata": {"name": name}, "type": TOKEN}))
            .map(|secret: Secret| Secret {
                data: Some(
                    all.into_iter()
                        .map(|(name, text)| {
                            let bytes = k8s_openapi::ByteString(text.as_bytes().to_vec());
                            (name.to_owned(), bytes)
                        })
                        .collect(),
                ),
                ..secret
            })
            .expect("a secret")
    }

    /// The value of the reference's own test (`cluster-bootstrap/token/jws`).
    #[test]
    fn a_signature_is_that_of_the_reference() {
        let content = "Hello from the other side. I must have called a thousand times.";
        let signed = signature(content, "joshua", "my voice is my passcode");
        assert_eq!(
            signed,
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }

    #[test]
    fn tokens_that_may_sign_do() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let ids = |data: &[(&str, &str)]| {
            let (tokens, until) = tokens([secret(data)].iter(), now);
            (tokens.len(), until.map(|until| until.to_string()))
        };
        assert_eq!(ids(&[]), (1, None));
        let later = "2026-01-01T00:00:05Z";
        assert_eq!(ids(&[("expiration", later)]), (1, Some(later.to_owned())));
        for wrong in [
            ("expiration", "2026-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("usage-bootstrap-signing", "false"),
            ("token-id", "abcdee"),
            ("token-secret", ""),
        ] {
            assert_eq!(ids(&[wrong]).0, 0, "{wrong:?}");
        }
    }

    #[test]
    fn signatures_come_and_go_and_the_rest_stays() {
        let mut data = BTreeMap::from([
            (KUBECONFIG.to_owned(), "kind: Config".to_owned()),
            ("other".to_owned(), "kept".to_owned()),
            ("jws-kubeconfig-gone00".to_owned(), "old".to_owned()),
        ]);
        let tokens = BTreeMap::from([("abcdef".to_owned(), "secret".to_owned())]);
        let wanted = plan(&data, &tokens);
        let names: Vec<&str> = wanted.keys().map(String::as_str).collect();
        assert_eq!(names, ["jws-kubeconfig-abcdef", KUBECONFIG, "other"]);
        assert_eq!(plan(&wanted, &tokens), wanted);
        data.remove(KUBECONFIG);
        assert_eq!(plan(&data, &tokens).len(), 1);
    }
}
