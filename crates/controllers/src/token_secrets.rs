//! Secrets of the type `kubernetes.io/service-account-token` get a token of the account that their
//! annotation names, which never expires; they go with their account.
//!
//! Only these Secrets are watched. Who signs is given by the composition: the key stays in the door.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::view::{Event, Sink, Target, reflect};
use evenkeel_client::{LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams, Preconditions};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::ReconcileError;

const TYPE: &str = "kubernetes.io/service-account-token";
/// The annotation with the account's name.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
/// The annotation with the account's UID.
const UID: &str = "kubernetes.io/service-account.uid";

/// Of whom a token is wanted.
#[derive(Debug, Clone, Copy)]
pub struct TokenOf<'t> {
    /// Of the Secret and the account.
    pub namespace: &'t str,
    /// The Secret.
    pub secret: &'t str,
    /// The account.
    pub account: &'t str,
    /// Its UID.
    pub uid: &'t str,
}

/// Signs the token of a Secret, or says why it can't.
pub type TokenSigner = Arc<dyn Fn(&TokenOf<'_>) -> Result<String, String> + Send + Sync>;

/// What a Secret needs.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    /// Its account is gone.
    Remove,
    Fill(Box<Secret>),
}

fn annotation<'s>(secret: &'s Secret, name: &str) -> &'s str {
    let annotations = secret.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(name))
        .map_or("", String::as_str)
}

/// Looks at a Secret and the account that it names.
fn plan(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    ca: &str,
    sign: &TokenSigner,
) -> Result<Step, String> {
    let name = annotation(secret, ACCOUNT);
    if name.is_empty() || secret.metadata.deletion_timestamp.is_some() {
        return Ok(Step::Nothing);
    }
    let told = annotation(secret, UID);
    let uid = account.and_then(|account| account.metadata.uid.as_deref());
    let Some(uid) = uid.filter(|uid| told.is_empty() || told == *uid) else {
        return Ok(Step::Remove);
    };
    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
    let mut wanted = secret.clone();
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    annotations.insert(UID.to_owned(), uid.to_owned());
    let data: &mut BTreeMap<String, ByteString> = wanted.data.get_or_insert_default();
    if data.get("token").is_none_or(|token| token.0.is_empty()) {
        let token = sign(&TokenOf {
            namespace,
            secret: secret.metadata.name.as_deref().unwrap_or_default(),
            account: name,
            uid,
        })?;
        data.insert("token".to_owned(), ByteString(token.into_bytes()));
    }
    for (key, text) in [("ca.crt", ca), ("namespace", namespace)] {
        data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
    }
    Ok(if wanted == *secret {
        Step::Nothing
    } else {
        Step::Fill(Box::new(wanted))
    })
}

/// The Secrets, as they are now.
struct Known {
    all: Mutex<BTreeMap<ObjectKey, Secret>>,
    queue: Arc<WorkQueue<ObjectKey>>,
    listed: watch::Sender<bool>,
}

impl Known {
    async fn ready(&self) {
        // The sender lives in `self`, so that waiting can't fail.
        drop(self.listed.subscribe().wait_for(|listed| *listed).await);
    }

    /// Those that name an account.
    fn of(&self, account: &ObjectKey) -> Vec<ObjectKey> {
        let all = self.all.lock();
        let theirs = all.iter().filter(|(key, secret)| {
            key.namespace == account.namespace && annotation(secret, ACCOUNT) == account.name
        });
        theirs.map(|(key, _)| key.clone()).collect()
    }
}

impl Sink<Secret> for Known {
    fn replace(&self, items: Vec<Secret>, _: u64) {
        let keyed = items.into_iter().map(|item| (ObjectKey::of(&item), item));
        let all: BTreeMap<ObjectKey, Secret> = keyed.collect();
        let keys: Vec<ObjectKey> = all.keys().cloned().collect();
        *self.all.lock() = all;
        self.listed.send_replace(true);
        keys.into_iter().for_each(|key| self.queue.add(key));
    }

    fn event(&self, event: Event<Secret>, _: u64) {
        match event {
            Event::Put(item) => {
                let key = ObjectKey::of(&item);
                self.all.lock().insert(key.clone(), item);
                self.queue.add(key);
            }
            Event::Gone(item) => {
                self.all.lock().remove(&ObjectKey::of(&item));
            }
        }
    }

    fn bookmark(&self, _: u64) {}
}

struct Tokens {
    known: Arc<Known>,
    accounts: Arc<View<ServiceAccount>>,
    context: LoopContext,
    ca: String,
    sign: TokenSigner,
}

impl Tokens {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(secret) = self.known.all.lock().get(&key).cloned() else {
            return Ok(Outcome::Done);
        };
        let client = self.context.client.clone();
        let named = ObjectKey::new(key.namespace.clone(), annotation(&secret, ACCOUNT));
        let mut account = self.accounts.get_key(&named);
        if account.is_none() && !named.name.is_empty() {
            // Before a Secret is removed the door is asked: the account may be younger than the view.
            let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &key.namespace);
            account = accounts.get_opt(&named.name).await?.map(Arc::new);
        }
        let step = plan(&secret, account.as_deref(), &self.ca, &self.sign);
        let api: Api<Secret> = Api::namespaced(client, &key.namespace);
        let done = match step.map_err(ReconcileError::State)? {
            Step::Nothing => return Ok(Outcome::Done),
            Step::Remove => {
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: secret.metadata.uid.clone(),
                        ..Preconditions::default()
                    }),
                    ..DeleteParams::default()
                };
                api.delete(&key.name, &params).await.map(drop)
            }
            Step::Fill(wanted) => api
                .replace(&key.name, &PostParams::default(), &wanted)
                .await
                .map(drop),
        };
        match done {
            // The watch tells what is there now.
            Err(error) if errors::is_conflict(&error) || errors::is_not_found(&error) => {}
            other => other?,
        }
        Ok(Outcome::Done)
    }
}

/// Fills Secrets. Runs until the context's shutdown.
pub async fn run(context: LoopContext, ca: String, sign: TokenSigner) {
    let accounts = context.views.of::<ServiceAccount>();
    let queue = WorkQueue::new(context.metrics.of("serviceaccount-token"));
    let known = Arc::new(Known {
        all: Mutex::default(),
        queue: Arc::clone(&queue),
        listed: watch::Sender::new(false),
    });
    let target = Target {
        path: "/api/v1/secrets".to_owned(),
        metadata_only: false,
        field_selector: Some(format!("type={TYPE}")),
        label_selector: None,
    };
    let following = reflect(
        context.client.clone(),
        target,
        Arc::clone(&known),
        context.shutdown.clone(),
    );
    let working = async {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            ((), ()) = async { tokio::join!(accounts.synced(), known.ready()) } => {}
        }
        {
            let (known, queue) = (Arc::clone(&known), Arc::clone(&queue));
            accounts.on_change(move |change| {
                let uid = |side: &Option<Arc<ServiceAccount>>| {
                    side.as_ref().and_then(|it| it.metadata.uid.clone())
                };
                if uid(&change.old) != uid(&change.new) {
                    known
                        .of(&change.key)
                        .into_iter()
                        .for_each(|key| queue.add(key));
                }
            });
        }
        let tokens = Tokens {
            known: Arc::clone(&known),
            accounts,
            context: context.clone(),
            ca,
            sign,
        };
        let shutdown = context.shutdown.clone();
        run_loop("serviceaccount-token", 4, queue, shutdown, |key| {
            tokens.reconcile(key)
        })
        .await;
    };
    tokio::join!(following, working);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn account(uid: &str) -> ServiceAccount {
        serde_json::from_value(json!({"metadata": {"name": "bot", "namespace": "a", "uid": uid}}))
            .unwrap()
    }

    fn secret(annotations: Value, data: Value) -> Secret {
        serde_json::from_value(json!({"type": TYPE, "data": data, "metadata": {
            "name": "s", "namespace": "a", "annotations": annotations}}))
        .unwrap()
    }

    fn signer() -> TokenSigner {
        Arc::new(|of| {
            Ok(format!(
                "{}/{} of {} {}",
                of.namespace, of.secret, of.account, of.uid
            ))
        })
    }

    fn step(secret: &Secret, account: Option<&ServiceAccount>) -> Step {
        plan(secret, account, "the authority", &signer()).unwrap()
    }

    #[test]
    fn a_secret_gets_what_its_account_is_known_by_and_keeps_it() {
        let bare = secret(json!({ACCOUNT: "bot"}), json!({"extra": "eA=="}));
        let bot = account("1");
        let Step::Fill(filled) = step(&bare, Some(&bot)) else {
            panic!("it is to be filled");
        };
        assert_eq!(annotation(&filled, UID), "1");
        let data = filled.data.as_ref().unwrap();
        let text = |name: &str| String::from_utf8(data[name].0.clone()).unwrap();
        assert_eq!(text("token"), "a/s of bot 1");
        assert_eq!(text("ca.crt"), "the authority");
        assert_eq!(text("namespace"), "a");
        assert_eq!(text("extra"), "x");
        assert_eq!(step(&filled, Some(&bot)), Step::Nothing);
        // A token that is there stays, whatever the key is by now; the rest is put right.
        let mut odd = filled.clone();
        let data = odd.data.as_mut().unwrap();
        data.insert("token".to_owned(), ByteString(b"older".to_vec()));
        data.remove("ca.crt");
        let Step::Fill(again) = step(&odd, Some(&bot)) else {
            panic!("it is to be filled");
        };
        assert_eq!(again.data.unwrap()["token"].0, b"older");
    }

    #[test]
    fn a_secret_goes_with_its_account() {
        let bare = secret(json!({ACCOUNT: "bot"}), json!({}));
        assert_eq!(step(&bare, None), Step::Remove);
        // An account of the same name that came later is another one.
        let filled = secret(json!({ACCOUNT: "bot", UID: "1"}), json!({"token": "eA=="}));
        assert_eq!(step(&filled, Some(&account("2"))), Step::Remove);
        assert!(matches!(step(&filled, Some(&account("1"))), Step::Fill(_)));
        assert_eq!(step(&secret(json!({}), json!({})), None), Step::Nothing);
    }
}
