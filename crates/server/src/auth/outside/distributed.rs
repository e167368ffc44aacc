//! Distributed claims (OpenID Connect Core 1.0, section 5.6.2): the groups of somebody who is in
//! too many for his token, which says where they are asked for instead.
//!
//! Only the claim that groups come from is looked for, as in the reference. What the place answers
//! is a token of its own, of whichever issuer it names: that must be reached by the authority that
//! the configured one is believed by, and the token is held to the same audiences. Claims that
//! stand in the token itself (`JWT`, aggregated ones) are not read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::jwt::{issuer_of, split, verify};
use super::keys::Keys;
use crate::outbound::{Peer, Url};

const LIMIT: Duration = Duration::from_secs(10);
/// The keys of so many issuers are kept.
const ISSUERS_MOST: usize = 64;

/// Finds a claim that stands elsewhere.
#[derive(Debug)]
pub(super) struct Resolver {
    claim: String,
    peer: Peer,
    keys: Mutex<HashMap<String, Arc<Keys>>>,
}

type Claims = Map<String, Value>;

impl Resolver {
    pub(super) fn new(claim: &str, peer: Peer) -> Self {
        Self {
            claim: claim.to_owned(),
            peer,
            keys: Mutex::default(),
        }
    }

    /// Puts the claim beside the others, when they say where it is.
    ///
    /// # Errors
    /// They don't say it well, or it can't be had there.
    pub(super) async fn expand(
        &self,
        claims: &mut Claims,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<(), String> {
        let Some((url, token)) = self.source(claims)? else {
            return Ok(());
        };
        let value = self.resolve(&url, &token, audiences, now).await?;
        claims.insert(self.claim.clone(), value);
        Ok(())
    }

    /// The endpoint and the access token for it.
    fn source(&self, claims: &Claims) -> Result<Option<(String, String)>, String> {
        if claims.contains_key(&self.claim) {
            return Ok(None);
        }
        let Some(names) = claims.get("_claim_names") else {
            return Ok(None);
        };
        let names: HashMap<String, String> = serde_json::from_value(names.clone())
            .map_err(|why| format!("oidc: error parsing distributed claim names: {why}"))?;
        let sources = claims
            .get("_claim_sources")
            .ok_or_else(|| "oidc: no claim sources".to_owned())?;
        let sources: HashMap<String, Map<String, Value>> = serde_json::from_value(sources.clone())
            .map_err(|why| format!("oidc: could not parse claim sources: {why}"))?;
        let Some(name) = names.get(&self.claim) else {
            return Ok(None);
        };
        let source = sources.get(name).ok_or_else(|| {
            format!("id token _claim_names contained a source {name} missing in _claims_sources")
        })?;
        let text = |field: &str| {
            let value = source.get(field).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let url = text("endpoint");
        Ok((!url.is_empty()).then(|| (url, text("access_token"))))
    }

    async fn resolve(
        &self,
        endpoint: &str,
        access_token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Value, String> {
        let claim = &self.claim;
        let token = self
            .fetch(endpoint, access_token)
            .await
            .map_err(|why| format!("while getting distributed claim {claim:?}: {why}"))?;
        let parts = split(token.trim()).ok_or_else(|| {
            format!(
                "getting untrusted issuer from endpoint {endpoint} failed for claim {claim:?}: \
                 malformed token"
            )
        })?;
        let issuer = issuer_of(&parts).unwrap_or_default();
        let keys = self
            .keys_of(issuer)
            .map_err(|why| format!("verifying untrusted issuer {issuer} failed: {why}"))?;
        verify(&parts, &keys, audiences, now)
            .await
            .map_err(|why| format!("verify distributed claim token: {why}"))?;
        parts.claims.get(claim).cloned().ok_or_else(|| {
            format!(
                "jwt returned by distributed claim endpoint {endpoint:?} did not contain claim: \
                 {claim}"
            )
        })
    }

    async fn fetch(&self, endpoint: &str, access_token: &str) -> Result<String, String> {
        let url = Url::read(endpoint)?;
        let peer = self.peer.bearing(access_token)?;
        let (code, body) = peer.ask(Method::GET, &url, None, LIMIT).await?;
        if !code.is_success() {
            return Err(format!("error while getting distributed claim JWT: {code}"));
        }
        String::from_utf8(body.to_vec())
            .map_err(|_| "could not decode distributed claim response".to_owned())
    }

    fn keys_of(&self, issuer: &str) -> Result<Arc<Keys>, String> {
        let mut all = self.keys.lock();
        if let Some(keys) = all.get(issuer) {
            return Ok(Arc::clone(keys));
        }
        let place = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let keys = Keys::new(issuer, Url::read(&place)?, self.peer.bearing("")?);
        let keys = Arc::new(keys);
        if all.len() >= ISSUERS_MOST {
            all.clear();
        }
        all.insert(issuer.to_owned(), Arc::clone(&keys));
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_says_where_it_is() {
        let resolver = Resolver::new("groups", Peer::believed("").unwrap());
        let source = |claims: Value| match claims {
            Value::Object(claims) => resolver.source(&claims),
            _ => unreachable!("claims are an object"),
        };
        let names = json!({"groups": "src1"});
        let sources = json!({"src1": {"endpoint": "https://a", "access_token": "t"}});
        let both = json!({"_claim_names": names, "_claim_sources": sources});
        let there = Some(("https://a".to_owned(), "t".to_owned()));
        assert_eq!(source(both.clone()), Ok(there));
        let mut normal = both.clone();
        normal["groups"] = json!(["dev"]);
        assert_eq!(source(normal), Ok(None));
        assert_eq!(source(json!({"sub": "jane"})), Ok(None));
        let other = json!({"_claim_names": {"other": "src1"}, "_claim_sources": sources});
        assert_eq!(source(other), Ok(None));
        let aggregated = json!({"_claim_names": names, "_claim_sources": {"src1": {"JWT": "x"}}});
        assert_eq!(source(aggregated), Ok(None));
        let none = json!({"_claim_names": names});
        assert_eq!(source(none), Err("oidc: no claim sources".to_owned()));
        let missing = json!({"_claim_names": {"groups": "src2"}, "_claim_sources": sources});
        assert_eq!(
            source(missing).unwrap_err(),
            "id token _claim_names contained a source src2 missing in _claims_sources"
        );
        assert!(source(json!({"_claim_names": 5, "_claim_sources": sources})).is_err());
    }
}
