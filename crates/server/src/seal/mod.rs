//! Encryption at rest: what is sensitive is sealed before it reaches the store.
//!
//! Without a configuration Secrets are sealed with AES-256-GCM and a key that is made at the first
//! start. With one (`--encryption-provider-config`, the reference's `EncryptionConfiguration`) its
//! providers decide: the first of a resource seals, all of them open. The stored forms are the
//! reference's, so that what one of the two has sealed the other can open; the store key is
//! authenticated where a provider can do that, so that a sealed value can't be moved to another
//! object. The key of the first start stays able to open what it has sealed.
//!
//! Sealing and opening never wait. A key management service ([`kms`]) has to be asked for keys
//! before that: [`Seal::learn`] does it for a stored value, and [`Seal::keep`] asks for the current
//! key all the time.

pub(crate) mod config;
mod follow;
mod kms;
mod provider;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use arc_swap::ArcSwap;
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};

pub use config::ConfigError;
use follow::Reloads;
use provider::{Gcm, Provider};

/// What every sealed value begins with.
const SEALED: &[u8] = b"k8s:enc:";
/// And one whose key a service has.
const BY_SERVICE: &[u8] = b"k8s:enc:kms:v2:";
const KEY_BYTES: usize = 32;

/// Why a value could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file can't be read or made.
    #[error("encryption key {path}: {source}")]
    KeyFile {
        /// The file.
        path: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The key file has the wrong length.
    #[error("encryption key {0} is damaged: expected 32 bytes")]
    BadKey(String),
    /// The value was not sealed with this key for this object.
    #[error("sealed value can't be opened: wrong key or damaged data")]
    Open,
    /// No provider knows the value.
    #[error("no configured encryption provider or key opens a value that begins with {0:?}")]
    Unknown(String),
    /// The value is not sealed, and the configuration does not allow that.
    #[error("the value is not encrypted, and `identity` is not among the providers")]
    Plain,
    /// The system has no randomness.
    #[error("no randomness for a nonce")]
    Random,
    /// A key management service does not do its part.
    #[error("KMS provider {provider}: {why}")]
    Kms {
        /// Its name in the configuration.
        provider: String,
        /// It has said nothing: it may do so later.
        unreachable: bool,
        /// What went wrong.
        why: String,
    },
}

/// The providers of some resources.
pub(crate) struct Rule {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.` or `*.*`.
    resources: Vec<String>,
    /// The first seals, all of them open.
    providers: Vec<Provider>,
}

impl Rule {
    fn covers(&self, resource: &str) -> bool {
        let group = resource.split_once('.').map_or("", |(_, group)| group);
        self.resources.iter().any(|covered| match covered.as_str() {
            "*.*" => true,
            covered => match covered.strip_prefix("*.") {
                Some(covered) => covered == group,
                None => covered == resource,
            },
        })
    }
}

/// Seals and opens values.
pub struct Seal {
    rules: ArcSwap<Vec<Rule>>,
    /// The key of the first start.
    own: Option<Gcm>,
    random: SystemRandom,
    reloads: Reloads,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// Seals Secrets with the key in a file, which is made at first.
    ///
    /// # Errors
    /// The file can't be read, made, or is not a key.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let bytes = match read_key(path)? {
            Some(bytes) => bytes,
            None => make_key(path)?,
        };
        Self::from_key(&bytes).ok_or_else(|| SealError::BadKey(path.display().to_string()))
    }

    /// Seals as a configuration says. The key in `own`, if there is one, still opens what it has
    /// sealed.
    ///
    /// # Errors
    /// The configuration is wrong, or has a provider that is not supported; a file can't be read.
    pub fn configured(text: &str, own: &Path) -> Result<Self, ConfigError> {
        let own = match read_key(own)? {
            Some(bytes) => Some(
                Gcm::new("key1", &bytes)
                    .ok_or_else(|| SealError::BadKey(own.display().to_string()))?,
            ),
            None => None,
        };
        Ok(Self {
            rules: ArcSwap::from_pointee(config::parse(text)?),
            own,
            random: SystemRandom::new(),
            reloads: Reloads::default(),
        })
    }

    /// Seals Secrets with a key given as 32 bytes.
    #[must_use]
    pub fn from_key(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != KEY_BYTES {
            return None;
        }
        let providers = vec![
            Provider::Gcm(vec![Gcm::new("key1", bytes)?]),
            Provider::Identity,
        ];
        Some(Self {
            rules: ArcSwap::from_pointee(vec![Rule {
                resources: vec!["secrets".to_owned()],
                providers,
            }]),
            own: None,
            random: SystemRandom::new(),
            reloads: Reloads::default(),
        })
    }

    /// Whether values of a resource (`secrets`, `deployments.apps`) are sealed or may have been:
    /// for others, sealing and opening is nothing.
    #[must_use]
    pub fn covers(&self, resource: &str) -> bool {
        rule(&self.rules.load(), resource).is_some()
    }

    /// Seals a value of a resource for an object.
    ///
    /// # Errors
    /// The system has no randomness, or a key management service has not confirmed its key.
    pub fn seal(
        &self,
        resource: &str,
        store_key: &[u8],
        plain: &Bytes,
    ) -> Result<Bytes, SealError> {
        let rules = self.rules.load();
        match rule(&rules, resource).and_then(|rule| rule.providers.first()) {
            Some(provider) => provider.seal(&self.random, store_key, plain),
            None => Ok(plain.clone()),
        }
    }

    /// Opens a stored value of a resource.
    ///
    /// # Errors
    /// No key opens it, or it is damaged.
    pub fn unseal(
        &self,
        resource: &str,
        store_key: &[u8],
        stored: &Bytes,
    ) -> Result<Bytes, SealError> {
        let rules = self.rules.load();
        let providers = rule(&rules, resource)
            .map(|rule| rule.providers.as_slice())
            .unwrap_or_default();
        if !stored.starts_with(SEALED) {
            let plain = providers.is_empty()
                || providers
                    .iter()
                    .any(|provider| matches!(provider, Provider::Identity));
            return if plain {
                Ok(stored.clone())
            } else {
                Err(SealError::Plain)
            };
        }
        let mut failed = None;
        for provider in providers {
            match provider.unseal(store_key, stored) {
                Some(Ok(plain)) => return Ok(plain),
                Some(Err(error)) => failed = Some(error),
                None => {}
            }
        }
        if let Some(opened) = self
            .own
            .as_ref()
            .and_then(|own| own.unseal(store_key, stored))
        {
            return opened;
        }
        Err(failed.unwrap_or_else(|| {
            let head = stored.split(|byte| *byte == b':').take(5);
            let head: Vec<_> = head.map(String::from_utf8_lossy).collect();
            SealError::Unknown(head.join(":").chars().take(80).collect())
        }))
    }

    /// Whether a stored value is not as it would be sealed now: by another provider or key.
    #[must_use]
    pub fn is_stale(&self, resource: &str, stored: &Bytes) -> bool {
        let rules = self.rules.load();
        let first = rule(&rules, resource).and_then(|rule| rule.providers.first());
        first.is_some_and(|provider| !provider.is_newest(stored))
    }
}

fn rule<'r>(rules: &'r [Rule], resource: &str) -> Option<&'r Rule> {
    rules.iter().find(|rule| rule.covers(resource))
}

fn read_key(path: &Path) -> Result<Option<Vec<u8>>, SealError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SealError::KeyFile {
            path: path.display().to_string(),
            source,
        }),
    }
}

fn make_key(path: &Path) -> Result<Vec<u8>, SealError> {
    let mut fresh = vec![0; KEY_BYTES];
    SystemRandom::new()
        .fill(&mut fresh)
        .map_err(|_| SealError::Random)?;
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(&fresh)?;
            file.sync_all()
        })
        .map_err(|source| SealError::KeyFile {
            path: path.display().to_string(),
            source,
        })?;
    Ok(fresh)
}
