//! The stored form of what a key management service protects: the encrypted value, and beside it
//! the key to it, encrypted by the service. See `storage/value/encrypt/envelope/kmsv2` of the
//! reference.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use ring::hkdf::{HKDF_SHA256, Prk};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::seal::SealError;

/// The length of seeds, of keys made of them, and of what a key is made of beside the seed.
pub(super) const SEED: usize = 32;
const ID_LIMIT: usize = 1 << 10;
const SOURCE_LIMIT: usize = 1 << 10;
const ANNOTATIONS_LIMIT: usize = 32 << 10;
/// `EncryptedDEKSourceType`: the source is the key itself (written by older servers),
const KEY_TYPE: i32 = 0;
/// or a seed, of which every write makes a key of its own.
pub(super) const SEED_TYPE: i32 = 1;

/// `EncryptedObject`, field for field.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Envelope {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) data: Bytes,
    #[prost(string, tag = "2")]
    pub(super) key_id: String,
    /// The seed or key, encrypted by the service.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    pub(super) source_type: i32,
}

/// Names what a service has encrypted.
pub(super) type SourceId = [u8; 32];

impl Envelope {
    /// Reads what stands behind the prefix of a stored value.
    pub(super) fn read(stored: Bytes) -> Result<Self, String> {
        let envelope = Self::decode(stored).map_err(|error| error.to_string())?;
        if envelope.data.is_empty() {
            return Err("encrypted data is empty".to_owned());
        }
        envelope.check()?;
        Ok(envelope)
    }

    /// Whether everything but the data is as it must be.
    pub(super) fn check(&self) -> Result<(), String> {
        if ![KEY_TYPE, SEED_TYPE].contains(&self.source_type) {
            let unknown = self.source_type;
            return Err(format!("unknown encryptedDEKSourceType: {unknown}"));
        }
        let size = self.source.len();
        if size == 0 {
            return Err("failed to validate encrypted DEK source: it is empty".to_owned());
        }
        if size > SOURCE_LIMIT {
            return Err(format!(
                "failed to validate encrypted DEK source: it is {size} bytes, which exceeds the \
                 max size of {SOURCE_LIMIT}"
            ));
        }
        check_key_id(&self.key_id)?;
        let mut size = 0;
        for (name, value) in &self.annotations {
            if !is_domain(name) {
                return Err(format!(
                    "failed to validate annotations: {name:?}: should be a domain with at least \
                     two segments separated by dots"
                ));
            }
            size += name.len() + value.len();
        }
        if size > ANNOTATIONS_LIMIT {
            return Err(format!(
                "failed to validate annotations: total size of annotations is {size}, which \
                 exceeds the max size of {ANNOTATIONS_LIMIT}"
            ));
        }
        Ok(())
    }

    pub(super) fn source_id(&self) -> SourceId {
        let bare = Self {
            data: Bytes::new(),
            ..self.clone()
        };
        let digest = digest::digest(&digest::SHA256, &bare.encode_to_vec());
        let mut id = SourceId::default();
        id.copy_from_slice(digest.as_ref());
        id
    }
}

/// Whether a service may name a key so.
pub(super) fn check_key_id(id: &str) -> Result<(), String> {
    let size = id.len();
    if size == 0 {
        return Err("keyID is empty".to_owned());
    }
    if size > ID_LIMIT {
        return Err(format!(
            "keyID is {size} bytes, which exceeds the max size of {ID_LIMIT}"
        ));
    }
    Ok(())
}

fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        let ends = |end: Option<char>| end.is_some_and(|end| end.is_ascii_alphanumeric());
        label.len() <= 63
            && ends(label.chars().next())
            && ends(label.chars().last())
            && label
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(label)
}

/// What encrypts values.
pub(super) enum DataKey {
    /// A key of its own for each value, made of the seed and of random bytes that stand before it.
    Seed(Prk),
    /// One key.
    Key(Box<LessSafeKey>),
}

impl DataKey {
    /// Of what a service has decrypted.
    pub(super) fn new(source_type: i32, plain: &[u8]) -> Option<Self> {
        if source_type == SEED_TYPE {
            return (plain.len() >= SEED)
                .then(|| Self::Seed(Prk::new_less_safe(HKDF_SHA256, plain)));
        }
        // Whoever wrote such keys made them of 32 bytes.
        let key = UnboundKey::new(&AES_256_GCM, plain).ok()?;
        Some(Self::Key(Box::new(LessSafeKey::new(key))))
    }

    /// A new seed, and what it makes.
    pub(super) fn fresh(random: &SystemRandom) -> Result<([u8; SEED], Self), SealError> {
        let seed = bytes_of(random)?;
        Ok((seed, Self::Seed(Prk::new_less_safe(HKDF_SHA256, &seed))))
    }

    pub(super) fn seal(
        &self,
        random: &SystemRandom,
        store_key: &[u8],
        plain: &[u8],
    ) -> Result<Bytes, SealError> {
        let Self::Seed(seed) = self else {
            // Nothing is written with a key that is used more than once.
            return Err(SealError::Open);
        };
        let info: [u8; SEED] = bytes_of(random)?;
        let nonce: [u8; NONCE_LEN] = bytes_of(random)?;
        let mut body = plain.to_vec();
        derive(seed, &info)
            .ok_or(SealError::Random)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(store_key),
                &mut body,
            )
            .map_err(|_| SealError::Random)?;
        Ok(Bytes::from([&info[..], &nonce, &body].concat()))
    }

    pub(super) fn unseal(&self, store_key: &[u8], data: &[u8]) -> Option<Bytes> {
        match self {
            Self::Seed(seed) => {
                let (info, rest) = data.split_at_checked(SEED)?;
                open(&derive(seed, info)?, store_key, rest)
            }
            Self::Key(key) => open(key, store_key, data),
        }
    }
}

fn bytes_of<const N: usize>(random: &SystemRandom) -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| SealError::Random)?;
    Ok(bytes)
}

/// HKDF without its first step: the seed is random as it is.
fn derive(seed: &Prk, info: &[u8]) -> Option<LessSafeKey> {
    let info = [info];
    let key = seed.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(key)))
}

fn open(key: &LessSafeKey, store_key: &[u8], data: &[u8]) -> Option<Bytes> {
    let (nonce, body) = data.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = body.to_vec();
    let length = key
        .open_in_place(nonce, Aad::from(store_key), &mut body)
        .ok()?
        .len();
    body.truncate(length);
    Some(Bytes::from(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869, A.1: the second step alone.
    #[test]
    fn keys_are_made_of_seeds_as_the_rfc_says() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
                .collect()
        };
        let seed = hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
        let info = hex("f0f1f2f3f4f5f6f7f8f9");
        let key = hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
        let seed = Prk::new_less_safe(HKDF_SHA256, &seed);
        // Two keys are the same if one opens what the other has sealed.
        let expected = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("a key"));
        let mut body = b"plain".to_vec();
        expected
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key([7; NONCE_LEN]),
                Aad::from(b"place"),
                &mut body,
            )
            .expect("sealed");
        let data = [&[7; NONCE_LEN][..], &body].concat();
        let derived = derive(&seed, &info).expect("a key");
        assert_eq!(open(&derived, b"place", &data).expect("opened"), "plain");
        assert!(open(&derived, b"elsewhere", &data).is_none());
    }

    #[test]
    fn what_a_service_says_is_held_to_its_limits() {
        let good = Envelope {
            key_id: "1".to_owned(),
            source: vec![1],
            source_type: SEED_TYPE,
            ..Envelope::default()
        };
        assert_eq!(good.check(), Ok(()));
        let named = |name: &str| Envelope {
            annotations: BTreeMap::from([(name.to_owned(), vec![1])]),
            ..good.clone()
        };
        assert_eq!(named("a.example.com").check(), Ok(()));
        assert!(named("Example.com").check().is_err());
        assert!(named("plain").check().is_err());
        for wrong in [
            Envelope {
                key_id: String::new(),
                ..good.clone()
            },
            Envelope {
                source: vec![0; SOURCE_LIMIT + 1],
                ..good.clone()
            },
            Envelope {
                source_type: 2,
                ..good.clone()
            },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
