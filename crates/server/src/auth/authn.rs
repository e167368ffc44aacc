//! Authentication: client certificates and bearer tokens.

use std::sync::Arc;

use evenkeel_api::Status;
use evenkeel_api::clock::SharedClock;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::front::{Front, RequestHeaders};
use super::impersonation::{Impersonated, Ways};
use super::outside::{Anonymous, Issuers, Outside, TokenWebhook};
use super::token::{TokenError, TokenKeys};
use super::{Authorizer, Identity, bootstrap_token};
use crate::http::Attributes;
use crate::pki::Vouched;
use crate::registry::Registry;

/// Which of his credentials somebody has shown.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// What a verified client certificate says: its common name is the user, its organizations are
/// the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Common name.
    pub user: String,
    /// Organizations.
    pub groups: Vec<String>,
    /// SHA-256 of the whole of it, in hex: names it in records.
    pub fingerprint: String,
    /// The authority of clients vouches for it.
    pub is_client: bool,
    /// The authority of front proxies vouches for it.
    pub is_front_proxy: bool,
}

impl PeerCertificate {
    /// Reads the first certificate of a chain.
    #[must_use]
    pub fn read(chain: &[CertificateDer<'_>], vouched: &Vouched, now: Timestamp) -> Option<Self> {
        let der = chain.first()?;
        let (is_client, is_front_proxy) = vouched.of(chain, now);
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            value.as_str().map(str::to_owned).ok()
        };
        Some(Self {
            user: subject.iter_common_name().find_map(text)?,
            groups: subject.iter_organization().filter_map(text).collect(),
            fingerprint: fingerprint(der),
            is_client,
            is_front_proxy,
        })
    }

    /// Whom it is shown for, when the authority of clients vouches for it.
    fn identity(&self) -> Identity {
        let groups: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        let mut identity = Identity::user(self.user.clone(), &groups);
        let id = format!("X509SHA256={}", self.fingerprint);
        identity.extra.insert(CREDENTIAL_ID.to_owned(), vec![id]);
        identity
    }
}

fn fingerprint(der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// Finds out who asks.
pub struct Authenticator {
    tokens: Arc<TokenKeys>,
    registry: Registry,
    clock: SharedClock,
    headers: RequestHeaders,
    anonymous: Anonymous,
    ways: Ways,
    issuers: Issuers,
    webhook: Option<TokenWebhook>,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

impl Authenticator {
    pub(crate) fn new(
        tokens: Arc<TokenKeys>,
        registry: Registry,
        clock: SharedClock,
        outside: Outside,
    ) -> Self {
        Self {
            tokens,
            registry,
            clock,
            headers: outside.request_headers,
            anonymous: outside.anonymous,
            ways: Ways::default(),
            issuers: outside.issuers,
            webhook: outside.tokens,
        }
    }

    /// Who makes a request for a path. A bearer token that is no good is refused; no credential at
    /// all is anonymous, where that is allowed.
    ///
    /// # Errors
    /// 401.
    pub async fn identify(
        &self,
        path: &str,
        headers: &HeaderMap,
        peer: Option<&PeerCertificate>,
    ) -> Result<Identity, Status> {
        let front = peer.map_or(Front::Nobody, |peer| self.headers.identify(headers, peer));
        if let Front::Says(identity) = front {
            return Ok(identity);
        }
        if let Some(peer) = peer.filter(|peer| peer.is_client) {
            return Ok(peer.identity());
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return match front {
                Front::NotAllowed => Err(Status::unauthorized()),
                _ if !self.anonymous.lets(path) => Err(Status::unauthorized()),
                _ => Ok(Identity::anonymous()),
            };
        };
        let token = value
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty())
            .ok_or_else(Status::unauthorized)?;
        self.review(token, &[])
            .await
            .map(|(identity, _)| identity)
            .map_err(|error| {
                tracing::debug!(%error, "a bearer token was refused");
                Status::unauthorized()
            })
    }

    /// Who a token belongs to, and for which of the asked audiences (none: the door's own).
    ///
    /// # Errors
    /// Why the token is no good.
    pub async fn review(
        &self,
        token: &str,
        audiences: &[&str],
    ) -> Result<(Identity, Vec<String>), TokenError> {
        let now = self.clock.now();
        if let Some(identity) = bootstrap_token::verify(&self.registry, now, token) {
            // These are good for the door alone.
            let own = self.tokens.issuer().to_owned();
            let wanted = audiences.is_empty() || audiences.contains(&own.as_str());
            return match (wanted, audiences.is_empty()) {
                (false, _) => Err(TokenError::Audience(vec![own])),
                (true, true) => Ok((identity, Vec::new())),
                (true, false) => Ok((identity, vec![own])),
            };
        }
        let own = match self.tokens.verify(&self.registry, now, token, audiences) {
            Ok(found) => {
                self.registry.counted.valid_tokens.one(&[]);
                return Ok(found);
            }
            Err(error) => error,
        };
        let wanted: Vec<String> = match audiences {
            [] => vec![self.tokens.issuer().to_owned()],
            given => given.iter().map(|it| (*it).to_owned()).collect(),
        };
        // Tokens of issuers are for the door: they are good for its own audience.
        match self.issuers.verify(token, now).await {
            Some(Ok(identity)) => {
                let own = self.tokens.issuer().to_owned();
                return match (audiences.is_empty(), wanted.contains(&own)) {
                    (true, _) => Ok((identity, Vec::new())),
                    (false, true) => Ok((identity, vec![own])),
                    (false, false) => Err(TokenError::Audience(vec![own])),
                };
            }
            Some(Err(why)) => return Err(TokenError::Outside(why)),
            None => {}
        }
        let Some(webhook) = &self.webhook else {
            return Err(own);
        };
        match webhook.verify(token, &wanted).await {
            Ok(Some((identity, _))) if audiences.is_empty() => Ok((identity, Vec::new())),
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(own),
            Err(why) => Err(TokenError::Outside(why)),
        }
    }

    /// Takes on another identity when the headers say so and the caller may; `attributes` are
    /// those of the request that he makes as that one.
    ///
    /// # Errors
    /// 403 when the caller may not; 400 for groups, extra values or a UID without a user.
    pub fn impersonate(
        &self,
        headers: &HeaderMap,
        identity: Identity,
        attributes: &Attributes,
        authorizer: &dyn Authorizer,
    ) -> Result<Impersonated, Status> {
        self.ways.impersonate(
            headers,
            identity,
            attributes,
            (authorizer, &self.registry.counted),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_named_in_what_is_known_of_its_user() {
        let peer = PeerCertificate {
            user: "jane".to_owned(),
            groups: vec!["g".to_owned()],
            fingerprint: fingerprint(b"abc"),
            is_client: true,
            is_front_proxy: false,
        };
        let identity = peer.identity();
        assert_eq!(identity.groups, ["g", super::super::AUTHENTICATED]);
        assert_eq!(
            identity.extra[CREDENTIAL_ID],
            ["X509SHA256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
        );
    }
}
