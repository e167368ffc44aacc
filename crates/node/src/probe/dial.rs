//! Connections from the host to a pod: plain and TLS, with Go's words for what goes wrong.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::authority;
use crate::config::NodeError;

/// Opens connections for probes and hooks.
#[derive(Clone)]
pub struct Dialers {
    tls: TlsConnector,
}

impl std::fmt::Debug for Dialers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialers").finish_non_exhaustive()
    }
}

/// A connection of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why no connection came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DialError {
    /// `dial tcp 10.0.0.1:80: connect: connection refused`
    pub(super) text: String,
    /// Nobody listens there.
    pub(super) refused: bool,
}

impl Dialers {
    /// Prepares TLS.
    ///
    /// # Errors
    /// When the crypto provider does not know TLS.
    pub fn new() -> Result<Self, NodeError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| NodeError::Setup(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified { provider }))
            .with_no_client_auth();
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    pub(super) async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| DialError {
                text: format!(
                    "dial tcp {}: connect: {}",
                    authority(host, port),
                    errno(&error)
                ),
                refused: error.kind() == io::ErrorKind::ConnectionRefused,
            })?;
        stream.set_nodelay(true).map_err(|error| DialError {
            text: format!("dial tcp {}: {}", authority(host, port), errno(&error)),
            refused: false,
        })?;
        Ok(stream)
    }

    pub(super) async fn tls(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<Box<dyn Stream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = self
            .tls
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Box::new(stream))
    }
}

/// An error as Go's `syscall.Errno` prints it.
pub(super) fn errno(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// Takes any certificate: a probe asks whether the program answers, not who it is, and pods have
/// no names that a certificate could carry. The signature is still checked.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
