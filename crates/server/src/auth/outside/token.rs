//! Tokens that a webhook knows: `TokenReview`.

use std::path::Path;
use std::time::Duration;

use evenkeel_api::object;
use http::Method;
use serde_json::{Value, json};

use super::cached::{Cached, digest};
use crate::auth::{AUTHENTICATED, Identity};
use crate::outbound::{Peer, Url};

/// A webhook has so long for an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Who a token belongs to, and for which of the asked audiences it is good; `None` when the webhook
/// does not know it.
type Answer = Option<(Identity, Vec<String>)>;

/// A webhook that knows tokens.
#[derive(Debug)]
pub(crate) struct TokenWebhook {
    url: Url,
    peer: Peer,
    keep: Duration,
    cached: Cached<Answer>,
}

impl TokenWebhook {
    pub(super) fn read(kubeconfig: &str, directory: &Path, keep: Duration) -> Result<Self, String> {
        let (url, peer) = Peer::of_kubeconfig(kubeconfig, directory)?;
        Ok(Self {
            url,
            peer,
            keep,
            cached: Cached::default(),
        })
    }

    /// Asks, unless the answer is known.
    ///
    /// # Errors
    /// The webhook can't be asked, or says that something went wrong.
    pub(crate) async fn verify(&self, token: &str, audiences: &[String]) -> Result<Answer, String> {
        let key = digest(&format!("{audiences:?} {token}"));
        if let Some(known) = self.cached.get(&key) {
            return Ok(known);
        }
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": audiences}, "status": {"user": {}},
        });
        // A webhook that is being replaced answers the second time.
        let mut said = self.ask(&review).await;
        if said.is_err() {
            said = self.ask(&review).await;
        }
        let answer = read(&said?, audiences)?;
        self.cached.put(key, answer.clone(), self.keep);
        Ok(answer)
    }

    async fn ask(&self, review: &Value) -> Result<Value, String> {
        let (code, body) = self
            .peer
            .ask(Method::POST, &self.url, Some(review), LIMIT)
            .await?;
        if !code.is_success() {
            return Err(format!("webhook authenticator answered {code}"));
        }
        let answer: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(answer["status"].clone())
    }
}

fn read(status: &Value, audiences: &[String]) -> Result<Answer, String> {
    let error = object::text(status, &["error"]);
    if status["authenticated"] != true {
        return if error.is_empty() {
            Ok(None)
        } else {
            Err(error.to_owned())
        };
    }
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let user = &status["user"];
    let mut identity = Identity {
        user: object::text(user, &["username"]).to_owned(),
        uid: object::text(user, &["uid"]).to_owned(),
        groups: texts(&user["groups"]),
        ..Identity::default()
    };
    for (key, values) in user["extra"].as_object().into_iter().flatten() {
        identity.extra.insert(key.clone(), texts(values));
    }
    if !identity.in_group(AUTHENTICATED) {
        identity.groups.push(AUTHENTICATED.to_owned());
    }
    // A webhook that says nothing of audiences stands for the door's own.
    let good = texts(&status["audiences"]);
    let good = if good.is_empty() {
        audiences.to_vec()
    } else {
        let shared = |it: &String| audiences.contains(it);
        good.into_iter().filter(shared).collect()
    };
    if good.is_empty() && !audiences.is_empty() {
        return Ok(None);
    }
    Ok(Some((identity, good)))
}
