//! Decoders that nobody outside needs, for `crates/fuzz` alone: what each makes of an input, as
//! words or numbers.
//!
//! What can be reached by public functions is reached by them and not named here.

use std::path::Path;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::audit::{policy::Policy, webhook::Webhook};
use crate::auth::outside::{jwt, keys};
use crate::outbound::{Peer, Url};
use crate::verbs::{links, read};

fn parent() -> &'static Path {
    Path::new("/nonexistent")
}

/// A `continue` token: the revision and where it goes on, and the token that says the same.
#[must_use]
pub fn continue_token(text: &str) -> Option<(i64, String, String)> {
    let token = read::read_token(text).ok()?;
    let again = read::write_token(&token);
    Some((token.rv, token.start, again))
}

/// An audit policy.
///
/// # Errors
/// What is wrong with it.
pub fn audit_policy(text: &str) -> Result<(), String> {
    Policy::read(text).map(drop)
}

/// The kubeconfig of an audit webhook.
///
/// # Errors
/// What is wrong with it.
pub fn audit_webhook(text: &str) -> Result<(), String> {
    Webhook::read(text, parent(), Duration::from_secs(1)).map(drop)
}

/// The kubeconfig of any other webhook.
///
/// # Errors
/// What is wrong with it.
pub fn kubeconfig(text: &str) -> Result<(), String> {
    Peer::of_kubeconfig(text, parent()).map(drop)
}

/// The address of a webhook or an issuer.
///
/// # Errors
/// What is wrong with it.
pub fn url(text: &str) -> Result<(), String> {
    Url::read(text).map(drop)
}

/// An encryption configuration: how many sets of resources it has.
///
/// # Errors
/// What is wrong with it.
pub fn encryption(text: &str) -> Result<usize, String> {
    crate::seal::config::parse(text)
        .map(|rules| rules.len())
        .map_err(|error| error.to_string())
}

/// A JSON Web Token that an issuer may have made: who says to have made it.
#[must_use]
pub fn web_token(text: &str) -> Option<String> {
    let parts = jwt::split(text)?;
    jwt::issuer_of(&parts).map(str::to_owned)
}

/// A key of an issuer, and whether it takes this for its signature of a message, by any algorithm.
#[must_use]
pub fn web_key(key: &Value, message: &[u8], signature: &[u8]) -> Option<bool> {
    let key = keys::read(key)?;
    let mut all = keys::ALGORITHMS.iter();
    Some(all.any(|algorithm| key.has_signed(algorithm, message, signature)))
}

/// A page with its links behind a proxy's path.
#[must_use]
pub fn page(page: &[u8], prefix: &str, host: &str) -> Vec<u8> {
    links::rewrite(page, prefix, host)
}

/// Makes a token that came as a WebSocket protocol what it stands for.
pub fn websocket_token(headers: &mut HeaderMap) {
    crate::verbs::token_of_protocol(headers);
}
