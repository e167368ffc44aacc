//! Servers that files name: issuers of tokens by URL, and webhooks by kubeconfig.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::Value;

use super::link;
use super::trust::{self, Trust};

/// Longer answers are no answers.
const ANSWER_MOST: usize = 16 << 20;
/// So many connections to one server are kept for the next request.
const IDLE_MOST: usize = 8;

type Sender = SendRequest<Full<Bytes>>;

/// `https://HOST:PORT/PATH` in its parts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Url {
    host: String,
    port: u16,
    /// `HOST` or `HOST:PORT`, as it was written.
    authority: String,
    /// With a slash in front, and the query.
    pub(crate) path: String,
}

impl Url {
    /// Reads one.
    ///
    /// # Errors
    /// It is not of that form.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("https://")
            .ok_or_else(|| format!("{text:?}: URL scheme must be https"))?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let wrong = || format!("{text:?}: the port is none");
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (authority, 443),
        };
        if host.is_empty() {
            return Err(format!("{text:?}: host must be specified"));
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority: authority.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// How a server proves itself, and how the door does to it.
pub(crate) struct Peer {
    tls: Arc<ClientConfig>,
    /// What its certificate must be about; the URL's host where there is none.
    server_name: Option<String>,
    authorization: Authorization,
    idle: Mutex<Vec<(String, Sender)>>,
}

/// What requests carry.
enum Authorization {
    None,
    Value(HeaderValue),
    /// A bearer token that somebody may exchange.
    File(std::path::PathBuf),
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peer")
    }
}

impl Peer {
    /// Somebody whom a certificate authority (PEM) vouches for; the system's roots where it is
    /// empty.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn believed(authority: &str) -> Result<Self, String> {
        Ok(Self {
            tls: trust::config(&Trust::Bundle(authority.as_bytes().to_vec()), None)?,
            server_name: None,
            authorization: Authorization::None,
            idle: Mutex::default(),
        })
    }

    /// The same authority, believed in requests that carry a bearer token; none when it is empty.
    ///
    /// # Errors
    /// The token has odd letters.
    pub(crate) fn bearing(&self, token: &str) -> Result<Self, String> {
        let authorization = if token.is_empty() {
            Authorization::None
        } else {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            Authorization::Value(value.map_err(|_| "a credential has odd letters".to_owned())?)
        };
        Ok(Self {
            tls: Arc::clone(&self.tls),
            server_name: self.server_name.clone(),
            authorization,
            idle: Mutex::default(),
        })
    }

    /// The server of a kubeconfig's current context, with its URL. Paths in it are relative to
    /// `directory`.
    ///
    /// # Errors
    /// What is wrong with it, or not supported.
    pub(crate) fn of_kubeconfig(text: &str, directory: &Path) -> Result<(Url, Self), String> {
        let file: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let named = |list: &str, name: &str, part: &str| -> Result<Value, String> {
            file[list]
                .as_array()
                .into_iter()
                .flatten()
                .find(|entry| entry["name"] == *name)
                .map(|entry| entry[part].clone())
                .ok_or_else(|| format!("{part} {name:?} is not there"))
        };
        let context = named("contexts", &text(&file, "current-context"), "context")?;
        let cluster = named("clusters", &text(&context, "cluster"), "cluster")?;
        let user = match text(&context, "user").as_str() {
            "" => Value::Null,
            name => named("users", name, "user")?,
        };
        for (place, value, fields) in [
            ("user", &user, &["exec", "auth-provider", "as"][..]),
            ("cluster", &cluster, &["proxy-url"]),
        ] {
            for field in fields {
                if value.get(field).is_some_and(|it| !it.is_null()) {
                    return Err(format!("{place}.{field} is not supported"));
                }
            }
        }
        let data = |value: &Value, field: &str| -> Result<Vec<u8>, String> {
            let inline = text(value, &format!("{field}-data"));
            if !inline.is_empty() {
                return STANDARD
                    .decode(inline)
                    .map_err(|error| format!("{field}-data: {error}"));
            }
            match text(value, field).as_str() {
                "" => Ok(Vec::new()),
                path => std::fs::read(directory.join(path))
                    .map_err(|error| format!("{field} {path}: {error}")),
            }
        };
        let trust = if cluster["insecure-skip-tls-verify"] == true {
            Trust::Anybody
        } else {
            Trust::Bundle(data(&cluster, "certificate-authority")?)
        };
        let certificate = data(&user, "client-certificate")?;
        let shown = if certificate.is_empty() {
            None
        } else {
            Some(certified(&certificate, &data(&user, "client-key")?)?)
        };
        let value = |text: String| {
            HeaderValue::from_str(&text).map_err(|_| "a credential has odd letters".to_owned())
        };
        let (token, file) = (text(&user, "token"), text(&user, "tokenFile"));
        let (name, password) = (text(&user, "username"), text(&user, "password"));
        let authorization = if !token.is_empty() {
            Authorization::Value(value(format!("Bearer {token}"))?)
        } else if !file.is_empty() {
            Authorization::File(directory.join(file))
        } else if !name.is_empty() {
            let both = STANDARD.encode(format!("{name}:{password}"));
            Authorization::Value(value(format!("Basic {both}"))?)
        } else {
            Authorization::None
        };
        let server_name = text(&cluster, "tls-server-name");
        let peer = Self {
            tls: trust::config(&trust, shown)?,
            server_name: Some(server_name).filter(|name| !name.is_empty()),
            authorization,
            idle: Mutex::default(),
        };
        Ok((Url::read(&text(&cluster, "server"))?, peer))
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// What went wrong, as the reference's HTTP client tells it.
    pub(crate) async fn ask(
        &self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), String> {
        let verb = if method == Method::POST {
            "Post"
        } else {
            "Get"
        };
        let failed = |why: &str| format!("{verb} \"https://{}{}\": {why}", url.authority, url.path);
        let bytes = Bytes::from(body.map(Value::to_string).unwrap_or_default());
        // Apart on the heap: every request is a future with this one in it, and few get here.
        let sent = Box::pin(self.send(&method, url, bytes));
        match tokio::time::timeout(limit, sent).await {
            Err(_) => Err(failed("context deadline exceeded")),
            Ok(Err(why)) => Err(failed(&why)),
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), String> {
        let request = || {
            let mut request = Request::builder()
                .method(method.clone())
                .uri(&url.path)
                .header(HOST, &url.authority)
                .header(ACCEPT, "application/json, */*")
                .body(Full::new(body.clone()))
                .map_err(|error| error.to_string())?;
            let headers = request.headers_mut();
            if *method == Method::POST {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            let value = match &self.authorization {
                Authorization::None => None,
                Authorization::Value(value) => Some(value.clone()),
                Authorization::File(path) => {
                    let token = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
                    let text = format!("Bearer {}", token.trim());
                    HeaderValue::from_str(&text).ok()
                }
            };
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, value);
            }
            Ok::<_, String>(request)
        };
        loop {
            let kept = {
                let mut idle = self.idle.lock();
                let at = idle.iter().position(|(to, _)| *to == url.authority);
                at.map(|at| idle.swap_remove(at).1)
            };
            let Some(mut sender) = kept else { break };
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.send_request(request()?).await {
                Ok(response) => return self.read(url, sender, response).await,
                Err(error) if error.is_canceled() || error.is_closed() => {}
                Err(error) if error.is_incomplete_message() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let addresses = link::look_up_host(&url.host, url.port).await?;
        let name = self.server_name.as_deref().unwrap_or(&url.host);
        let link = link::connect(&addresses, Arc::clone(&self.tls), name).await?;
        let (mut sender, connection) = handshake(TokioIo::new(link))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a server outside ended");
            }
        });
        let response = sender.send_request(request()?).await.map_err(|error| {
            match error.is_incomplete_message() {
                true => "EOF".to_owned(),
                false => error.to_string(),
            }
        })?;
        self.read(url, sender, response).await
    }

    async fn read(
        &self,
        url: &Url,
        sender: Sender,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<(StatusCode, Bytes), String> {
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MOST)
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MOST && !sender.is_closed() {
            idle.push((url.authority.clone(), sender));
        }
        Ok((code, body))
    }
}

fn certified(certificate: &[u8], key: &[u8]) -> Result<Arc<dyn ResolvesClientCert>, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("client-certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("client-key: {error}"))?;
    let key = rustls::crypto::ring::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| format!("client-key: {error}"))?;
    let both = CertifiedKey::new(chain, key);
    Ok(Arc::new(SingleCertAndKey::from(both)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_parts() {
        let url = Url::read("https://issuer.example.com:8443/a/b?c=d").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("issuer.example.com", 8443));
        assert_eq!(url.path, "/a/b?c=d");
        assert_eq!(Url::read("https://[::1]").unwrap().host, "::1");
        assert!(Url::read("http://a").unwrap_err().contains("https"));
    }

    #[test]
    fn what_a_kubeconfig_wants_and_is_not_there_is_named() {
        let read = |user: &str| {
            let text = format!(
                "current-context: c\ncontexts: [{{name: c, context: {{cluster: x, user: u}}}}]\n\
                 clusters: [{{name: x, cluster: {{server: 'https://a/b', \
                 insecure-skip-tls-verify: true}}}}]\nusers: [{{name: u, user: {user}}}]\n"
            );
            Peer::of_kubeconfig(&text, Path::new("/")).map(|(url, _)| url.path)
        };
        assert_eq!(read("{token: t}").unwrap(), "/b");
        let refused = read("{exec: {command: x}}").unwrap_err();
        assert_eq!(refused, "user.exec is not supported");
    }
}
