//! Public keys of requests and certificates: of what sort they are, and what they have signed.
//!
//! `ring` verifies all but the largest curve, for which there is a crate of its own. What Go's
//! `crypto/x509` can't read is malformed here too; MD5 and SHA-1 are no signatures.

use p521::ecdsa::signature::hazmat::PrehashVerifier as _;
use ring::digest;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use super::pem::PemError;

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";

/// What sort of key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Ed25519,
    P256,
    P384,
    P521,
    /// A curve that is known by name and not used.
    Curve(&'static str),
    /// RSA with that many bits, in whole bytes.
    Rsa(usize),
    Unknown,
}

/// Tells what sort of key it is.
///
/// # Errors
/// It claims to be one that is known, and is not.
pub(super) fn sort(key: &SubjectPublicKeyInfo<'_>) -> Result<Sort, PemError> {
    Ok(match key.algorithm.algorithm.to_id_string().as_str() {
        RSA => {
            let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
                return Err(PemError::Malformed);
            };
            let zeros = rsa.modulus.iter().take_while(|byte| **byte == 0).count();
            Sort::Rsa((rsa.modulus.len() - zeros) * 8)
        }
        ED25519 => Sort::Ed25519,
        EC => {
            let curve = key.algorithm.parameters.as_ref();
            let curve = curve.and_then(|curve| curve.as_oid().ok());
            let curve = curve.map(|curve| curve.to_id_string()).unwrap_or_default();
            match curve.as_str() {
                "1.2.840.10045.3.1.7" => Sort::P256,
                "1.3.132.0.34" => Sort::P384,
                "1.3.132.0.35" => Sort::P521,
                "1.3.132.0.33" => Sort::Curve("P-224"),
                _ => return Err(PemError::Malformed),
            }
        }
        _ => Sort::Unknown,
    })
}

/// Has the key signed this?
///
/// # Errors
/// No, or nobody knows.
pub(super) fn verify(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), PemError> {
    let sort = sort(key)?;
    let id = algorithm.algorithm.to_id_string();
    let point = &key.subject_public_key.data;
    if sort == Sort::P521 {
        let hash = match id.as_str() {
            "1.2.840.10045.4.3.3" => &digest::SHA384,
            "1.2.840.10045.4.3.4" => &digest::SHA512,
            _ => return Err(PemError::Algorithm),
        };
        let hash = digest::digest(hash, message);
        let known = p521::ecdsa::VerifyingKey::from_sec1_bytes(point);
        let given = p521::ecdsa::Signature::from_der(signature);
        let (Ok(known), Ok(given)) = (known, given) else {
            return Err(PemError::Signature);
        };
        return known
            .verify_prehash(hash.as_ref(), &given)
            .map_err(|_| PemError::Signature);
    }
    let how: &'static dyn VerificationAlgorithm = match (sort, id.as_str()) {
        (Sort::Rsa(_), "1.2.840.113549.1.1.11") => &signature::RSA_PKCS1_2048_8192_SHA256,
        (Sort::Rsa(_), "1.2.840.113549.1.1.12") => &signature::RSA_PKCS1_2048_8192_SHA384,
        (Sort::Rsa(_), "1.2.840.113549.1.1.13") => &signature::RSA_PKCS1_2048_8192_SHA512,
        (Sort::Rsa(_), "1.2.840.113549.1.1.10") => padded(algorithm)?,
        (Sort::P256, "1.2.840.10045.4.3.2") => &signature::ECDSA_P256_SHA256_ASN1,
        (Sort::P256, "1.2.840.10045.4.3.3") => &signature::ECDSA_P256_SHA384_ASN1,
        (Sort::P384, "1.2.840.10045.4.3.2") => &signature::ECDSA_P384_SHA256_ASN1,
        (Sort::P384, "1.2.840.10045.4.3.3") => &signature::ECDSA_P384_SHA384_ASN1,
        (Sort::Ed25519, ED25519) => &signature::ED25519,
        _ => return Err(PemError::Algorithm),
    };
    UnparsedPublicKey::new(how, point)
        .verify(message, signature)
        .map_err(|_| PemError::Signature)
}

/// How a signature with RSASSA-PSS is verified: by the hash that its parameters name.
fn padded(
    algorithm: &AlgorithmIdentifier<'_>,
) -> Result<&'static dyn VerificationAlgorithm, PemError> {
    let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) = SignatureAlgorithm::try_from(algorithm)
    else {
        return Err(PemError::Algorithm);
    };
    Ok(
        match parameters.hash_algorithm_oid().to_id_string().as_str() {
            "2.16.840.1.101.3.4.2.1" => &signature::RSA_PSS_2048_8192_SHA256,
            "2.16.840.1.101.3.4.2.2" => &signature::RSA_PSS_2048_8192_SHA384,
            "2.16.840.1.101.3.4.2.3" => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return Err(PemError::Algorithm),
        },
    )
}

/// Are two keys the same?
pub(super) fn same(one: &SubjectPublicKeyInfo<'_>, other: &SubjectPublicKeyInfo<'_>) -> bool {
    sort(one).ok() == sort(other).ok()
        && one.algorithm.algorithm == other.algorithm.algorithm
        && one.subject_public_key.data == other.subject_public_key.data
}
