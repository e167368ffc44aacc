//! One request to a registry: connection, challenge, redirects.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::auth::{self, Challenge};

/// Debian's bundle, kept by ca-certificates.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte for this long a transfer counts as broken.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("{0:?} is not a URL")]
    Url(String),
    #[error("dial tcp: lookup {0}: no such host")]
    NoSuchHost(String),
    #[error("dial tcp {host}: {reason}")]
    Connect { host: String, reason: String },
    #[error("tls to {host}: {reason}")]
    Tls { host: String, reason: String },
    #[error("GET {url}: {reason}")]
    Transfer { url: String, reason: String },
    #[error("the transfer ended early")]
    Short,
    #[error("GET {0}: too many redirects")]
    Redirects(String),
    #[error("GET {url}: the answer is longer than {limit} bytes")]
    TooLong { url: String, limit: usize },
    #[error("failed to fetch a token from {url}: {reason}")]
    Token { url: String, reason: String },
}

/// A registry's base URL with what is needed to speak to it.
#[derive(Debug)]
pub(super) struct Endpoint {
    base: Uri,
    prefix: String,
    pub(super) auth: auth::State,
    ca_file: PathBuf,
    tls: OnceLock<Arc<rustls::ClientConfig>>,
}

/// An answer whose body is still to be read.
pub(super) struct Answer {
    pub(super) url: String,
    response: hyper::Response<Incoming>,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        Some(self.response.headers().get(name)?.to_str().ok()?.to_owned())
    }

    /// The next bytes of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, RequestError> {
        let broken = |reason: String| RequestError::Transfer {
            url: self.url.clone(),
            reason,
        };
        loop {
            let frame = tokio::time::timeout(IDLE_TIMEOUT, self.response.frame())
                .await
                .map_err(|_| broken("no data arrives".to_owned()))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, at most `limit` bytes.
    pub(super) async fn bytes(&mut self, limit: usize) -> Result<Vec<u8>, RequestError> {
        let mut out = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if out.len() + chunk.len() > limit {
                return Err(RequestError::TooLong {
                    url: self.url.clone(),
                    limit,
                });
            }
            out.extend_from_slice(&chunk);
        }
        Ok(out)
    }

    /// What a registry's error body says, ready to be appended.
    pub(super) async fn error_text(&mut self) -> String {
        let Ok(body) = self.bytes(64 << 10).await else {
            return String::new();
        };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&body) else {
            return String::new();
        };
        let first = &value["errors"][0];
        match (first["code"].as_str(), first["message"].as_str()) {
            (Some(code), Some(message)) => format!(": {}: {message}", code.to_lowercase()),
            _ => String::new(),
        }
    }
}

impl Endpoint {
    /// An endpoint at `http(s)://host[:port][/prefix]`.
    pub(super) fn new(base: &str, ca_file: Option<PathBuf>) -> Result<Self, RequestError> {
        let wrong = || RequestError::Url(base.to_owned());
        let uri: Uri = base.trim_end_matches('/').parse().map_err(|_| wrong())?;
        if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong());
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        // Mirrors are often given with the API's own prefix.
        let prefix = prefix
            .strip_suffix("/v2")
            .map(str::to_owned)
            .unwrap_or(prefix);
        Ok(Self {
            prefix,
            base: uri,
            auth: auth::State::default(),
            ca_file: ca_file.unwrap_or_else(|| PathBuf::from(SYSTEM_ROOTS)),
            tls: OnceLock::new(),
        })
    }

    /// Host with port, where given.
    pub(super) fn host(&self) -> &str {
        self.base
            .authority()
            .map_or("", |authority| authority.as_str())
    }

    /// GET below the base, answering one challenge and following redirects.
    pub(super) async fn get(
        &self,
        path: &str,
        repository: &str,
        headers: HeaderMap,
    ) -> Result<Answer, RequestError> {
        let scheme = self.base.scheme_str().unwrap_or("https");
        let url = format!("{scheme}://{}{}{path}", self.host(), self.prefix);
        let answer = self.follow(&url, &headers, self.auth.header()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenges: Vec<Challenge> = answer
            .response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| auth::challenge(value.to_str().ok()?))
            .collect();
        let Some(header) = self.answer_challenge(&challenges, repository).await? else {
            return Ok(answer);
        };
        self.auth.set(header.clone());
        self.follow(&url, &headers, Some(header)).await
    }

    async fn answer_challenge(
        &self,
        challenges: &[Challenge],
        repository: &str,
    ) -> Result<Option<String>, RequestError> {
        for challenge in challenges {
            match challenge {
                Challenge::Basic => {
                    if let Some(header) = self.auth.basic() {
                        return Ok(Some(header));
                    }
                }
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                } => {
                    let url = auth::token_url(realm, service, scope, repository);
                    return self.token(&url).await.map(Some);
                }
            }
        }
        Ok(None)
    }

    async fn token(&self, url: &str) -> Result<String, RequestError> {
        #[derive(serde::Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let failed = |reason: String| RequestError::Token {
            url: url.to_owned(),
            reason,
        };
        let mut answer = self
            .follow(url, &HeaderMap::new(), self.auth.basic())
            .await?;
        if !answer.status().is_success() {
            let detail = answer.error_text().await;
            return Err(failed(format!("{}{detail}", answer.status())));
        }
        let body = answer.bytes(1 << 20).await?;
        let token: Token =
            serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
        let token = if token.token.is_empty() {
            token.access_token
        } else {
            token.token
        };
        Ok(format!("Bearer {token}"))
    }

    /// GET, through redirects. Authorization goes to the first host only.
    async fn follow(
        &self,
        url: &str,
        headers: &HeaderMap,
        authorization: Option<String>,
    ) -> Result<Answer, RequestError> {
        let mut url = url.to_owned();
        let first = host_of(&url)?;
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = headers.clone();
            if let Some(value) = &authorization
                && host_of(&url)? == first
            {
                let mut value = HeaderValue::from_str(value)
                    .map_err(|_| RequestError::Url("credentials".to_owned()))?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            let answer = self.once(&url, headers).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let target = answer
                .response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| RequestError::Url("a redirect without a place".to_owned()))?;
            url = if target.starts_with('/') {
                let (scheme, _) = url.split_once("://").unwrap_or(("https", ""));
                format!("{scheme}://{}{target}", host_of(&url)?)
            } else {
                target.to_owned()
            };
        }
        Err(RequestError::Redirects(url))
    }

    /// One request on a connection of its own: a pull makes few, and a broken one must not
    /// disturb the others.
    async fn once(&self, url: &str, headers: HeaderMap) -> Result<Answer, RequestError> {
        let wrong = || RequestError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?.clone();
        let host = authority.host().to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = authority
            .port_u16()
            .unwrap_or(if secure { 443 } else { 80 });
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let stream = connect(&bare, port).await?;
        let broken = |error: hyper::Error| RequestError::Transfer {
            url: url.to_owned(),
            reason: error.to_string(),
        };
        let path = uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        let mut request = Request::get(path)
            .body(Empty::<Bytes>::new())
            .map_err(|_| wrong())?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(
            HOST,
            HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?,
        );
        request.headers_mut().insert(
            "user-agent",
            HeaderValue::from_static(concat!("evenkeel/", env!("CARGO_PKG_VERSION"))),
        );
        let sent = if secure {
            let stream = self.secure(stream, &bare).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(broken)?;
            // Ends with the answer's body; its errors show there.
            tokio::spawn(async move { connection.await.ok() });
            tokio::time::timeout(IDLE_TIMEOUT, sender.send_request(request)).await
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(broken)?;
            tokio::spawn(async move { connection.await.ok() });
            tokio::time::timeout(IDLE_TIMEOUT, sender.send_request(request)).await
        };
        let response = sent
            .map_err(|_| RequestError::Transfer {
                url: url.to_owned(),
                reason: "no answer arrives".to_owned(),
            })?
            .map_err(broken)?;
        Ok(Answer {
            url: url.to_owned(),
            response,
        })
    }

    async fn secure(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, RequestError> {
        let failed = |reason: String| RequestError::Tls {
            host: host.to_owned(),
            reason,
        };
        let config = match self.tls.get() {
            Some(config) => Arc::clone(config),
            None => {
                let config = self.tls_config().map_err(failed)?;
                Arc::clone(self.tls.get_or_init(|| config))
            }
        };
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
        tokio::time::timeout(
            CONNECT_TIMEOUT,
            TlsConnector::from(config).connect(name, stream),
        )
        .await
        .map_err(|_| failed("handshake timeout".to_owned()))?
        .map_err(|error| failed(error.to_string()))
    }

    fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        let file = self.ca_file.display();
        let mut roots = rustls::RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(&self.ca_file)
            .map_err(|error| format!("read trusted roots from {file}: {error}"))?;
        for certificate in certificates.flatten() {
            // One odd certificate in a bundle must not cost all others.
            if let Err(error) = roots.add(certificate) {
                tracing::debug!(%error, "skipping a trusted root");
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

fn host_of(url: &str) -> Result<String, RequestError> {
    let uri: Uri = url.parse().map_err(|_| RequestError::Url(url.to_owned()))?;
    uri.authority()
        .map(|authority| authority.as_str().to_owned())
        .ok_or_else(|| RequestError::Url(url.to_owned()))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, RequestError> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|_| RequestError::NoSuchHost(host.to_owned()))?
        .collect();
    let failed = |reason: String| RequestError::Connect {
        host: format!("{host}:{port}"),
        reason,
    };
    let mut last = failed("no address".to_owned());
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = failed(error.to_string()),
            Err(_) => last = failed("i/o timeout".to_owned()),
        }
    }
    Err(last)
}
