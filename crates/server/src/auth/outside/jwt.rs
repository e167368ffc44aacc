//! JSON Web Tokens of issuers that the configuration names.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::claims::Mappings;
use super::distributed::Resolver;
use super::keys::{ALGORITHMS, Keys};
use crate::auth::Identity;

/// A token may be used this long before its time: clocks differ.
const LEEWAY: i64 = 300;

/// An issuer whose tokens are taken.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) url: String,
    pub(super) audiences: Vec<String>,
    pub(super) keys: Keys,
    pub(super) mappings: Mappings,
    /// Finds the groups of those who are in too many for a token.
    pub(super) resolver: Option<Resolver>,
}

/// All issuers.
#[derive(Debug, Default)]
pub(crate) struct Issuers(pub(super) Vec<Issuer>);

/// A token in its parts.
pub(crate) struct Parts<'t> {
    header: Value,
    pub(crate) claims: Map<String, Value>,
    /// What is signed.
    signed: &'t str,
    signature: Vec<u8>,
}

impl Parts<'_> {
    fn said(&self, name: &str) -> &str {
        self.header[name].as_str().unwrap_or_default()
    }

    /// The algorithm that it names.
    pub(crate) fn algorithm(&self) -> &str {
        self.said("alg")
    }

    /// The key that it names, or nothing.
    pub(crate) fn key_id(&self) -> &str {
        self.said("kid")
    }

    /// What is signed.
    pub(crate) fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// The signature.
    pub(crate) fn signature(&self) -> &[u8] {
        &self.signature
    }
}

/// Reads a token, of which nothing is believed yet.
pub(crate) fn split(token: &str) -> Option<Parts<'_>> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    if claims.contains('.') {
        return None;
    }
    let read = |part: &str| -> Option<Value> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
    };
    let Value::Object(claims) = read(claims)? else {
        return None;
    };
    Some(Parts {
        header: read(header)?,
        claims,
        signed,
        signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
    })
}

/// The issuer that a token names.
pub(crate) fn issuer_of<'p>(parts: &'p Parts<'_>) -> Option<&'p str> {
    // As the reference takes an old form of one issuer's name.
    match parts.claims.get("iss").and_then(Value::as_str)? {
        "accounts.google.com" => Some("https://accounts.google.com"),
        other => Some(other),
    }
}

impl Issuers {
    /// Who a token belongs to, and the audiences that it shares with its issuer's configuration;
    /// `None` when it is of nobody who is known.
    ///
    /// # Errors
    /// Why it is no good.
    pub(crate) async fn verify(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Option<Result<Identity, String>> {
        if self.0.is_empty() {
            return None;
        }
        let parts = split(token)?;
        let said = issuer_of(&parts)?;
        let issuer = self.0.iter().find(|issuer| issuer.url == said)?;
        Some(issuer.verify(&parts, now).await)
    }
}

impl Issuer {
    async fn verify(&self, parts: &Parts<'_>, now: Timestamp) -> Result<Identity, String> {
        verify(parts, &self.keys, &self.audiences, now)
            .await
            .map_err(|why| format!("oidc: verify token: {why}"))?;
        let Some(resolver) = &self.resolver else {
            return self.mappings.identify(&parts.claims);
        };
        let mut claims = parts.claims.clone();
        resolver
            .expand(&mut claims, &self.audiences, now)
            .await
            .map_err(|why| format!("oidc: could not expand distributed claims: {why}"))?;
        self.mappings.identify(&claims)
    }
}

/// Is a token for one of these audiences, of now, and signed by one of these keys?
///
/// # Errors
/// Why it is not.
pub(super) async fn verify(
    parts: &Parts<'_>,
    keys: &Keys,
    audiences: &[String],
    now: Timestamp,
) -> Result<(), String> {
    let algorithm = parts.algorithm();
    if !ALGORITHMS.contains(&algorithm) {
        return Err(format!(
            "oidc: malformed jwt: unexpected signature algorithm {algorithm:?}; expected {:?}",
            ALGORITHMS
        ));
    }
    // First what costs nothing.
    check_audience(&parts.claims, audiences)?;
    let number = |name: &str| {
        let value = parts.claims.get(name)?;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "seconds; a float saturates"
        )]
        value
            .as_i64()
            .or_else(|| value.as_f64().map(|it| it as i64))
    };
    let seconds = now.as_second();
    match number("exp") {
        Some(end) if end > seconds => {}
        end => {
            return Err(format!(
                "oidc: token is expired (Token Expiry: {})",
                end.and_then(|end| Timestamp::from_second(end).ok())
                    .map_or_else(|| "none".to_owned(), |end| end.to_string())
            ));
        }
    }
    if let Some(begin) = number("nbf").filter(|begin| *begin > seconds + LEEWAY) {
        return Err(format!(
            "oidc: current time {now} before the nbf (not before) time: {begin}"
        ));
    }
    let signed = keys
        .have_signed(parts.key_id(), algorithm, parts.signed(), parts.signature())
        .await
        .map_err(|why| format!("failed to verify signature: {why}"))?;
    if signed {
        return Ok(());
    }
    Err("failed to verify signature: failed to verify id token signature".to_owned())
}

fn check_audience(claims: &Map<String, Value>, audiences: &[String]) -> Result<(), String> {
    let given: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if given.iter().any(|it| audiences.iter().any(|own| own == it)) {
        return Ok(());
    }
    Err(format!(
        "oidc: expected audience in {audiences:?} got {given:?}"
    ))
}
