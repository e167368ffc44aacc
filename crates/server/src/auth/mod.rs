//! Who is asking, and may they?

mod authn;
pub(crate) mod bootstrap_token;
pub(crate) mod escalation;
mod front;
mod impersonation;
mod node;
pub(crate) mod outside;
mod rbac;
mod token;

use std::collections::BTreeMap;

pub use authn::{Authenticator, PeerCertificate};
pub use front::RequestHeaders;
pub use impersonation::Impersonated;
pub(crate) use impersonation::acts_as_another;
pub(crate) use outside::Chain;
pub use outside::{Anonymous, Outside, OutsideError};
pub use rbac::RbacAuthorizer;
pub use token::{KeyError, SecretToken, SigningKeys, TokenClaims, TokenError, TokenKeys};

use crate::http::Attributes;

/// Somebody whom the door knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// `system:admin`, `system:serviceaccount:NAMESPACE:NAME` …
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// UID of a service account.
    pub uid: String,
    /// What else is known, for example the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Everybody who has shown a credential.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody who has not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// May do everything.
pub const MASTERS: &str = "system:masters";

impl Identity {
    /// A user with groups, `system:authenticated` included.
    #[must_use]
    pub fn user(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut all: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        if !all.iter().any(|group| group == AUTHENTICATED) {
            all.push(AUTHENTICATED.to_owned());
        }
        Self {
            user: name.into(),
            groups: all,
            ..Self::default()
        }
    }

    /// Somebody who has shown nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            user: "system:anonymous".to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// A service account.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::user(
            format!("system:serviceaccount:{namespace}:{name}"),
            &[
                "system:serviceaccounts",
                &format!("system:serviceaccounts:{namespace}"),
            ],
        )
    }

    /// Is it in a group?
    #[must_use]
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|found| found == group)
    }
}

/// What an authorizer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allow(String),
    /// No rule allows it; why, when there is more to say.
    NoOpinion(String),
    /// No, whatever others would say.
    Deny(String),
}

/// Says who may do what.
pub trait Authorizer: Send + Sync + 'static {
    /// May `identity` do this?
    fn authorize(&self, identity: &Identity, attributes: &Attributes) -> Decision;

    /// Everything that `identity` may do in a namespace, as `SelfSubjectRulesReview` lists it:
    /// resource rules and non-resource rules as JSON.
    fn rules(
        &self,
        identity: &Identity,
        namespace: &str,
    ) -> (Vec<serde_json::Value>, Vec<serde_json::Value>);

    /// Why that is not everything.
    fn rules_gap(&self) -> Option<&'static str> {
        None
    }

    /// Finds out what [`Self::authorize`] will need, where that takes time: asked right before it.
    fn prepare<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a Attributes,
    ) -> Option<futures::future::BoxFuture<'a, ()>> {
        None
    }
}
