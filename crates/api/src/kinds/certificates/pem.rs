//! Reading what signing requests carry: PEM in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::keys;

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

/// A block of a PEM text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What it says it is: `CERTIFICATE`.
    pub label: String,
    /// Has it lines of the form `Name: value` before its content?
    pub has_headers: bool,
    /// What is in it.
    pub content: Vec<u8>,
}

impl Block {
    /// The block as text, without what it had beside its content.
    #[must_use]
    pub fn to_text(&self) -> String {
        const WIDTH: usize = 64;
        let body = STANDARD.encode(&self.content);
        let mut text = format!("-----BEGIN {}-----\n", self.label);
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(WIDTH));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str(&format!("-----END {}-----\n", self.label));
        text
    }
}

/// The blocks of a PEM text. What is between them, and what only looks like one, is passed over.
#[must_use]
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("-----BEGIN ") {
        let begins_line = at == 0 || rest.as_bytes()[at - 1] == b'\n';
        let after = &rest[at + "-----BEGIN ".len()..];
        rest = after;
        if !begins_line {
            continue;
        }
        let Some((label, body)) = after.split_once("-----") else {
            break;
        };
        let Some((body, behind)) = body.split_once(&format!("-----END {label}-----")) else {
            continue;
        };
        let header = |line: &&str| line.contains(':');
        let lines = || body.lines().map(str::trim).filter(|line| !line.is_empty());
        let coded: String = lines()
            .skip_while(header)
            .flat_map(str::split_whitespace)
            .collect();
        if let Ok(content) = STANDARD.decode(coded) {
            found.push(Block {
                label: label.to_owned(),
                has_headers: lines().next().is_some_and(|line| line.contains(':')),
                content,
            });
            rest = behind;
        }
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
    let der = match blocks.into_iter().next() {
        Some(block) if block.label == "CERTIFICATE REQUEST" => block.content,
        _ => return Err(PemError::NoRequest),
    };
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| PemError::Malformed)?;
    let info = &request.certification_request_info;
    keys::verify(
        &info.subject_pki,
        &request.signature_algorithm,
        info.raw,
        &request.signature_value.data,
    )?;
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

/// Checks issued certificates (base64 of PEM).
///
/// # Errors
/// There is none, or one can't be read, or something else is among them.
pub fn certificates(base64: &str) -> Result<(), PemError> {
    let blocks = blocks(&decoded(base64));
    if blocks.is_empty() {
        return Err(PemError::NoCertificate);
    }
    for block in blocks {
        if block.label != "CERTIFICATE" {
            return Err(PemError::OtherBlock);
        }
        X509Certificate::from_der(&block.content).map_err(|_| PemError::BadCertificate)?;
    }
    Ok(())
}
