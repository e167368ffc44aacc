//! Service account tokens for projected volumes: requested for the pod, kept in memory, asked for
//! again at four fifths of their life.

use std::collections::HashMap;

use evenkeel_api::clock::SharedClock;
use evenkeel_client::Api;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ServiceAccount, ServiceAccountTokenProjection};
use kube::Client;
use parking_lot::Mutex;

use super::payload::api_text;
use crate::pod::model::PodModel;

/// Life that is asked for when the projection names none.
const DEFAULT_SECONDS: i64 = 3600;
/// No token is used longer than this, however long it lives.
const LONGEST_USE: SignedDuration = SignedDuration::from_hours(24);

/// Pod UID, volume, path.
type Key = (String, String, String);

#[derive(Clone)]
struct Held {
    token: String,
    renew_at: Timestamp,
    ends_at: Timestamp,
}

/// The tokens in use on this node.
pub struct Tokens {
    client: Client,
    clock: SharedClock,
    held: Mutex<HashMap<Key, Held>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// None yet.
    #[must_use]
    pub fn new(client: Client, clock: SharedClock) -> Self {
        Self {
            client,
            clock,
            held: Mutex::default(),
        }
    }

    /// Forgets a pod's tokens.
    pub fn forget(&self, uid: &str) {
        self.held.lock().retain(|(pod, _, _), _| pod != uid);
    }

    /// When the first of a pod's tokens is to be replaced.
    #[must_use]
    pub fn renew_at(&self, uid: &str) -> Option<Timestamp> {
        let held = self.held.lock();
        let tokens = held.iter().filter(|((pod, _, _), _)| pod == uid);
        tokens.map(|(_, held)| held.renew_at).min()
    }

    /// The token of a projection; a new one when the one in use nears its end.
    ///
    /// # Errors
    /// When none can be had.
    pub async fn token(
        &self,
        model: &PodModel,
        volume: &str,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        let held = self.token_until(model, volume, source).await?;
        Ok(held.0)
    }

    /// As [`Self::token`], with the time at which it ends.
    ///
    /// # Errors
    /// When none can be had.
    pub async fn token_until(
        &self,
        model: &PodModel,
        volume: &str,
        source: &ServiceAccountTokenProjection,
    ) -> Result<(String, Timestamp), String> {
        let key: Key = (
            model.uid().to_owned(),
            volume.to_owned(),
            source.path.clone(),
        );
        let now = self.clock.now();
        let held = self.held.lock().get(&key).cloned();
        if let Some(held) = &held
            && now < held.renew_at
        {
            return Ok((held.token.clone(), held.ends_at));
        }
        match self.request(model, source, now).await {
            Ok(fresh) => {
                let told = (fresh.token.clone(), fresh.ends_at);
                self.held.lock().insert(key, fresh);
                Ok(told)
            }
            // A token that still holds is better than none.
            Err(error) => match held {
                Some(held) if now < held.ends_at => Ok((held.token, held.ends_at)),
                _ => Err(error),
            },
        }
    }

    async fn request(
        &self,
        model: &PodModel,
        source: &ServiceAccountTokenProjection,
        now: Timestamp,
    ) -> Result<Held, String> {
        let account = model
            .spec()
            .and_then(|spec| spec.service_account_name.as_deref())
            .filter(|name| !name.is_empty())
            .unwrap_or("default");
        let audience = source
            .audience
            .clone()
            .filter(|audience| !audience.is_empty());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audience.into_iter().collect()),
                expiration_seconds: Some(source.expiration_seconds.unwrap_or(DEFAULT_SECONDS)),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(model.name().to_owned()),
                    uid: Some(model.uid().to_owned()),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), model.namespace());
        let failed = |error: String| format!("failed to fetch token: {error}");
        let body = serde_json::to_vec(&request).map_err(|error| failed(error.to_string()))?;
        let answer = api
            .post_subresource("token", account, body)
            .await
            .map_err(|error| failed(api_text(&error)))?;
        let answer: TokenRequest =
            serde_json::from_str(&answer).map_err(|error| failed(error.to_string()))?;
        let status = answer
            .status
            .ok_or_else(|| failed("no status in the answer".to_owned()))?;
        let token = status
            .token
            .ok_or_else(|| failed("no token in the answer".to_owned()))?;
        let life = SignedDuration::from_secs(source.expiration_seconds.unwrap_or(DEFAULT_SECONDS));
        let ends_at = status
            .expiration_timestamp
            .map_or(now + life, |time| time.0);
        let use_for = (ends_at.duration_since(now) * 4 / 5).min(LONGEST_USE);
        Ok(Held {
            token,
            renew_at: now + use_for,
            ends_at,
        })
    }
}
