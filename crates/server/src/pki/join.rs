//! What a machine needs that has no certificate yet: to know the cluster's authority by its hash,
//! and to ask for certificates of its own.
//!
//! The door sends its authority along with its certificate. Whoever knows the hash of the
//! authority's public key (as kubeadm writes it: `sha256:` and hex, of the SubjectPublicKeyInfo)
//! recognizes it there, and says nothing secret before that.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::request::pem_block;
use super::{LeafSpec, PkiError};

/// A server that does not shake hands within this time is none.
const WITHIN: Duration = Duration::from_secs(20);

fn hash(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let digest = ring::digest::digest(&ring::digest::SHA256, parsed.public_key().raw);
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(format!("sha256:{hex}"))
}

/// The hash of an authority's public key, by which others recognize it.
///
/// # Errors
/// It is no certificate in PEM.
pub fn key_hash(authority: &str) -> Result<String, PkiError> {
    let wrong = || PkiError::Tls("the authority is no certificate".to_owned());
    let (_, block) = parse_x509_pem(authority.as_bytes()).map_err(|_| wrong())?;
    hash(&block.contents).ok_or_else(wrong)
}

/// A request of one's own for a certificate: PEM of the request and of its key, which nobody else
/// has.
///
/// # Errors
/// A name is none.
pub fn ask(spec: &LeafSpec) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(spec.dns_names.clone())?;
    let addresses = spec.addresses.iter();
    params
        .subject_alt_names
        .extend(addresses.map(|it| SanType::IpAddress(*it)));
    let mut subject = DistinguishedName::new();
    for organization in &spec.organizations {
        subject.push(DnType::OrganizationName, organization.as_str());
    }
    subject.push(DnType::CommonName, spec.common_name.as_str());
    params.distinguished_name = subject;
    let request = params.serialize_request(&key)?.pem()?;
    Ok((request, key.serialize_pem()))
}

/// From when to when a certificate in PEM holds; `None` for what is none.
#[must_use]
pub fn lives(pem: &str) -> Option<(Timestamp, Timestamp)> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
    let parsed = block.parse_x509().ok()?;
    let at = |seconds: i64| Timestamp::from_second(seconds).ok();
    let validity = parsed.validity();
    Some((
        at(validity.not_before.timestamp())?,
        at(validity.not_after.timestamp())?,
    ))
}

/// Believes a server whose chain ends in an authority of one of these hashes, and keeps that.
#[derive(Debug)]
struct Pinned {
    hashes: Vec<String>,
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<Vec<u8>>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_known = |found: &&CertificateDer<'_>| {
            hash(found).is_some_and(|hash| self.hashes.contains(&hash))
        };
        let Some(authority) = between.iter().find(is_known) else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
        let answer = verifier.verify_server_cert(leaf, between, name, ocsp, now)?;
        *self.found.lock() = Some(authority.to_vec());
        Ok(answer)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Shakes hands with a server and answers the authority (PEM) behind it, if that has one of these
/// hashes.
///
/// # Errors
/// The server does not answer, or nothing that it shows has such a hash.
pub async fn authority(host: &str, port: u16, hashes: &[String]) -> Result<String, PkiError> {
    let wrong = |why: String| PkiError::Tls(format!("{host}:{port}: {why}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Arc::new(Pinned {
        hashes: hashes.iter().map(|hash| hash.to_lowercase()).collect(),
        provider: Arc::clone(&provider),
        found: Mutex::new(None),
    });
    let verifier: Arc<dyn ServerCertVerifier> = pinned.clone();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| wrong(error.to_string()))?;
    let shake = async {
        let stream = tokio::net::TcpStream::connect((host, port)).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.map(drop)
    };
    match tokio::time::timeout(WITHIN, shake).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.to_string().contains("UnknownIssuer") => {
            return Err(wrong(
                "this is not the cluster that was meant: it shows no authority with the hash that \
                 was given"
                    .to_owned(),
            ));
        }
        Ok(Err(error)) => return Err(wrong(error.to_string())),
        Err(_) => return Err(wrong("no answer".to_owned())),
    }
    let found = pinned.found.lock().take();
    let found = found.ok_or_else(|| wrong("it shows no certificate".to_owned()))?;
    Ok(pem_block("CERTIFICATE", &found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Leaf, Pki};

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn authority_of(name: &str) -> (tempfile::TempDir, Pki) {
        let home = tempfile::tempdir().unwrap();
        let pki = Pki::open(&home.path().join(name), now()).unwrap();
        (home, pki)
    }

    fn shown(pki: &Pki, root: &str) -> (CertificateDer<'static>, Vec<CertificateDer<'static>>) {
        let spec = LeafSpec {
            name: "door".to_owned(),
            common_name: "door".to_owned(),
            dns_names: vec!["localhost".to_owned()],
            server: true,
            ..LeafSpec::default()
        };
        let Leaf { certificate, .. } = pki.issue(&spec, now()).unwrap();
        let der = |pem: &str| {
            let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
            CertificateDer::from(block.contents)
        };
        (der(&certificate), vec![der(root)])
    }

    #[test]
    fn only_the_authority_that_was_meant_is_believed_and_only_for_its_own() {
        let ((_a, ours), (_b, theirs)) = (authority_of("a"), authority_of("b"));
        let hash = key_hash(ours.ca()).unwrap();
        assert!(hash.starts_with("sha256:") && hash.len() == 71, "{hash}");
        let pinned = |hash: &str| Pinned {
            hashes: vec![hash.to_owned()],
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            found: Mutex::new(None),
        };
        let seconds = u64::try_from(now().as_second()).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let ask = |pinned: &Pinned,
                   (leaf, between): &(CertificateDer<'_>, Vec<CertificateDer<'_>>),
                   name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            pinned
                .verify_server_cert(leaf, between, &name, &[], at)
                .is_ok()
        };
        let good = pinned(&hash);
        assert!(ask(&good, &shown(&ours, ours.ca()), "localhost"));
        assert!(good.found.lock().is_some());
        assert!(!ask(&pinned(&hash), &shown(&ours, ours.ca()), "elsewhere"));
        // Another's certificate with our authority beside it proves nothing.
        assert!(!ask(
            &pinned(&hash),
            &shown(&theirs, ours.ca()),
            "localhost"
        ));
        assert!(!ask(
            &pinned(&hash),
            &shown(&theirs, theirs.ca()),
            "localhost"
        ));
        let other = key_hash(theirs.ca()).unwrap();
        assert!(!ask(&pinned(&other), &shown(&ours, ours.ca()), "localhost"));
    }

    #[test]
    fn what_is_asked_for_is_what_is_signed() {
        let (_home, pki) = authority_of("a");
        let spec = LeafSpec {
            common_name: "system:node:n".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            dns_names: vec!["n".to_owned()],
            addresses: vec!["192.0.2.1".parse().unwrap()],
            ..LeafSpec::default()
        };
        let (request, key) = ask(&spec).unwrap();
        assert!(key.contains("PRIVATE KEY"));
        let usages = ["digital signature".to_owned(), "server auth".to_owned()];
        let life = jiff::SignedDuration::from_hours(24);
        let signed = pki
            .sign_request(request.as_bytes(), &usages, life, now())
            .unwrap();
        let (_, block) = parse_x509_pem(signed.as_bytes()).unwrap();
        let subject = block.parse_x509().unwrap().subject().to_string();
        assert!(
            subject.contains("O=system:nodes") && subject.contains("CN=system:node:n"),
            "{subject}"
        );
        let (from, to) = lives(&signed).unwrap();
        assert!(from <= now() && to > now());
        assert_eq!(lives("nothing"), None);
    }
}
