//! The providers, in the reference's stored forms (`k8s:enc:PROVIDER:v1:KEY:` and what follows):
//! see `staging/src/k8s.io/apiserver/pkg/storage/value/encrypt` there.

use std::sync::Arc;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInPlace as _, KeyInit as _};
use bytes::Bytes;
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::Aead as _;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::SealError;
use super::kms::Kms;

/// A block of AES, which is also its initialization vector.
const BLOCK: usize = 16;
/// A nonce of XSalsa20.
const SALT: usize = 24;

/// A provider with its keys; the first of them seals.
pub(super) enum Provider {
    /// Nothing is sealed.
    Identity,
    Gcm(Vec<Gcm>),
    Cbc(Vec<Cbc>),
    Secretbox(Vec<Secretbox>),
    Kms(Arc<Kms>),
}

type Opened = Option<Result<Bytes, SealError>>;

impl Provider {
    pub(super) fn seal(
        &self,
        random: &SystemRandom,
        store_key: &[u8],
        plain: &Bytes,
    ) -> Result<Bytes, SealError> {
        match self {
            Self::Identity => Ok(plain.clone()),
            // A provider without a key is refused when the configuration is read.
            Self::Gcm(keys) => keys.first().map_or(Err(SealError::Open), |key| {
                key.seal(random, store_key, plain)
            }),
            Self::Cbc(keys) => keys
                .first()
                .map_or(Err(SealError::Open), |key| key.seal(random, plain)),
            Self::Secretbox(keys) => keys
                .first()
                .map_or(Err(SealError::Open), |key| key.seal(random, plain)),
            Self::Kms(service) => service.seal(store_key, plain),
        }
    }

    /// `None`: no key of this provider has sealed it.
    pub(super) fn unseal(&self, store_key: &[u8], stored: &Bytes) -> Opened {
        match self {
            Self::Identity => None,
            Self::Gcm(keys) => keys.iter().find_map(|key| key.unseal(store_key, stored)),
            Self::Cbc(keys) => keys.iter().find_map(|key| key.unseal(stored)),
            Self::Secretbox(keys) => keys.iter().find_map(|key| key.unseal(stored)),
            Self::Kms(service) => service.unseal(store_key, stored),
        }
    }

    /// Whether it would be sealed so now.
    pub(super) fn is_newest(&self, stored: &Bytes) -> bool {
        let prefix = match self {
            Self::Identity => return !stored.starts_with(super::SEALED),
            Self::Gcm(keys) => keys.first().map(|key| &key.prefix),
            Self::Cbc(keys) => keys.first().map(|key| &key.prefix),
            Self::Secretbox(keys) => keys.first().map(|key| &key.prefix),
            Self::Kms(service) => return service.is_newest(stored),
        };
        prefix.is_some_and(|prefix| stored.starts_with(prefix))
    }
}

fn prefix(provider: &str, name: &str) -> Vec<u8> {
    format!("k8s:enc:{provider}:v1:{name}:").into_bytes()
}

fn fresh<const N: usize>(random: &SystemRandom) -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| SealError::Random)?;
    Ok(bytes)
}

/// AES-GCM with a random nonce for each write; the store key is authenticated.
pub(super) struct Gcm {
    prefix: Vec<u8>,
    cipher: GcmCipher,
}

enum GcmCipher {
    /// Keys of 16 and 32 bytes.
    Ring(Box<LessSafeKey>),
    /// Keys of 24 bytes, which ring does not know.
    Aes192(Box<AesGcm<Aes192, U12>>),
}

impl Gcm {
    pub(super) fn new(name: &str, secret: &[u8]) -> Option<Self> {
        let ring = |algorithm| {
            let key = UnboundKey::new(algorithm, secret).ok()?;
            Some(GcmCipher::Ring(Box::new(LessSafeKey::new(key))))
        };
        let cipher = match secret.len() {
            16 => ring(&AES_128_GCM)?,
            24 => GcmCipher::Aes192(Box::new(AesGcm::new_from_slice(secret).ok()?)),
            32 => ring(&AES_256_GCM)?,
            _ => return None,
        };
        Some(Self {
            prefix: prefix("aesgcm", name),
            cipher,
        })
    }

    fn seal(
        &self,
        random: &SystemRandom,
        store_key: &[u8],
        plain: &[u8],
    ) -> Result<Bytes, SealError> {
        let nonce: [u8; NONCE_LEN] = fresh(random)?;
        let mut body = plain.to_vec();
        let sealed = match &self.cipher {
            GcmCipher::Ring(key) => key
                .seal_in_place_append_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(store_key),
                    &mut body,
                )
                .is_ok(),
            GcmCipher::Aes192(key) => key
                .encrypt_in_place(&nonce.into(), store_key, &mut body)
                .is_ok(),
        };
        if !sealed {
            return Err(SealError::Random);
        }
        Ok(Bytes::from([&self.prefix[..], &nonce, &body].concat()))
    }

    pub(super) fn unseal(&self, store_key: &[u8], stored: &[u8]) -> Opened {
        let rest = stored.strip_prefix(&*self.prefix)?;
        let open = || {
            let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
            let mut body = body.to_vec();
            match &self.cipher {
                GcmCipher::Ring(key) => {
                    let nonce = Nonce::assume_unique_for_key(*nonce);
                    let opened = key.open_in_place(nonce, Aad::from(store_key), &mut body);
                    let length = opened.ok()?.len();
                    body.truncate(length);
                }
                GcmCipher::Aes192(key) => key
                    .decrypt_in_place(nonce.into(), store_key, &mut body)
                    .ok()?,
            }
            Some(Bytes::from(body))
        };
        Some(open().ok_or(SealError::Open))
    }
}

/// AES-CBC with padding. Nothing is authenticated, which is why the reference advises against it.
pub(super) struct Cbc {
    prefix: Vec<u8>,
    secret: Vec<u8>,
}

impl Cbc {
    pub(super) fn new(name: &str, secret: &[u8]) -> Option<Self> {
        matches!(secret.len(), 16 | 24 | 32).then(|| Self {
            prefix: prefix("aescbc", name),
            secret: secret.to_vec(),
        })
    }

    fn seal(&self, random: &SystemRandom, plain: &[u8]) -> Result<Bytes, SealError> {
        let iv: [u8; BLOCK] = fresh(random)?;
        macro_rules! encrypt {
            ($aes:ty) => {
                cbc::Encryptor::<$aes>::new_from_slices(&self.secret, &iv)
                    .map(|cipher| cipher.encrypt_padded_vec_mut::<Pkcs7>(plain))
            };
        }
        let body = match self.secret.len() {
            16 => encrypt!(Aes128),
            24 => encrypt!(Aes192),
            _ => encrypt!(Aes256),
        };
        let body = body.map_err(|_| SealError::Open)?;
        Ok(Bytes::from([&self.prefix[..], &iv, &body].concat()))
    }

    fn unseal(&self, stored: &[u8]) -> Opened {
        let rest = stored.strip_prefix(&*self.prefix)?;
        macro_rules! decrypt {
            ($aes:ty, $iv:expr, $body:expr) => {
                cbc::Decryptor::<$aes>::new_from_slices(&self.secret, $iv)
                    .ok()?
                    .decrypt_padded_vec_mut::<Pkcs7>($body)
                    .ok()
            };
        }
        let open = || {
            let (iv, body) = rest.split_at_checked(BLOCK)?;
            match self.secret.len() {
                16 => decrypt!(Aes128, iv, body),
                24 => decrypt!(Aes192, iv, body),
                _ => decrypt!(Aes256, iv, body),
            }
        };
        Some(open().map(Bytes::from).ok_or(SealError::Open))
    }
}

/// XSalsa20 and Poly1305, as NaCl's secretbox.
pub(super) struct Secretbox {
    prefix: Vec<u8>,
    cipher: XSalsa20Poly1305,
}

impl Secretbox {
    pub(super) fn new(name: &str, secret: &[u8]) -> Option<Self> {
        Some(Self {
            prefix: prefix("secretbox", name),
            cipher: XSalsa20Poly1305::new_from_slice(secret).ok()?,
        })
    }

    fn seal(&self, random: &SystemRandom, plain: &[u8]) -> Result<Bytes, SealError> {
        let salt: [u8; SALT] = fresh(random)?;
        let body = self
            .cipher
            .encrypt(&salt.into(), plain)
            .map_err(|_| SealError::Open)?;
        Ok(Bytes::from([&self.prefix[..], &salt, &body].concat()))
    }

    fn unseal(&self, stored: &[u8]) -> Opened {
        let rest = stored.strip_prefix(&*self.prefix)?;
        let open = || {
            let (salt, body) = rest.split_first_chunk::<SALT>()?;
            self.cipher.decrypt(&(*salt).into(), body).ok()
        };
        Some(open().map(Bytes::from).ok_or(SealError::Open))
    }
}
