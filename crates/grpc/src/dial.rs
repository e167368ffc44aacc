//! Where a server is, and how it is reached.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where a server is.
#[derive(Clone)]
pub enum Target {
    /// `http://HOST:PORT`.
    Tcp {
        /// `HOST:PORT`.
        authority: String,
    },
    /// `https://HOST:PORT`.
    Tls {
        /// `HOST:PORT`.
        authority: String,
        /// Whom to trust and how to show oneself.
        config: Arc<rustls::ClientConfig>,
    },
    /// `unix:///PATH`; a path that begins with `@` is an abstract name.
    Unix {
        /// The socket.
        path: PathBuf,
    },
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_string())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { authority } => write!(f, "http://{authority}"),
            Self::Tls { authority, .. } => write!(f, "https://{authority}"),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Target {
    /// Reads `http://…`, `https://…` (with `tls`) or `unix://…`.
    ///
    /// # Errors
    /// What is wrong with the address, for people.
    pub fn parse(text: &str, tls: Option<&Arc<rustls::ClientConfig>>) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self::Unix { path: path.into() });
        }
        let wrong = |why: &str| format!("{text:?}: {why}");
        let uri: http::Uri = text.parse().map_err(|_| wrong("not an address"))?;
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        let port = uri.port_u16().ok_or_else(|| wrong("it has no port"))?;
        if uri.path().len() > 1 {
            return Err(wrong("it has a path"));
        }
        let authority = format!("{host}:{port}");
        match (uri.scheme_str(), tls) {
            (Some("http"), _) => Ok(Self::Tcp { authority }),
            (Some("https"), Some(config)) => Ok(Self::Tls {
                authority,
                config: Arc::clone(config),
            }),
            (Some("https"), None) => Err(wrong("a certificate authority is needed for https")),
            _ => Err(wrong("it must begin with http://, https:// or unix://")),
        }
    }

    /// What requests name as their authority.
    pub(crate) fn authority(&self) -> &str {
        match self {
            Self::Tcp { authority } | Self::Tls { authority, .. } => authority,
            Self::Unix { .. } => "localhost",
        }
    }

    pub(crate) async fn dial(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp { authority } => Ok(Socket::Tcp(tcp(authority).await?)),
            Self::Tls { authority, config } => {
                let host = authority.rsplit_once(':').map_or("", |(host, _)| host);
                let host = host.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name, tcp(authority).await?).await?;
                Ok(Socket::Tls(Box::new(stream)))
            }
            Self::Unix { path } => {
                let text = path.to_string_lossy();
                let stream = match text.strip_prefix('@') {
                    Some(name) => {
                        use std::os::linux::net::SocketAddrExt as _;
                        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                        let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
                        stream.set_nonblocking(true)?;
                        UnixStream::from_std(stream)?
                    }
                    None => UnixStream::connect(path).await?,
                };
                Ok(Socket::Unix(stream))
            }
        }
    }
}

async fn tcp(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The files that TLS needs, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of those who sign servers.
    pub ca: Option<PathBuf>,
    /// Our own certificate, with its chain.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Reads the files; `None` when no authority is named.
///
/// # Errors
/// What is wrong with which file, for people.
pub fn tls_config(files: &TlsFiles) -> Result<Option<Arc<rustls::ClientConfig>>, String> {
    let Some(ca) = &files.ca else {
        return match (&files.cert, &files.key) {
            (None, None) => Ok(None),
            _ => Err("a client certificate needs a certificate authority beside it".to_owned()),
        };
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", ca.display()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("{}: {error}", key.display()))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| format!("{}: {error}", cert.display()))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("a client certificate and its key belong together".to_owned()),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(wrong)?
        .collect::<Result<_, _>>()
        .map_err(wrong)?;
    if found.is_empty() {
        return Err(format!("{}: no certificate in it", path.display()));
    }
    Ok(found)
}

/// A connection of any kind.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
