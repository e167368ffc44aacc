//! Reading what signing requests carry: PEM in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why it could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Another block, or none.
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NoRequest,
    /// The block does not hold a PKCS #10 request.
    #[error("asn1: structure error: malformed certificate request")]
    Malformed,
    /// An algorithm that is not known here.
    #[error("x509: cannot verify signature: algorithm unimplemented")]
    Algorithm,
    /// The request was not signed with its key.
    #[error("x509: certificate request signature does not verify")]
    Signature,
    /// No certificate.
    #[error("must contain at least one CERTIFICATE PEM block")]
    NoCertificate,
    /// Something else than a certificate.
    #[error("only CERTIFICATE PEM blocks are allowed")]
    OtherBlock,
    /// A certificate that can't be read.
    #[error("x509: malformed certificate")]
    BadCertificate,
}

/// The blocks of a PEM text: label and content.
fn blocks(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((label, after)) = after.split_once("-----") else {
            break;
        };
        let Some((body, after)) = after.split_once(&format!("-----END {label}-----")) else {
            break;
        };
        let body: String = body.split_whitespace().collect();
        if let Ok(content) = STANDARD.decode(body) {
            found.push((label.to_owned(), content));
        }
        rest = after;
    }
    found
}

fn decoded(base64: &str) -> String {
    let bytes = STANDARD.decode(base64).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a signing request asks to be certified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SigningRequest {
    /// The request in DER.
    pub der: Vec<u8>,
    /// The common name.
    pub common_name: String,
    /// The organizations: groups, in clients' certificates.
    pub organizations: Vec<String>,
}

/// Reads a request (base64 of PEM) and checks that it is signed with its own key.
///
/// # Errors
/// It is none, or its signature is wrong.
pub fn signing_request(base64: &str) -> Result<SigningRequest, PemError> {
    let blocks = blocks(&decoded(base64));
    let der = match blocks.first() {
        Some((label, der)) if label == "CERTIFICATE REQUEST" => der.clone(),
        _ => return Err(PemError::NoRequest),
    };
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| PemError::Malformed)?;
    let info = &request.certification_request_info;
    let algorithm = algorithm(
        &request.signature_algorithm.algorithm.to_id_string(),
        info.subject_pki.raw.len(),
    )?;
    UnparsedPublicKey::new(algorithm, &info.subject_pki.subject_public_key.data)
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| PemError::Signature)?;
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value.as_str().unwrap_or_default().to_owned()
    };
    let common_name = info
        .subject
        .iter_common_name()
        .next()
        .map(text)
        .unwrap_or_default();
    let organizations = info.subject.iter_organization().map(text).collect();
    Ok(SigningRequest {
        common_name,
        organizations,
        der: der.clone(),
    })
}

/// How a signature is verified. Keys on the larger curve are told by their length.
fn algorithm(id: &str, key_len: usize) -> Result<&'static dyn VerificationAlgorithm, PemError> {
    const LARGER_CURVE: usize = 100;
    Ok(match id {
        "1.2.840.113549.1.1.11" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "1.2.840.113549.1.1.12" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "1.2.840.113549.1.1.13" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "1.2.840.10045.4.3.2" if key_len > LARGER_CURVE => &signature::ECDSA_P384_SHA256_ASN1,
        "1.2.840.10045.4.3.2" => &signature::ECDSA_P256_SHA256_ASN1,
        "1.2.840.10045.4.3.3" if key_len > LARGER_CURVE => &signature::ECDSA_P384_SHA384_ASN1,
        "1.2.840.10045.4.3.3" => &signature::ECDSA_P256_SHA384_ASN1,
        "1.3.101.112" => &signature::ED25519,
        _ => return Err(PemError::Algorithm),
    })
}

/// Checks issued certificates (base64 of PEM).
///
/// # Errors
/// There is none, or one can't be read, or something else is among them.
pub fn certificates(base64: &str) -> Result<(), PemError> {
    let blocks = blocks(&decoded(base64));
    if blocks.is_empty() {
        return Err(PemError::NoCertificate);
    }
    for (label, der) in blocks {
        if label != "CERTIFICATE" {
            return Err(PemError::OtherBlock);
        }
        X509Certificate::from_der(&der).map_err(|_| PemError::BadCertificate)?;
    }
    Ok(())
}
