//! Key pairs for pods' certificates, and the empty requests that prove that somebody has them.
//!
//! `ring` makes keys of most sorts; those of RSA and of the largest curve come from crates of their
//! own. A request says nothing but its key, so the few structures around it are written here.

use evenkeel_api::kinds::certificates::pem::Block;
use p521::ecdsa::signature::RandomizedSigner as _;
use p521::ecdsa::{SigningKey, VerifyingKey};
use p521::elliptic_curve::rand_core::OsRng;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey as _;

const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// What is tagged 0 and 1 in its structure.
const FIRST: u8 = 0xa0;
const SECOND: u8 = 0xa1;

// Object identifiers, with their tags.
const EC_KEY: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];
const P521: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x23];
const ECDSA_SHA256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_SHA384: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const ECDSA_SHA512: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];
const RSA_KEY: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const RSA_SHA256: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];
const NULL: &[u8] = &[5, 0];

/// A new key and a request for it.
pub(super) struct Pair {
    /// PKCS #8, PEM.
    pub key: String,
    /// PKCS #10, DER.
    pub request: Vec<u8>,
}

/// A structure of these parts.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    let bytes = len.to_be_bytes();
    let short = bytes.iter().skip_while(|byte| **byte == 0);
    if len >= 0x80 {
        let count = u8::try_from(short.clone().count()).unwrap_or(u8::MAX);
        out.push(0x80 | count);
    }
    if len == 0 {
        out.push(0);
    }
    out.extend(short);
    out.extend(parts.iter().flat_map(|part| part.iter()));
    out
}

/// The request for a public key, without the signature.
fn unsigned(algorithm: &[&[u8]], public: &[u8]) -> Vec<u8> {
    let version = der(INTEGER, &[&[0]]);
    let nobody = der(SEQUENCE, &[]);
    let algorithm = der(SEQUENCE, algorithm);
    let key = der(SEQUENCE, &[&algorithm, &der(BITS, &[&[0], public])]);
    der(SEQUENCE, &[&version, &nobody, &key, &der(FIRST, &[])])
}

fn signed(unsigned: &[u8], algorithm: &[&[u8]], signature: &[u8]) -> Vec<u8> {
    let algorithm = der(SEQUENCE, algorithm);
    let signature = der(BITS, &[&[0], signature]);
    der(SEQUENCE, &[unsigned, &algorithm, &signature])
}

fn private(algorithm: &[&[u8]], key: &[u8]) -> Vec<u8> {
    let version = der(INTEGER, &[&[0]]);
    let algorithm = der(SEQUENCE, algorithm);
    der(SEQUENCE, &[&version, &algorithm, &der(OCTETS, &[key])])
}

fn pair(pkcs8: &[u8], request: Vec<u8>) -> Pair {
    let block = Block {
        label: "PRIVATE KEY".to_owned(),
        has_headers: false,
        content: pkcs8.to_vec(),
    };
    Pair {
        key: block.to_text(),
        request,
    }
}

/// Makes a key of a type that pods may ask for. RSA takes seconds.
///
/// # Errors
/// The type is not known, or no key could be made.
pub(super) fn generate(key_type: &str) -> Result<Pair, String> {
    match key_type {
        "RSA3072" => rsa(3072),
        "RSA4096" => rsa(4096),
        "ECDSAP256" => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING, P256, ECDSA_SHA256),
        "ECDSAP384" => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING, P384, ECDSA_SHA384),
        "ECDSAP521" => largest(),
        "ED25519" => ed25519(),
        other => Err(format!("unknown key type {other:?}")),
    }
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn rsa(bits: usize) -> Result<Pair, String> {
    let key = RsaPrivateKey::new(&mut OsRng, bits).map_err(told)?;
    let pkcs8 = key.to_pkcs8_der().map_err(told)?;
    let key = RsaKeyPair::from_pkcs8(pkcs8.as_bytes()).map_err(told)?;
    let request = unsigned(&[RSA_KEY, NULL], key.public_key().as_ref());
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        &request,
        &mut signature,
    )
    .map_err(told)?;
    let request = signed(&request, &[RSA_SHA256, NULL], &signature);
    Ok(pair(pkcs8.as_bytes(), request))
}

fn ecdsa(
    how: &'static EcdsaSigningAlgorithm,
    curve: &[u8],
    signature: &[u8],
) -> Result<Pair, String> {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(how, &random).map_err(told)?;
    let key = EcdsaKeyPair::from_pkcs8(how, pkcs8.as_ref(), &random).map_err(told)?;
    let request = unsigned(&[EC_KEY, curve], key.public_key().as_ref());
    let proof = key.sign(&random, &request).map_err(told)?;
    let request = signed(&request, &[signature], proof.as_ref());
    Ok(pair(pkcs8.as_ref(), request))
}

fn largest() -> Result<Pair, String> {
    let key = SigningKey::random(&mut OsRng);
    let public = VerifyingKey::from(&key).to_encoded_point(false);
    let request = unsigned(&[EC_KEY, P521], public.as_bytes());
    let proof: p521::ecdsa::Signature =
        key.try_sign_with_rng(&mut OsRng, &request).map_err(told)?;
    let request = signed(&request, &[ECDSA_SHA512], proof.to_der().as_bytes());
    let inner = der(
        SEQUENCE,
        &[
            &der(INTEGER, &[&[1]]),
            &der(OCTETS, &[&key.to_bytes()]),
            &der(SECOND, &[&der(BITS, &[&[0], public.as_bytes()])]),
        ],
    );
    Ok(pair(&private(&[EC_KEY, P521], &inner), request))
}

/// Not as `ring` writes it, which is the second version of PKCS #8 that few others read.
fn ed25519() -> Result<Pair, String> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(told)?;
    let key = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(told)?;
    let request = unsigned(&[ED25519], key.public_key().as_ref());
    let proof = key.sign(&request);
    let request = signed(&request, &[ED25519], proof.as_ref());
    let inner = der(OCTETS, &[&seed]);
    Ok(pair(&private(&[ED25519], &inner), request))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use evenkeel_api::kinds::certificates::pem;
    use evenkeel_api::row::Rows;
    use serde_json::json;

    use super::*;

    /// What the API server says of a request.
    fn judged(request: &[u8]) -> Vec<String> {
        let rows = Rows::builtin();
        let row = rows
            .by_kind("certificates.k8s.io", "v1", "PodCertificateRequest")
            .expect("a kind");
        let object = json!({"spec": {"signerName": "example.com/a", "podName": "p", "podUID": "u",
            "serviceAccountName": "s", "serviceAccountUID": "u", "nodeName": "n", "nodeUID": "u",
            "maxExpirationSeconds": 86400, "stubPKCS10Request": STANDARD.encode(request)}});
        let wrong = row.strategy.validate(&object);
        wrong.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn requests_of_every_sort_of_key_are_good() {
        for key_type in ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072"] {
            let made = generate(key_type).expect(key_type);
            assert_eq!(judged(&made.request), Vec::<String>::new(), "{key_type}");
            let [block] = &pem::blocks(&made.key)[..] else {
                panic!("{}", made.key);
            };
            assert_eq!(block.label, "PRIVATE KEY");
            let random = SystemRandom::new();
            let read = match key_type {
                "ECDSAP256" => {
                    let how = &ECDSA_P256_SHA256_ASN1_SIGNING;
                    EcdsaKeyPair::from_pkcs8(how, &block.content, &random).is_ok()
                }
                "ECDSAP384" => {
                    let how = &ECDSA_P384_SHA384_ASN1_SIGNING;
                    EcdsaKeyPair::from_pkcs8(how, &block.content, &random).is_ok()
                }
                "ED25519" => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&block.content).is_ok(),
                "RSA3072" => RsaKeyPair::from_pkcs8(&block.content).is_ok(),
                // Nothing here reads such a key.
                _ => block.content.len() == 241,
            };
            assert!(read, "{key_type} {}", block.content.len());
        }
        assert_eq!(
            generate("RSA2048").err().as_deref(),
            Some("unknown key type \"RSA2048\"")
        );
    }
}
