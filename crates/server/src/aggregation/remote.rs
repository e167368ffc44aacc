//! A server behind the door: how it is reached, who it is told the caller is, and requests passed
//! on byte for byte, watches and upgraded connections included.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_api::{Status, kinds::api_services, object};
use futures::TryStreamExt as _;
use http::header::{ACCEPT, HOST, HeaderName, HeaderValue, IF_NONE_MATCH, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use serde_json::Value;

use crate::auth::Identity;
use crate::http::{Answer, text};
use crate::outbound::{Trust, connect, target, tls_config};
use crate::pipeline::Call;
use crate::registry::Registry;
use crate::verbs::{copy_headers, forwarded_for, join};

/// A server that does not take a connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a server says of itself is no longer than this.
const ANSWER_MOST: usize = 32 << 20;
/// So many connections to one server are kept for the next request.
const IDLE_MOST: usize = 32;

type Sender = SendRequest<Full<Bytes>>;

/// The server behind an APIService.
pub(crate) struct Remote {
    /// Of the APIService.
    pub(crate) name: String,
    /// The group that it serves a version of.
    pub(crate) group: String,
    /// That version.
    pub(crate) version: String,
    /// Its condition said so last.
    pub(crate) is_available: bool,
    namespace: String,
    service: String,
    port: i64,
    way: Arc<Way>,
}

/// TLS and connections: they outlive changes of the status.
struct Way {
    /// What it was made of.
    key: String,
    tls: Result<Arc<ClientConfig>, String>,
    idle: Mutex<Vec<Sender>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Remote {
    /// Reads an APIService. `before` is what it was.
    pub(super) fn read(
        value: &Value,
        before: Option<&Arc<Self>>,
        certificate: &Arc<dyn ResolvesClientCert>,
    ) -> Self {
        let spec = value.get("spec").cloned().unwrap_or_default();
        let part = |name: &str| object::text(&spec, &["service", name]).to_owned();
        let bundle = object::text(&spec, &["caBundle"]);
        let insecure = spec.get("insecureSkipTLSVerify") == Some(&Value::Bool(true));
        let key = format!("{} {insecure} {bundle}", spec["service"]);
        let way = before
            .filter(|before| before.way.key == key)
            .map(|before| Arc::clone(&before.way))
            .unwrap_or_else(|| {
                use base64::Engine as _;
                let trust = if insecure {
                    Ok(Trust::Anybody)
                } else {
                    base64::engine::general_purpose::STANDARD
                        .decode(bundle)
                        .map(Trust::Bundle)
                        .map_err(|error| format!("illegal base64 data: {error}"))
                };
                Arc::new(Way {
                    key,
                    tls: trust.and_then(|it| tls_config(&it, Some(Arc::clone(certificate)))),
                    idle: Mutex::default(),
                })
            });
        Self {
            name: object::name(value).to_owned(),
            group: object::text(&spec, &["group"]).to_owned(),
            version: object::text(&spec, &["version"]).to_owned(),
            is_available: api_services::is_available(value),
            namespace: part("namespace"),
            service: part("name"),
            port: object::integer(&spec, &["service", "port"]).unwrap_or(443),
            way,
        }
    }

    /// The path under which it serves.
    pub(crate) fn path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The name that its certificate must have, and requests name.
    fn server(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    async fn open(&self, registry: &Registry) -> Result<Sender, String> {
        let tls = self.way.tls.clone()?;
        let target = target(registry, &self.namespace, &self.service, self.port)?;
        let server = self.server();
        let connecting = async { connect(&target.addresses().await?, tls, &server).await };
        let link = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| format!("dial tcp {target}: i/o timeout"))??;
        let (sender, connection) = handshake(TokioIo::new(link))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to an aggregated server ended");
            }
        });
        Ok(sender)
    }

    /// Sends a request on a kept connection, or on a new one. `fresh` asks for a new one.
    async fn send(
        &self,
        registry: &Registry,
        fresh: bool,
        request: impl Fn() -> Result<Request<Full<Bytes>>, String>,
    ) -> Result<(Sender, Response<Incoming>), String> {
        let kept = || {
            if fresh {
                None
            } else {
                self.way.idle.lock().pop()
            }
        };
        while let Some(mut sender) = kept() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.send_request(request()?).await {
                Ok(response) => return Ok((sender, response)),
                // The other side had closed it meanwhile.
                Err(error) if error.is_canceled() || error.is_closed() => {}
                Err(error) if error.is_incomplete_message() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let mut sender = self.open(registry).await?;
        let response = sender.send_request(request()?).await.map_err(|error| {
            if error.is_incomplete_message() || error.is_canceled() {
                "EOF".to_owned()
            } else {
                error.to_string()
            }
        })?;
        Ok((sender, response))
    }

    fn keep(way: &Way, sender: Sender) {
        let mut idle = way.idle.lock();
        if idle.len() < IDLE_MOST && !sender.is_closed() {
            idle.push(sender);
        }
    }

    /// What it answers to a GET of somebody.
    ///
    /// # Errors
    /// What went wrong, as the reference's client tells it.
    pub(super) async fn get(
        &self,
        registry: &Registry,
        path: &str,
        accept: &str,
        identity: &Identity,
        limit: Duration,
    ) -> Result<(StatusCode, HeaderMap, Bytes), String> {
        self.get_unless(registry, path, accept, identity, limit, "")
            .await
    }

    /// The same, unless it is what this tag stands for: then the code is 304.
    ///
    /// # Errors
    /// What went wrong, as the reference's client tells it.
    pub(super) async fn get_unless(
        &self,
        registry: &Registry,
        path: &str,
        accept: &str,
        identity: &Identity,
        limit: Duration,
        tag: &str,
    ) -> Result<(StatusCode, HeaderMap, Bytes), String> {
        let request = || {
            let mut request = Request::get(path)
                .header(HOST, self.server())
                .header(ACCEPT, accept)
                .body(Full::new(Bytes::new()))
                .map_err(|error| error.to_string())?;
            say_who(request.headers_mut(), identity);
            if let Some(tag) = HeaderValue::from_str(tag).ok().filter(|_| !tag.is_empty()) {
                request.headers_mut().insert(IF_NONE_MATCH, tag);
            }
            Ok(request)
        };
        let asking = async {
            let (sender, response) = self.send(registry, false, request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_MOST)
                .collect()
                .await
                .map_err(|error| error.to_string())?
                .to_bytes();
            Self::keep(&self.way, sender);
            Ok((head.status, head.headers, body))
        };
        tokio::time::timeout(limit, asking)
            .await
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
    }

    /// How its address is shown in conditions.
    pub(super) fn url(&self, registry: &Registry, path: &str) -> String {
        match target(registry, &self.namespace, &self.service, self.port) {
            Ok(target) => format!("https://{target}{path}"),
            Err(_) => format!("https://{}:{}{path}", self.server(), self.port),
        }
    }

    /// Passes a request on.
    pub(crate) async fn pass(
        &self,
        registry: &Registry,
        call: Box<Call>,
    ) -> Result<Answer, Status> {
        if !self.is_available {
            return Ok(plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "service unavailable",
            ));
        }
        let Call {
            mut parts,
            identity,
            body,
            ..
        } = *call;
        let upgrades = parts.headers.contains_key(UPGRADE);
        let client = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let held = parts.extensions.remove::<crate::http::LongRunning>();
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |both| both.as_str())
            .to_owned();
        let request = || {
            let mut onward = Request::builder()
                .method(parts.method.clone())
                .uri(&target)
                .body(Full::new(body.clone()))
                .map_err(|error| error.to_string())?;
            let headers = onward.headers_mut();
            copy_headers(&parts.headers, headers, upgrades);
            for name in impersonation(headers) {
                headers.remove(name);
            }
            let host = HeaderValue::from_str(&self.server()).map_err(|it| it.to_string())?;
            headers.insert(HOST, host);
            say_who(headers, &identity);
            forwarded_for(&parts, headers);
            Ok(onward)
        };
        let (sender, mut response) = match self.send(registry, upgrades, request).await {
            Ok(both) => both,
            Err(why) => {
                let why = format!("error trying to reach service: {why}");
                return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, &why));
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let server = hyper::upgrade::on(&mut response);
            if let Some(client) = client {
                tokio::spawn(async move {
                    join(client, server).await;
                    drop(held);
                });
            }
            let (head, _) = response.into_parts();
            let mut answer = Answer::new(crate::http::full(Bytes::new()));
            *answer.status_mut() = head.status;
            *answer.headers_mut() = head.headers;
            return Ok(answer);
        }
        let (head, body) = response.into_parts();
        let pieces = body.into_data_stream().map_err(std::io::Error::other);
        // A connection is free again when the answer has been read to its end.
        let held = (pieces, Some(sender), Arc::clone(&self.way));
        let held = futures::stream::unfold(held, |(mut pieces, sender, way)| async move {
            match futures::StreamExt::next(&mut pieces).await {
                Some(piece) => Some((piece, (pieces, sender, way))),
                None => {
                    if let Some(sender) = sender {
                        Self::keep(&way, sender);
                    }
                    None
                }
            }
        });
        let mut answer = Answer::new(crate::http::stream(held));
        *answer.status_mut() = head.status;
        copy_headers(&head.headers, answer.headers_mut(), false);
        Ok(answer)
    }
}

/// A refusal as the reference's proxy writes one.
fn plain(code: StatusCode, why: &str) -> Answer {
    let mut answer = text(code, format!("{why}\n"));
    answer.headers_mut().insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    answer
}

/// The door has done what these ask for.
fn impersonation(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect()
}

/// Tells who the caller is; what the caller has said of himself in these headers goes.
fn say_who(headers: &mut HeaderMap, identity: &Identity) {
    const USER: HeaderName = HeaderName::from_static("x-remote-user");
    const UID: HeaderName = HeaderName::from_static("x-remote-uid");
    const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
    const EXTRA: &str = "x-remote-extra-";
    let given: Vec<HeaderName> = headers
        .keys()
        .filter(|name| [USER, UID, GROUP].contains(name) || name.as_str().starts_with(EXTRA))
        .cloned()
        .collect();
    for name in given {
        headers.remove(name);
    }
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
    if let Some(user) = value(&identity.user) {
        headers.insert(USER, user);
    }
    if let Some(uid) = value(&identity.uid).filter(|_| !identity.uid.is_empty()) {
        headers.insert(UID, uid);
    }
    for group in identity.groups.iter().filter_map(|group| value(group)) {
        headers.append(GROUP, group);
    }
    for (key, values) in &identity.extra {
        let name = format!("{EXTRA}{}", escaped(key));
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        for value in values.iter().filter_map(|text| value(text)) {
            headers.append(name.clone(), value);
        }
    }
}

/// A key as it may stand in the name of a header: what may not is percent-encoded.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        let fits = byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        if fits {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_what_the_door_says() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-a", "b"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut identity = Identity::user("jane", &["dev"]);
        identity
            .extra
            .insert("example.com/Scopes".to_owned(), vec!["x".to_owned()]);
        say_who(&mut headers, &identity);
        let all = |name: &str| -> Vec<&str> {
            let all = headers.get_all(name).iter();
            all.map(|value| value.to_str().unwrap()).collect()
        };
        assert_eq!(all("x-remote-user"), ["jane"]);
        assert_eq!(all("x-remote-group"), ["dev", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2fscopes"), ["x"]);
        assert!(all("x-remote-extra-a").is_empty() && all("x-remote-uid").is_empty());
        assert_eq!(all("accept"), ["*/*"]);
    }
}
