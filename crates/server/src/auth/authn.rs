//! Authentication: client certificates, bearer tokens, impersonation.

use std::sync::Arc;

use evenkeel_api::Status;
use evenkeel_api::clock::SharedClock;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::token::{TokenError, TokenKeys};
use super::{AUTHENTICATED, Authorizer, Decision, Identity};
use crate::http::Attributes;
use crate::pipeline::refusal;
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
        self.tokens
            .verify(&self.registry, self.clock.now(), token, audiences)
    }

    /// Takes on another identity when the headers say so and the caller may.
    ///
    /// # Errors
    /// 403 when the caller may not; 400 for groups or extras without a user.
    pub fn impersonate(
        &self,
        headers: &HeaderMap,
        identity: Identity,
        authorizer: &dyn Authorizer,
    ) -> Result<Identity, Status> {
        const PREFIX: &str = "impersonate-";
        if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
            return Ok(identity);
        }
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let user = headers
            .get("impersonate-user")
            .map(text)
            .unwrap_or_default();
        if user.is_empty() {
            return Err(Status::bad_request(
                "requested impersonation of groups or extra without impersonating a user",
            ));
        }
        let may = |group: &str, resource: &str, namespace: &str, name: &str| {
            let attributes = Attributes {
                verb: "impersonate".to_owned(),
                resource_request: true,
                group: group.to_owned(),
                version: "v1".to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..Attributes::default()
            };
            match authorizer.authorize(&identity, &attributes) {
                Decision::Allow(_) => Ok(()),
                Decision::NoOpinion(why) => Err(refusal(&identity, &attributes, &why)),
            }
        };
        let mut groups: Vec<String> = headers
            .get_all("impersonate-group")
            .iter()
            .map(text)
            .collect();
        let account = user
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'));
        if let Some((namespace, name)) = account {
            may("", "serviceaccounts", namespace, name)?;
            if groups.is_empty() {
                groups = Identity::service_account(namespace, name).groups;
            }
        } else {
            may("", "users", "", &user)?;
        }
        for group in headers.get_all("impersonate-group").iter().map(text) {
            may("", "groups", "", &group)?;
        }
        let mut taken = Identity {
            user,
            groups,
            ..Identity::default()
        };
        if let Some(uid) = headers.get("impersonate-uid").map(text) {
            may("authentication.k8s.io", "uids", "", &uid)?;
            taken.uid = uid;
        }
        for (name, value) in headers {
            let Some(key) = name.as_str().strip_prefix("impersonate-extra-") else {
                continue;
            };
            may(
                "authentication.k8s.io",
                &format!("userextras/{key}"),
                "",
                &text(value),
            )?;
            taken
                .extra
                .entry(key.to_owned())
                .or_default()
                .push(text(value));
        }
        if taken.user != "system:anonymous" && !taken.in_group(AUTHENTICATED) {
            taken.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(taken)
    }
}
