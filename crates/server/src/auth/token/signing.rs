//! The keys of service account tokens: one that signs, and all whose signatures are good. To change
//! the key that signs, the old one stays among the others until its last token has expired.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use rustls::sign::Signer;
use rustls::{SignatureAlgorithm, SignatureScheme};
use serde_json::{Map, Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::auth::outside::jwt::Parts;
use crate::auth::outside::keys::{self, Key};

/// Why a key can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("no PEM block with a private key, a public key or a certificate")]
    Missing,
    /// It can't be read.
    #[error("{0}")]
    Damaged(String),
    /// It is of another kind.
    #[error("keys of tokens are RSA keys or on the curves P-256, P-384 and (to verify) P-521")]
    Unsupported,
}

/// A public key, and how it is told of.
#[derive(Debug, Clone)]
struct Public {
    key: Key,
    id: String,
    algorithm: &'static str,
    told: Value,
}

/// The keys.
pub struct SigningKeys {
    signer: Box<dyn Signer>,
    /// The first is that of the signer.
    public: Vec<Public>,
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = self.public.iter().map(|key| &key.id);
        f.debug_list().entries(ids).finish()
    }
}

/// Numbers of a key, base64.
fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Public {
    /// Reads a `SubjectPublicKeyInfo` (RFC 5280). The name of a key is the digest of that, as by the
    /// reference.
    fn read(info: &[u8]) -> Result<Self, KeyError> {
        let damaged = |error: &dyn std::fmt::Display| KeyError::Damaged(error.to_string());
        let (_, parsed) = SubjectPublicKeyInfo::from_der(info).map_err(|error| damaged(&error))?;
        let id = encoded(ring::digest::digest(&ring::digest::SHA256, info).as_ref());
        let mut told = Map::new();
        let algorithm = match parsed.parsed().map_err(|error| damaged(&error))? {
            PublicKey::RSA(key) => {
                let number = |bytes: &[u8]| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    encoded(bytes.get(zeros..).unwrap_or_default())
                };
                told.insert("kty".to_owned(), "RSA".into());
                told.insert("n".to_owned(), number(key.modulus).into());
                told.insert("e".to_owned(), number(key.exponent).into());
                "RS256"
            }
            PublicKey::EC(point) => {
                // An uncompressed point: 0x04, x, y.
                let point = point.data();
                let half = point.len() / 2;
                let (curve, algorithm) = match half {
                    32 => ("P-256", "ES256"),
                    48 => ("P-384", "ES384"),
                    66 => ("P-521", "ES512"),
                    _ => return Err(KeyError::Unsupported),
                };
                let part =
                    |range: std::ops::Range<usize>| encoded(point.get(range).unwrap_or_default());
                told.insert("kty".to_owned(), "EC".into());
                told.insert("crv".to_owned(), curve.into());
                told.insert("x".to_owned(), part(1..half + 1).into());
                told.insert("y".to_owned(), part(half + 1..point.len()).into());
                algorithm
            }
            _ => return Err(KeyError::Unsupported),
        };
        told.insert("use".to_owned(), "sig".into());
        told.insert("alg".to_owned(), algorithm.into());
        told.insert("kid".to_owned(), id.clone().into());
        let told = Value::Object(told);
        let key = keys::read(&told).ok_or(KeyError::Unsupported)?;
        Ok(Self {
            key,
            id,
            algorithm,
            told,
        })
    }
}

/// The public halves of all keys in a PEM text: private keys, public keys and certificates.
fn all(pem: &str) -> Result<Vec<Public>, KeyError> {
    let damaged = |error: &dyn std::fmt::Display| KeyError::Damaged(error.to_string());
    let mut found = Vec::new();
    for key in PrivateKeyDer::pem_slice_iter(pem.as_bytes()) {
        let key = key.map_err(|error| damaged(&error))?;
        let key = any_supported_type(&key).map_err(|error| damaged(&error))?;
        let public = key.public_key().ok_or(KeyError::Unsupported)?;
        found.push(Public::read(&public)?);
    }
    for key in SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes()) {
        found.push(Public::read(&key.map_err(|error| damaged(&error))?)?);
    }
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| damaged(&error))?;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&certificate)
            .map_err(|error| damaged(&error))?;
        found.push(Public::read(parsed.public_key().raw)?);
    }
    if found.is_empty() {
        return Err(KeyError::Missing);
    }
    Ok(found)
}

impl SigningKeys {
    /// Signs by the private key of a PEM text: RSA, or on P-256 or P-384, in any of the usual forms.
    ///
    /// # Errors
    /// It can't be read, or is of another kind.
    pub fn new(pem: &str) -> Result<Self, KeyError> {
        let private = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| KeyError::Damaged(error.to_string()))?;
        let key =
            any_supported_type(&private).map_err(|error| KeyError::Damaged(error.to_string()))?;
        let info = key.public_key().ok_or(KeyError::Unsupported)?;
        let public = Public::read(&info)?;
        let scheme = match (key.algorithm(), public.algorithm) {
            (SignatureAlgorithm::RSA, _) => SignatureScheme::RSA_PKCS1_SHA256,
            (_, "ES256") => SignatureScheme::ECDSA_NISTP256_SHA256,
            (_, "ES384") => SignatureScheme::ECDSA_NISTP384_SHA384,
            _ => return Err(KeyError::Unsupported),
        };
        let signer = key.choose_scheme(&[scheme]).ok_or(KeyError::Unsupported)?;
        Ok(Self {
            signer,
            public: vec![public],
        })
    }

    /// Knows the signatures of these too: of private keys, public keys and certificates in PEM.
    ///
    /// # Errors
    /// One can't be read, or is of another kind; or there is none.
    pub fn also(mut self, pem: &str) -> Result<Self, KeyError> {
        for key in all(pem)? {
            if self.public.iter().all(|known| known.id != key.id) {
                self.public.push(key);
            }
        }
        Ok(self)
    }

    pub(super) fn set(&self) -> Value {
        let keys: Vec<&Value> = self.public.iter().map(|key| &key.told).collect();
        json!({"keys": keys})
    }

    pub(super) fn algorithms(&self) -> Vec<&'static str> {
        let mut all: Vec<&str> = self.public.iter().map(|key| key.algorithm).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The compact form of a token that says this.
    pub(super) fn sign(&self, claims: &[u8]) -> Result<String, String> {
        let key = self.public.first().ok_or("there is no key")?;
        let header = json!({"alg": key.algorithm, "kid": key.id}).to_string();
        let signed = format!("{}.{}", encoded(header.as_bytes()), encoded(claims));
        let signature = self
            .signer
            .sign(signed.as_bytes())
            .map_err(|error| format!("a token can't be signed: {error}"))?;
        let signature = match key.algorithm {
            "ES256" => of_fixed_length(&signature, 32).ok_or("a token can't be signed")?,
            "ES384" => of_fixed_length(&signature, 48).ok_or("a token can't be signed")?,
            _ => signature,
        };
        Ok(format!("{signed}.{}", encoded(&signature)))
    }

    /// Is a token's algorithm that of any key?
    pub(super) fn know(&self, parts: &Parts<'_>) -> bool {
        self.public
            .iter()
            .any(|key| parts.algorithm() == key.algorithm)
    }

    /// Has any signed the token? One that names a key has to be of that one, if it is known.
    pub(super) fn have_signed(&self, parts: &Parts<'_>) -> bool {
        let named = |key: &&Public| key.id == parts.key_id();
        let signed = |key: &Public| {
            key.algorithm == parts.algorithm()
                && key
                    .key
                    .has_signed(key.algorithm, parts.signed(), parts.signature())
        };
        match self.public.iter().find(named) {
            Some(key) => signed(key),
            None => self.public.iter().any(signed),
        }
    }
}

/// The two numbers of a signature beside each other (RFC 7518, 3.4), of their ASN.1 sequence.
fn of_fixed_length(der: &[u8], length: usize) -> Option<Vec<u8>> {
    // Both are shorter than 128 bytes, so that each length is one byte.
    let mut rest = der.strip_prefix(&[0x30])?.split_first()?.1;
    let mut out = Vec::with_capacity(2 * length);
    for _ in 0..2 {
        let (size, after) = rest.strip_prefix(&[0x02])?.split_first()?;
        let number = after.get(..usize::from(*size))?;
        rest = after.get(usize::from(*size)..)?;
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = number.get(zeros..)?;
        out.resize(out.len() + length.checked_sub(number.len())?, 0);
        out.extend_from_slice(number);
    }
    rest.is_empty().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::outside::jwt::split;

    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> rcgen::KeyPair {
        rcgen::KeyPair::generate_for(algorithm).unwrap()
    }

    #[test]
    fn what_one_key_signs_is_known_to_those_that_know_it() {
        let first = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let second = pair(&rcgen::PKCS_ECDSA_P384_SHA384);
        let old = SigningKeys::new(&first.serialize_pem()).unwrap();
        let new = SigningKeys::new(&second.serialize_pem()).unwrap();
        assert_eq!(
            (old.algorithms(), new.algorithms()),
            (vec!["ES256"], vec!["ES384"])
        );
        // A key whose numbers begin with zeros is met once in some hundred signatures.
        for turn in 0..300 {
            let claims = format!("{{\"turn\":{turn}}}");
            for (keys, other) in [(&old, &new), (&new, &old)] {
                let token = keys.sign(claims.as_bytes()).unwrap();
                let parts = split(&token).unwrap();
                assert!(keys.have_signed(&parts), "{token}");
                assert!(!other.have_signed(&parts), "{token}");
            }
        }
        // The old one stays among the others, as a public key.
        let both = new.also(&first.public_key_pem()).unwrap();
        let both = both.also(&first.serialize_pem()).unwrap();
        assert_eq!(both.set()["keys"].as_array().map(Vec::len), Some(2));
        assert_eq!(both.algorithms(), ["ES256", "ES384"]);
        let token = old.sign(b"{}").unwrap();
        assert!(both.have_signed(&split(&token).unwrap()));
        let changed = format!("{}.{}", token.split('.').next().unwrap(), "e30.AAAA");
        assert!(!both.have_signed(&split(&changed).unwrap()));
    }

    #[test]
    fn keys_are_told_as_a_set() {
        let key = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let keys = SigningKeys::new(&key.serialize_pem()).unwrap();
        let told = &keys.set()["keys"][0];
        assert_eq!(told["kty"], "EC");
        assert_eq!(told["crv"], "P-256");
        let info = SubjectPublicKeyInfoDer::from_pem_slice(key.public_key_pem().as_bytes());
        let digest = ring::digest::digest(&ring::digest::SHA256, &info.unwrap());
        assert_eq!(told["kid"], encoded(digest.as_ref()));
    }

    #[test]
    fn what_is_no_key_is_said() {
        assert!(matches!(SigningKeys::new("x"), Err(KeyError::Damaged(_))));
        let key = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let keys = || SigningKeys::new(&key.serialize_pem()).unwrap();
        assert_eq!(keys().also("x").unwrap_err(), KeyError::Missing);
        let other = pair(&rcgen::PKCS_ED25519);
        assert_eq!(
            SigningKeys::new(&other.serialize_pem()).unwrap_err(),
            KeyError::Unsupported
        );
        let broken = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        assert!(matches!(keys().also(broken), Err(KeyError::Damaged(_))));
    }
}
