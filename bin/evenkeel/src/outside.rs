//! Settings about others who say who somebody is, and what he may do: front proxies, issuers of
//! tokens, webhooks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use evenkeel_server::Outside;
use evenkeel_server::auth::RequestHeaders;

/// What the flags name.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutsideFiles {
    pub(crate) requestheader_client_ca: Option<PathBuf>,
    pub(crate) requestheader_allowed_names: Option<Vec<String>>,
    pub(crate) requestheader_username_headers: Option<Vec<String>>,
    pub(crate) requestheader_uid_headers: Option<Vec<String>>,
    pub(crate) requestheader_group_headers: Option<Vec<String>>,
    pub(crate) requestheader_extra_headers_prefix: Option<Vec<String>>,
    pub(crate) authentication: Option<PathBuf>,
    pub(crate) token_webhook: Option<PathBuf>,
    pub(crate) token_webhook_cache_ttl: Option<String>,
    pub(crate) authorization: Option<PathBuf>,
    pub(crate) authorization_webhook: Option<PathBuf>,
    pub(crate) authorized_ttl: Option<String>,
    pub(crate) unauthorized_ttl: Option<String>,
}

/// The text of a file that a flag names, and the directory that it is in.
fn file<'p>(flag: &str, path: &'p Path) -> anyhow::Result<(String, &'p Path)> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("{flag} {}", path.display()))?;
    Ok((text, path.parent().unwrap_or(Path::new("."))))
}

fn duration(flag: &str, given: Option<&String>, usual: Duration) -> anyhow::Result<Duration> {
    let Some(text) = given else { return Ok(usual) };
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|found| Duration::try_from(found).ok())
        .with_context(|| format!("{flag} {text:?}: expected a duration like 2m"))
}

impl OutsideFiles {
    /// Reads all files.
    ///
    /// # Errors
    /// One can't be read, or does not say what it must.
    pub(crate) fn read(&self, issuer: &str) -> anyhow::Result<Outside> {
        let mut outside = Outside::default().with_request_headers(self.request_headers()?);
        if let Some(path) = &self.authentication {
            let flag = "--authentication-config";
            let (text, _) = file(flag, path)?;
            outside = outside
                .with_authentication(&text, issuer)
                .with_context(|| format!("{flag} {}", path.display()))?;
        }
        if let Some(path) = &self.token_webhook {
            let flag = "--authentication-token-webhook-config-file";
            let (text, directory) = file(flag, path)?;
            let keep = duration(
                "--authentication-token-webhook-cache-ttl",
                self.token_webhook_cache_ttl.as_ref(),
                Duration::from_secs(120),
            )?;
            outside = outside
                .with_token_webhook(&text, directory, keep)
                .with_context(|| format!("{flag} {}", path.display()))?;
        }
        anyhow::ensure!(
            self.authorization.is_none() || self.authorization_webhook.is_none(),
            "--authorization-config and --authorization-webhook-config-file can't both be given"
        );
        if let Some(path) = &self.authorization {
            let flag = "--authorization-config";
            let (text, _) = file(flag, path)?;
            outside = outside
                .with_authorization(&text)
                .with_context(|| format!("{flag} {}", path.display()))?;
        }
        if let Some(path) = &self.authorization_webhook {
            let flag = "--authorization-webhook-config-file";
            let (text, directory) = file(flag, path)?;
            let allowed = duration(
                "--authorization-webhook-cache-authorized-ttl",
                self.authorized_ttl.as_ref(),
                Duration::from_secs(300),
            )?;
            let refused = duration(
                "--authorization-webhook-cache-unauthorized-ttl",
                self.unauthorized_ttl.as_ref(),
                Duration::from_secs(30),
            )?;
            outside = outside
                .with_authorization_webhook(&text, directory, allowed, refused)
                .with_context(|| format!("{flag} {}", path.display()))?;
        }
        Ok(outside)
    }

    /// Which front proxies are believed.
    ///
    /// # Errors
    /// Their authority can't be read.
    pub(crate) fn request_headers(&self) -> anyhow::Result<RequestHeaders> {
        let usual = RequestHeaders::default();
        let client_ca = self
            .requestheader_client_ca
            .as_ref()
            .map(|path| {
                std::fs::read_to_string(path)
                    .with_context(|| format!("--requestheader-client-ca-file {}", path.display()))
            })
            .transpose()?;
        // Names are the cluster's own only together with its own authority.
        let names = match (&self.requestheader_allowed_names, &client_ca) {
            (Some(names), _) => names.clone(),
            (None, None) => usual.allowed_names,
            (None, Some(_)) => Vec::new(),
        };
        let or = |given: &Option<Vec<String>>, usual| given.clone().unwrap_or(usual);
        Ok(RequestHeaders {
            client_ca,
            allowed_names: names,
            user: or(&self.requestheader_username_headers, usual.user),
            uid: or(&self.requestheader_uid_headers, usual.uid),
            groups: or(&self.requestheader_group_headers, usual.groups),
            extra_prefixes: or(
                &self.requestheader_extra_headers_prefix,
                usual.extra_prefixes,
            ),
        })
    }
}
