//! Settings about the tokens of service accounts: the key that signs them, those whose tokens are good
//! still, and who issues them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use evenkeel_server::TokenOptions;
use evenkeel_server::auth::SigningKeys;

/// Who issues them when nobody else is named.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What the flags name.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenFiles {
    pub(crate) signing_key: Option<PathBuf>,
    pub(crate) keys: Vec<PathBuf>,
    pub(crate) issuers: Vec<String>,
}

fn text(flag: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{flag} {}", path.display()))
}

impl TokenFiles {
    /// The issuer, and the rest. `own` is the key of the data directory, which signs when no other
    /// does.
    ///
    /// # Errors
    /// A file can't be read or holds no such key; an issuer is none.
    pub(crate) fn read(&self, own: SigningKeys) -> anyhow::Result<(String, TokenOptions)> {
        let mut keys = match &self.signing_key {
            None => own,
            Some(path) => {
                let flag = "--service-account-signing-key-file";
                SigningKeys::new(&text(flag, path)?)
                    .with_context(|| format!("{flag} {}", path.display()))?
            }
        };
        for path in &self.keys {
            let flag = "--service-account-key-file";
            keys = keys
                .also(&text(flag, path)?)
                .with_context(|| format!("{flag} {}", path.display()))?;
        }
        for issuer in &self.issuers {
            // Others than URLs are taken, as by the reference, unless they look like one.
            let is_url = || {
                issuer
                    .parse::<http::Uri>()
                    .is_ok_and(|it| it.host().is_some())
            };
            anyhow::ensure!(
                !issuer.is_empty() && (!issuer.contains(':') || is_url()),
                "--service-account-issuer {issuer:?}: expected a URL such as {ISSUER}"
            );
        }
        let mut issuers = self.issuers.iter().cloned();
        let issuer = issuers.next().unwrap_or_else(|| ISSUER.to_owned());
        let options = TokenOptions {
            keys: Some(keys),
            issuers: issuers.collect(),
        };
        Ok((issuer, options))
    }
}
