//! The load generator's client: hyper's connections without a pool, over TLS, with bodies made
//! beforehand.
//!
//! It shares the processors with what it measures, so it does as little as it can: answers are
//! counted, and only kept where somebody reads them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes that are read from a connection at once. TLS alone asks for 4 KiB at a time.
const READ: usize = 64 << 10;

/// A server and how to talk to it.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// Which HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// One connection. Clones of an HTTP/2 connection share it.
pub(crate) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

fn config(ca: &str, identity: Option<(&str, &str)>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        )?,
        None => builder.with_no_client_auth(),
    })
}

impl Target {
    /// A server whose certificate is signed by `ca` (PEM), without credentials.
    pub(crate) fn anonymous(address: SocketAddr, ca: &str) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            tls: Arc::new(config(ca, None)?),
        })
    }

    /// The cluster of a kubeconfig that Evenkeel wrote: one value to a line.
    pub(crate) fn of_kubeconfig(path: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let value = |key: &str| -> anyhow::Result<String> {
            let encoded = text
                .lines()
                .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "))
                .with_context(|| format!("{}: no {key}", path.display()))?;
            Ok(String::from_utf8(STANDARD.decode(encoded.trim())?)?)
        };
        let ca = value("certificate-authority-data")?;
        let certificate = value("client-certificate-data")?;
        let key = value("client-key-data")?;
        Ok(Self {
            address,
            tls: Arc::new(config(&ca, Some((&certificate, &key)))?),
        })
    }

    /// Connects.
    pub(crate) async fn connect(&self, protocol: Protocol) -> anyhow::Result<Connection> {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = TokioIo::new(
            TlsConnector::from(Arc::new(tls))
                .connect(name, BufReader::with_capacity(READ, stream))
                .await?,
        );
        Ok(match protocol {
            Protocol::Http1 => {
                let (sender, driver) = http1::handshake(stream).await?;
                // It ends with its sender; what went wrong is told to the request under way.
                tokio::spawn(async move { driver.await.unwrap_or_default() });
                Connection::Http1(sender)
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .initial_stream_window_size(4 << 20)
                    .initial_connection_window_size(16 << 20);
                let (sender, driver) = builder.handshake(stream).await?;
                tokio::spawn(async move { driver.await.unwrap_or_default() });
                Connection::Http2(sender)
            }
        })
    }
}

impl Connection {
    /// Another user of the same connection, where the protocol allows that.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    /// Sends a request; the answer's body is still to be read.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Incoming)> {
        let request = Request::builder().method(method);
        let (parts, body) = match self {
            Self::Http1(sender) => {
                let request = request
                    .uri(path)
                    .header("host", "localhost")
                    .header("content-type", "application/json")
                    .header("accept", "application/json")
                    .body(Full::new(body))?;
                sender.ready().await?;
                sender.send_request(request).await?.into_parts()
            }
            Self::Http2(sender) => {
                let request = request
                    .uri(format!("https://localhost{path}"))
                    .header("content-type", "application/json")
                    .header("accept", "application/json")
                    .body(Full::new(body))?;
                sender.ready().await?;
                sender.send_request(request).await?.into_parts()
            }
        };
        Ok((parts.status, body))
    }

    /// Sends a request and reads the answer, keeping only its length in bytes.
    pub(crate) async fn count(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, usize)> {
        let (status, mut body) = self.send(method, path, body).await?;
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok((status, length))
    }

    /// Sends a request and keeps the answer.
    pub(crate) async fn read(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let (status, mut body) = self.send(method, path, body).await?;
        let mut out = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                out.extend_from_slice(data);
            }
        }
        Ok((status, out.freeze()))
    }
}
