//! Whom to believe to be a webhook: the configuration's CA bundle, or the system's roots.
//!
//! A certificate that stands in the bundle itself is believed as it is, although it may be an
//! authority by its own words: most who sign their own do so, and the reference accepts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore};
use rustls::{Error, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Where Debian, Alpine, Fedora and SUSE keep the roots that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS to a webhook that proves itself by a CA bundle (base64 of PEM, as in the configuration);
/// an empty one stands for the system's roots.
///
/// # Errors
/// The bundle is unreadable.
pub(super) fn tls(bundle: &str, oddities: &Arc<Oddities>) -> Result<Arc<ClientConfig>, String> {
    let pem = STANDARD
        .decode(bundle)
        .map_err(|error| format!("illegal base64 data: {error}"))?;
    build(&Trust::Bundle(pem), None, Arc::clone(oddities))
}

/// How often certificates were refused for what was given up long ago.
#[derive(Debug, Default)]
pub(super) struct Oddities {
    /// The server is named by the common name alone.
    pub(super) without_names: AtomicU64,
    /// Signed over SHA-1.
    pub(super) with_sha1: AtomicU64,
}

impl Oddities {
    /// Looks at a chain that was refused.
    fn note(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) {
        const SHA1: [&str; 2] = ["1.2.840.113549.1.1.5", "1.2.840.10045.4.1"];
        if let Ok((_, parsed)) = X509Certificate::from_der(leaf) {
            let server = name.to_str();
            let common = parsed.subject().iter_common_name();
            let mut common = common.filter_map(|name| name.as_str().ok());
            let nameless = matches!(parsed.subject_alternative_name(), Ok(None));
            if nameless && common.any(|common| common.eq_ignore_ascii_case(&server)) {
                self.without_names.fetch_add(1, Ordering::Relaxed);
            }
        }
        let weak = std::iter::once(leaf).chain(others).any(|certificate| {
            X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
                let algorithm = parsed.signature_algorithm.algorithm.to_id_string();
                SHA1.contains(&algorithm.as_str()) && parsed.issuer() != parsed.subject()
            })
        });
        if weak {
            self.with_sha1.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whom to believe.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// Whoever these certificates (PEM) vouch for; where there are none, the system's roots.
    Bundle(Vec<u8>),
    /// Everybody: somebody has asked for that.
    Anybody,
}

/// TLS to somebody, who is shown a certificate where there is one.
///
/// # Errors
/// The bundle is unreadable.
pub(crate) fn config(
    trust: &Trust,
    shown: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<Arc<ClientConfig>, String> {
    build(trust, shown, Arc::default())
}

fn build(
    trust: &Trust,
    shown: Option<Arc<dyn ResolvesClientCert>>,
    oddities: Arc<Oddities>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Bundle(pem) => Arc::new(verifier(pem, &provider, oddities)?),
        Trust::Anybody => Arc::new(Anybody(Arc::clone(&provider))),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(shown),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn verifier(
    bundle: &[u8],
    provider: &Arc<CryptoProvider>,
    oddities: Arc<Oddities>,
) -> Result<Verifier, String> {
    let pem = if bundle.is_empty() {
        SYSTEM_ROOTS
            .iter()
            .find_map(|path| std::fs::read(path).ok())
            .unwrap_or_default()
    } else {
        bundle.to_vec()
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .filter_map(Result::ok)
        .collect();
    if certificates.is_empty() {
        return Err(
            "unable to load root certificates: unable to parse bytes as PEM block".to_owned(),
        );
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    let chains = if roots.is_empty() {
        None
    } else {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .ok()
    };
    Ok(Verifier {
        known: certificates,
        chains,
        provider: Arc::clone(provider),
        oddities,
    })
}

/// Believes every certificate; that whoever shows one has its key is checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct Verifier {
    known: Vec<CertificateDer<'static>>,
    chains: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    oddities: Arc<Oddities>,
}

impl Verifier {
    /// A certificate that is in the bundle needs only to be about this server and in its time.
    fn verify_known(
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = if self.known.iter().any(|known| known == end_entity) {
            Self::verify_known(end_entity, server_name, now)
        } else {
            let none = Error::InvalidCertificate(CertificateError::UnknownIssuer);
            self.chains.as_ref().ok_or(none).and_then(|chains| {
                chains.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                )
            })
        };
        if verified.is_err() {
            self.oddities.note(end_entity, intermediates, server_name);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A failed handshake in the words of the reference's TLS.
pub(super) fn handshake_error(error: &std::io::Error, server: &str) -> String {
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                "EOF".to_owned()
            }
            _ => error.to_string(),
        };
    };
    let why = match tls {
        Error::InvalidCertificate(why) => why,
        Error::InvalidMessage(_) => {
            return "http: server gave HTTP response to HTTPS client".to_owned();
        }
        Error::AlertReceived(alert) => return format!("remote error: tls: {alert:?}"),
        other => return format!("tls: {other}"),
    };
    let why = match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired
        | CertificateError::NotValidYet
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYetContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::NotValidForName => {
            format!("certificate is not valid for any names, but wanted to match {server}")
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented
                .iter()
                .map(|name| {
                    let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
                    inner.trim_end_matches(')').trim_matches('"')
                })
                .collect();
            if names.is_empty() {
                format!("certificate is not valid for any names, but wanted to match {server}")
            } else {
                format!(
                    "certificate is valid for {}, not {server}",
                    names.join(", ")
                )
            }
        }
        other => format!("{other:?}"),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}
