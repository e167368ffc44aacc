//! Others who say who somebody is, and what he may do: front proxies, issuers of JSON Web Tokens,
//! and webhooks, as configuration files in the reference's form name them.
//!
//! Files are read once, at start; what they say and is not supported is refused by name.

mod cached;
mod chain;
mod claims;
mod distributed;
pub(crate) mod jwt;
mod jwt_config;
pub(crate) mod keys;
mod rights;
mod token;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use chain::Chain;
pub(crate) use jwt::Issuers;
pub(crate) use token::TokenWebhook;

use super::RequestHeaders;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OutsideError(pub(crate) String);

/// Who is nobody, and where he is let in.
#[derive(Debug, Clone, PartialEq)]
pub struct Anonymous {
    /// Requests without a credential are of `system:anonymous`; otherwise they are refused.
    pub enabled: bool,
    /// If there are any, only for these paths.
    pub paths: Vec<String>,
}

impl Default for Anonymous {
    fn default() -> Self {
        Self {
            enabled: true,
            paths: Vec::new(),
        }
    }
}

impl Anonymous {
    /// Is somebody without a credential let in with this path?
    pub(crate) fn lets(&self, path: &str) -> bool {
        self.enabled && (self.paths.is_empty() || self.paths.iter().any(|known| known == path))
    }
}

/// Others who say who somebody is, and what he may do.
#[derive(Debug, Default)]
pub struct Outside {
    /// Front proxies.
    pub(crate) request_headers: RequestHeaders,
    pub(crate) anonymous: Anonymous,
    pub(crate) issuers: Issuers,
    pub(crate) tokens: Option<TokenWebhook>,
    pub(crate) authorizers: Vec<rights::Kind>,
}

impl Outside {
    /// With front proxies that are believed.
    #[must_use]
    pub fn with_request_headers(mut self, headers: RequestHeaders) -> Self {
        self.request_headers = headers;
        self
    }

    /// Takes in an `AuthenticationConfiguration`. `own_issuer` is who issues the tokens of service
    /// accounts.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with_authentication(
        mut self,
        text: &str,
        own_issuer: &str,
    ) -> Result<Self, OutsideError> {
        let (issuers, anonymous) = jwt_config::read(text, own_issuer).map_err(OutsideError)?;
        self.issuers = issuers;
        self.anonymous = anonymous;
        Ok(self)
    }

    /// Asks a webhook about tokens, which a kubeconfig names; its answers are kept for a while.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with_token_webhook(
        mut self,
        kubeconfig: &str,
        directory: &Path,
        keep: Duration,
    ) -> Result<Self, OutsideError> {
        let webhook = TokenWebhook::read(kubeconfig, directory, keep).map_err(OutsideError)?;
        self.tokens = Some(webhook);
        Ok(self)
    }

    /// Takes in an `AuthorizationConfiguration`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with_authorization(mut self, text: &str) -> Result<Self, OutsideError> {
        self.authorizers = rights::read(text).map_err(OutsideError)?;
        Ok(self)
    }

    /// Asks a webhook about rights, which a kubeconfig names, after roles have had no opinion.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with_authorization_webhook(
        mut self,
        kubeconfig: &str,
        directory: &Path,
        allowed: Duration,
        refused: Duration,
    ) -> Result<Self, OutsideError> {
        let webhook =
            rights::plain(kubeconfig, directory, allowed, refused).map_err(OutsideError)?;
        self.authorizers = vec![
            rights::Kind::Node,
            rights::Kind::Roles,
            rights::Kind::Webhook(Arc::new(webhook)),
        ];
        Ok(self)
    }
}
