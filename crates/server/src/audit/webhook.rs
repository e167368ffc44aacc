//! Events for somebody else: posted as an `EventList`, and again when that fails.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use evenkeel_api::object;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An answer takes no longer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// So often a batch is sent at most,
const TRIES: u32 = 5;
/// and each wait is longer than the one before by this, and up to a fifth of it at random.
const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.2;
/// Where Debian, Alpine, Fedora and SUSE keep the roots that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Longer answers are not read.
const ANSWER_MOST: usize = 1 << 20;

/// Where events are posted to.
pub(crate) struct Webhook {
    host: String,
    port: u16,
    authority: String,
    path: String,
    tls: Option<Arc<ClientConfig>>,
    token: Option<HeaderValue>,
    first_wait: Duration,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is nobody's business.
        write!(f, "{}{}", self.authority, self.path)
    }
}

/// The entry of a kubeconfig's list by its name.
fn entry<'c>(config: &'c Value, list: &str, name: &str, kind: &str) -> Result<&'c Value, String> {
    object::list(config, &[list])
        .iter()
        .find(|entry| object::text(entry, &["name"]) == name)
        .and_then(|entry| entry.get(kind))
        .ok_or_else(|| format!("{list}: there is no {name:?}"))
}

/// A field that is there as such in base64, or as the name of a file beside the kubeconfig.
fn data(at: &Value, name: &str, beside: &Path) -> Result<Option<Vec<u8>>, String> {
    let inline = object::text(at, &[&format!("{name}-data")]);
    if !inline.is_empty() {
        let decoded = STANDARD.decode(inline);
        return decoded
            .map(Some)
            .map_err(|_| format!("{name}-data: must be in base64"));
    }
    let file = object::text(at, &[name]);
    if file.is_empty() {
        return Ok(None);
    }
    let path = beside.join(file);
    std::fs::read(&path)
        .map(Some)
        .map_err(|error| format!("{name} {}: {error}", path.display()))
}

impl Webhook {
    /// Reads the kubeconfig that says where and how.
    pub(super) fn load(path: &Path, first_wait: Duration) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let beside = path.parent().unwrap_or_else(|| Path::new("."));
        Self::read(&text, beside, first_wait)
    }

    pub(crate) fn read(text: &str, beside: &Path, first_wait: Duration) -> Result<Self, String> {
        // The rest of the error quotes the file, secrets and all.
        let config: Value = serde_saphyr::from_str(text).map_err(|error| {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        })?;
        let current = object::text(&config, &["current-context"]);
        let contexts = object::list(&config, &["contexts"]);
        let context = match (current, contexts) {
            ("", [only]) => only.get("context").ok_or("contexts[0]: has no context")?,
            _ => entry(&config, "contexts", current, "context")?,
        };
        let named = |name: &str| object::text(context, &[name]);
        let cluster = entry(&config, "clusters", named("cluster"), "cluster")?;
        let nobody = Value::Null;
        let user = match named("user") {
            "" => &nobody,
            name => entry(&config, "users", name, "user")?,
        };
        for unsupported in ["exec", "auth-provider", "username"] {
            if user.get(unsupported).is_some() {
                return Err(format!(
                    "users: {unsupported} is not supported; use token, tokenFile or a client \
                     certificate"
                ));
            }
        }
        for unsupported in ["proxy-url", "tls-server-name"] {
            if cluster.get(unsupported).is_some() {
                return Err(format!("clusters: {unsupported} is not supported"));
            }
        }
        let server = object::text(cluster, &["server"]);
        let (is_tls, rest) = match server.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => {
                return Err(format!(
                    "server {server:?}: must begin with https:// or http://"
                ));
            }
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let default = if is_tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse();
                (
                    host,
                    port.map_err(|_| format!("server {server:?}: its port is no number"))?,
                )
            }
            _ => (authority, default),
        };
        let token = match object::text(user, &["token"]) {
            "" => match object::text(user, &["tokenFile"]) {
                "" => None,
                file => {
                    let path = beside.join(file);
                    let text = std::fs::read_to_string(&path)
                        .map_err(|error| format!("tokenFile {}: {error}", path.display()))?;
                    Some(text.trim().to_owned())
                }
            },
            token => Some(token.to_owned()),
        };
        let token = match token {
            Some(token) => {
                let value = HeaderValue::from_str(&format!("Bearer {token}"));
                let mut value = value.map_err(|_| "token: has letters that no header may have")?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let tls = is_tls.then(|| tls(cluster, user, beside)).transpose()?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority: authority.to_owned(),
            path: path.to_owned(),
            tls,
            token,
            first_wait,
        })
    }

    /// Posts events, and again with growing waits when that fails.
    pub(super) async fn send(&self, events: &[Bytes]) -> Result<(), String> {
        let length: usize = events.iter().map(|event| event.len() + 1).sum();
        let mut body = Vec::with_capacity(length + 96);
        body.extend_from_slice(
            b"{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":[",
        );
        for (index, event) in events.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(event.trim_ascii_end());
        }
        body.extend_from_slice(b"]}");
        let body = Bytes::from(body);
        let mut wait = self.first_wait.as_secs_f64();
        for attempt in 1.. {
            let why = match tokio::time::timeout(TIMEOUT, self.post(body.clone())).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                Err(_) => "it did not answer in time".to_owned(),
            };
            if attempt >= TRIES {
                return Err(why);
            }
            tracing::warn!(attempt, why, "audit events are to be sent again");
            let jittered = wait * (1.0 + JITTER * rand::random::<f64>());
            tokio::time::sleep(Duration::from_secs_f64(jittered)).await;
            wait *= FACTOR;
        }
        Ok(())
    }

    async fn post(&self, body: Bytes) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let Some(tls) = &self.tls else {
            return self.post_over(stream, body).await;
        };
        let name = match self.host.parse::<std::net::IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?,
        };
        let connector = TlsConnector::from(Arc::clone(tls));
        let stream = connector.connect(name, stream).await.map_err(text)?;
        self.post_over(stream, body).await
    }

    async fn post_over<S>(&self, stream: S, body: Bytes) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let text = |error: hyper::Error| error.to_string();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(text)?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the audit webhook ended");
            }
        });
        let mut request = Request::post(format!("{}?timeout=30s", self.path))
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, "kube-apiserver");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(text)?;
        let code = answer.status();
        let read = Limited::new(answer.into_body(), ANSWER_MOST)
            .collect()
            .await;
        connection.abort();
        read.map_err(|error| error.to_string())?;
        if code.is_success() {
            Ok(())
        } else {
            Err(format!("it answered {code}"))
        }
    }
}

/// TLS as the kubeconfig wants it.
fn tls(cluster: &Value, user: &Value, beside: &Path) -> Result<Arc<ClientConfig>, String> {
    if cluster.get("insecure-skip-tls-verify") == Some(&Value::Bool(true)) {
        return Err("clusters: insecure-skip-tls-verify is not supported".to_owned());
    }
    let authority = match data(cluster, "certificate-authority", beside)? {
        Some(authority) => authority,
        // The system's own.
        None => SYSTEM_ROOTS
            .iter()
            .find_map(|path| std::fs::read(path).ok())
            .unwrap_or_default(),
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&authority).filter_map(Result::ok);
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err("certificate-authority: has no certificates in PEM".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let certificate = data(user, "client-certificate", beside)?;
    let key = data(user, "client-key", beside)?;
    let mut config = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate)
                .collect::<Result<_, _>>()
                .map_err(|_| "client-certificate: is no PEM")?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| "client-key: is no PEM")?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("client-certificate: {error}"))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("client-certificate and client-key go together".to_owned()),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(user: &str, server: &str) -> Result<Webhook, String> {
        let text = format!(
            "clusters: [{{name: c, cluster: {{server: \"{server}\"}}}}]\n\
             users: [{{name: u, user: {user}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
             current-context: x\n"
        );
        Webhook::read(&text, Path::new("/nowhere"), Duration::from_secs(10))
    }

    #[test]
    fn a_kubeconfig_says_where_and_how() {
        let found = read("{token: hidden}", "http://localhost:8080/events").unwrap();
        assert_eq!((found.host.as_str(), found.port), ("localhost", 8080));
        assert_eq!(found.path, "/events");
        assert!(found.token.is_some() && found.tls.is_none());
        assert!(!format!("{found:?}").contains("hidden"));
        let why = |user: &str, server: &str| read(user, server).unwrap_err();
        assert!(why("{}", "ftp://a").contains("must begin with https://"));
        assert!(why("{exec: {}}", "http://a").contains("exec is not supported"));
        assert!(why("{client-key-data: \"!\"}", "https://a").contains("client-key-data"));
        assert!(why("{tokenFile: gone}", "http://a").contains("/nowhere/gone"));
    }
}
