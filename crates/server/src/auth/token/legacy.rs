//! Tokens of Secrets of the type `kubernetes.io/service-account-token`: they never expire, and are
//! good as long as their Secret holds them and their account is the same.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use evenkeel_api::object;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Identity, TokenError, look_up};
use crate::registry::Registry;

/// Who issues them.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
/// The label of a Secret that says when its token was last used.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The label of a Secret whose token is not taken any more.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// What a token of a Secret is about.
#[derive(Debug, Clone, Copy)]
pub struct SecretToken<'t> {
    /// Of the Secret and the account.
    pub namespace: &'t str,
    /// The Secret.
    pub secret: &'t str,
    /// The account.
    pub account: &'t str,
    /// Its UID.
    pub uid: &'t str,
}

/// What such a token says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

impl Claims {
    pub(super) fn of(of: &SecretToken<'_>) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            namespace: of.namespace.to_owned(),
            secret: of.secret.to_owned(),
            account: of.account.to_owned(),
            uid: of.uid.to_owned(),
            sub: format!("system:serviceaccount:{}:{}", of.namespace, of.account),
        }
    }
}

/// Whose token it is, and whether it is good still.
pub(super) fn verify(
    registry: &Registry,
    now: jiff::Timestamp,
    token: &str,
    claims: &Value,
) -> Result<Identity, TokenError> {
    let claims = Claims::deserialize(claims).map_err(|_| TokenError::Malformed)?;
    let gone = |what: &str| TokenError::Unbound(format!("{what} of {}", claims.namespace));
    let secret = look_up(registry, "Secret", &claims.namespace, &claims.secret)
        .filter(|secret| object::deletion_timestamp(secret).is_none())
        .ok_or_else(|| gone(&format!("Secret {}", claims.secret)))?;
    // Digests, so that nothing is learned from how long it takes.
    let digest = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
    if digest(&held(&secret)).as_ref() != digest(token.as_bytes()).as_ref() {
        return Err(gone(&format!("the token in Secret {}", claims.secret)));
    }
    let account = look_up(
        registry,
        "ServiceAccount",
        &claims.namespace,
        &claims.account,
    )
    .filter(|account| object::deletion_timestamp(account).is_none())
    .filter(|account| object::uid(account) == claims.uid);
    if account.is_none() {
        return Err(gone(&format!("ServiceAccount {}", claims.account)));
    }
    note_use(registry, now, &secret);
    if object::label(&secret, INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
        return Err(TokenError::Outside(format!(
            "the token in secret {}/{} for service account {}/{} has been marked invalid. Use tokens \
             from the TokenRequest API or manually created secret-based tokens, or remove the \
             '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
            claims.namespace, claims.secret, claims.namespace, claims.account
        )));
    }
    let mut identity = Identity::service_account(&claims.namespace, &claims.account);
    identity.uid = claims.uid;
    Ok(identity)
}

/// The token that a Secret holds.
fn held(secret: &Value) -> Vec<u8> {
    let held = object::text(secret, &["data", "token"]);
    BASE64_STANDARD.decode(held).unwrap_or_default()
}

/// Was the token's use of today noted already? Clocks of servers differ, so tomorrow counts too.
fn used_today(secret: &Value, now: jiff::Timestamp) -> Result<(), String> {
    let day = |at: jiff::Timestamp| at.strftime("%Y-%m-%d").to_string();
    let (today, tomorrow) = (day(now), day(now + jiff::SignedDuration::from_hours(24)));
    match object::label(secret, LAST_USED) {
        Some(last) if last == today || last == tomorrow => Ok(()),
        _ => Err(today),
    }
}

/// Has it said in the Secret on which day its token was last used, once a day.
fn note_use(registry: &Registry, now: jiff::Timestamp, secret: &Value) {
    let Err(today) = used_today(secret, now) else {
        return;
    };
    let registry = registry.clone();
    let (namespace, name) = (object::namespace(secret), object::name(secret));
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    tokio::spawn(async move {
        let Some(row) = registry.rows.by_kind("", "v1", "Secret").cloned() else {
            return;
        };
        // Whoever was faster has written the same, or something that is not to be undone.
        if let Ok(Some(seen)) = registry.get(&row, &namespace, &name).await {
            let mut value = seen.value();
            if used_today(&value, now).is_ok() {
                return;
            }
            let labels = object::child(object::child(&mut value, "metadata"), "labels");
            object::fields(labels).insert(LAST_USED.to_owned(), today.into());
            if let Err(status) = registry.replace(&row, &seen, value).await {
                tracing::warn!(namespace, name, %status, "the use of a token can't be noted");
            }
        }
    });
}
