//! The API server as the judge of the node's callers: token reviews and subject access reviews, as
//! kubelet asks with `--authentication-token-webhook` and `--authorization-mode=Webhook`.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::authorize::{Access, Caller, Judge};

/// What is said of a token holds so long (kubelet's `authentication.webhook.cacheTTL`).
const TOKEN_HOLDS: Duration = Duration::from_secs(120);
/// A permission holds so long (`authorization.webhook.cacheAuthorizedTTL`).
const ALLOWED_HOLDS: Duration = Duration::from_secs(300);
/// A refusal holds so long (`authorization.webhook.cacheUnauthorizedTTL`).
const REFUSED_HOLDS: Duration = Duration::from_secs(30);
/// So many answers are kept of each kind.
const MOST: usize = 1024;

type Question = [u8; 32];

/// Answers by a digest of the question: no token is kept.
struct Kept<T>(Mutex<HashMap<Question, (Instant, T)>>);

impl<T: Clone> Kept<T> {
    fn get(&self, question: &Question) -> Option<T> {
        let all = self.0.lock();
        let (until, answer) = all.get(question)?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    fn put(&self, question: Question, answer: T, holds: Duration) {
        let now = Instant::now();
        let mut all = self.0.lock();
        if all.len() >= MOST {
            all.retain(|_, (until, _)| *until > now);
        }
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(question, (now + holds, answer));
    }
}

fn question(parts: &[&str]) -> Question {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Asks the API server.
pub struct Reviews {
    client: Client,
    node: String,
    tokens: Kept<Option<Caller>>,
    rights: Kept<bool>,
}

impl std::fmt::Debug for Reviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviews")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Reviews {
    /// Asks with a client about requests to the node of a name.
    #[must_use]
    pub fn new(client: Client, node: String) -> Self {
        Self {
            client,
            node,
            tokens: Kept(Mutex::default()),
            rights: Kept(Mutex::default()),
        }
    }

    async fn review_token(&self, token: &str) -> Result<Option<Caller>, String> {
        let question = question(&[token]);
        if let Some(known) = self.tokens.get(&question) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status.unwrap_or_default();
        let caller = status
            .user
            .filter(|_| status.authenticated == Some(true))
            .map(|user| Caller {
                name: user.username.unwrap_or_default(),
                groups: user.groups.unwrap_or_default(),
                uid: user.uid.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            });
        self.tokens.put(question, caller.clone(), TOKEN_HOLDS);
        Ok(caller)
    }

    async fn review(&self, caller: &Caller, verb: &str, subresource: &str) -> Result<bool, String> {
        let mut parts = vec![verb, subresource, &caller.name, &caller.uid, "groups"];
        parts.extend(caller.groups.iter().map(String::as_str));
        for (key, values) in &caller.extra {
            parts.extend(["extra", key]);
            parts.extend(values.iter().map(String::as_str));
        }
        let question = question(&parts);
        if let Some(known) = self.rights.get(&question) {
            return Ok(known);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(caller.name.clone()),
                groups: Some(caller.groups.clone()),
                uid: Some(caller.uid.clone()).filter(|uid| !uid.is_empty()),
                extra: Some(caller.extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status.unwrap_or_default();
        if let Some(error) = status.evaluation_error.filter(|_| !status.allowed) {
            tracing::debug!(error, user = caller.name, "a review was not complete");
        }
        let holds = if status.allowed {
            ALLOWED_HOLDS
        } else {
            REFUSED_HOLDS
        };
        self.rights.put(question, status.allowed, holds);
        Ok(status.allowed)
    }
}

impl Judge for Reviews {
    fn who<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<Caller>, String>> {
        Box::pin(self.review_token(token))
    }

    fn may<'a>(
        &'a self,
        caller: &'a Caller,
        access: Access<'a>,
    ) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async move {
            for subresource in access.subresources {
                if self.review(caller, access.verb, subresource).await? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_hold_for_their_time_and_are_never_too_many() {
        let kept = Kept(Mutex::default());
        kept.put(question(&["a", "b"]), 1, REFUSED_HOLDS);
        assert_eq!(kept.get(&question(&["a", "b"])), Some(1));
        assert_eq!(kept.get(&question(&["ab"])), None, "parts are apart");
        tokio::time::advance(REFUSED_HOLDS).await;
        assert_eq!(kept.get(&question(&["a", "b"])), None);
        for number in 0..=MOST {
            kept.put(question(&[&number.to_string()]), 1, ALLOWED_HOLDS);
        }
        assert!(kept.0.lock().len() <= MOST);
        assert_eq!(kept.get(&question(&[&MOST.to_string()])), Some(1));
    }
}
