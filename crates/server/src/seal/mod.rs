//! Encryption at rest: Secrets are sealed before they reach the store.
//!
//! AES-256-GCM with a random nonce for each write; the store key is authenticated too, so that a
//! sealed value can't be moved to another object. The prefix is that of the reference's `aesgcm`
//! provider, so that a reader sees what it has before it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

const PREFIX: &[u8] = b"k8s:enc:aesgcm:v1:key1:";
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
    /// The system has no randomness.
    #[error("no randomness for a nonce")]
    Random,
}

/// Seals and opens values.
pub struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// Reads the key file, making it at first.
    ///
    /// # Errors
    /// The file can't be read, made, or is not a key.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let fail = |source| SealError::KeyFile {
            path: path.display().to_string(),
            source,
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut fresh = vec![0; KEY_BYTES];
                SystemRandom::new()
                    .fill(&mut fresh)
                    .map_err(|_| SealError::Random)?;
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(fail)?;
                file.write_all(&fresh)
                    .and_then(|()| file.sync_all())
                    .map_err(fail)?;
                fresh
            }
            Err(error) => return Err(fail(error)),
        };
        Self::from_key(&bytes).ok_or_else(|| SealError::BadKey(path.display().to_string()))
    }

    /// Uses a key given as 32 bytes.
    #[must_use]
    pub fn from_key(bytes: &[u8]) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).ok()?;
        Some(Self {
            key: LessSafeKey::new(key),
            random: SystemRandom::new(),
        })
    }

    /// Seals a value for an object.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn seal(&self, store_key: &[u8], plain: &[u8]) -> Result<Bytes, SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| SealError::Random)?;
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(store_key),
                &mut body,
            )
            .map_err(|_| SealError::Random)?;
        Ok(Bytes::from([PREFIX, &nonce, &body].concat()))
    }

    /// Opens a sealed value; one that was never sealed is answered as it is.
    ///
    /// # Errors
    /// The value was sealed otherwise, or is damaged.
    pub fn unseal(&self, store_key: &[u8], stored: &Bytes) -> Result<Bytes, SealError> {
        let Some(rest) = stored.strip_prefix(PREFIX) else {
            return Ok(stored.clone());
        };
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Open)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Open)?;
        let mut body = body.to_vec();
        let length = self
            .key
            .open_in_place(nonce, Aad::from(store_key), &mut body)
            .map_err(|_| SealError::Open)?
            .len();
        body.truncate(length);
        Ok(Bytes::from(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_for_its_object() {
        let seal = Seal::from_key(&[7; 32]).expect("a key");
        let sealed = seal
            .seal(b"/registry/secrets/a/b", b"plain")
            .expect("sealed");
        assert!(!sealed.windows(5).any(|window| window == b"plain"));
        assert_eq!(
            seal.unseal(b"/registry/secrets/a/b", &sealed)
                .expect("opened"),
            "plain"
        );
        assert!(seal.unseal(b"/registry/secrets/a/c", &sealed).is_err());
        let untouched = Bytes::from_static(b"{}");
        assert_eq!(seal.unseal(b"k", &untouched).expect("as it is"), untouched);
    }
}
