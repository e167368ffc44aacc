//! Authentication: client certificates and bearer tokens.

use std::sync::Arc;

use evenkeel_api::Status;
use evenkeel_api::clock::SharedClock;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::token::{TokenError, TokenKeys};
use super::{Authorizer, Identity, bootstrap_token, impersonation};
use crate::registry::Registry;

/// What a verified client certificate says: its common name is the user, its organizations are
/// the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Common name.
    pub user: String,
    /// Organizations.
    pub groups: Vec<String>,
}

impl PeerCertificate {
    /// Reads a certificate in DER form that TLS has verified already.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            value.as_str().map(str::to_owned).ok()
        };
        Some(Self {
            user: subject.iter_common_name().find_map(text)?,
            groups: subject.iter_organization().filter_map(text).collect(),
        })
    }
}

/// Finds out who asks.
pub struct Authenticator {
    tokens: Arc<TokenKeys>,
    registry: Registry,
    clock: SharedClock,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

impl Authenticator {
    pub(crate) fn new(tokens: Arc<TokenKeys>, registry: Registry, clock: SharedClock) -> Self {
        Self {
            tokens,
            registry,
            clock,
        }
    }

    /// Who makes a request. A bearer token that is no good is refused; no credential at all is
    /// anonymous.
    ///
    /// # Errors
    /// 401.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        peer: Option<&PeerCertificate>,
    ) -> Result<Identity, Status> {
        if let Some(peer) = peer {
            let groups: Vec<&str> = peer.groups.iter().map(String::as_str).collect();
            return Ok(Identity::user(peer.user.clone(), &groups));
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Ok(Identity::anonymous());
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
    pub fn review(
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
        self.tokens.verify(&self.registry, now, token, audiences)
    }

    /// Takes on another identity when the headers say so and the caller may.
    ///
    /// # Errors
    /// 403 when the caller may not; 400 for groups, extra values or a UID without a user.
    pub fn impersonate(
        &self,
        headers: &HeaderMap,
        identity: Identity,
        authorizer: &dyn Authorizer,
    ) -> Result<Identity, Status> {
        impersonation::impersonate(headers, identity, authorizer)
    }
}
