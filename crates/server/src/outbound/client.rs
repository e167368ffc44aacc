//! The way to a webhook: where it is, and connections to it.
//!
//! A service is reached at one of its ready endpoints, picked anew for each connection; nothing
//! depends on this machine's own routes to cluster addresses. Failures are told in the words of
//! the reference's HTTP client, because people search for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_api::{json as codec, object};
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde_json::Value;

use super::link;
use super::trust::{self, Oddities};
use crate::registry::Registry;

/// Longer answers are no answers.
const ANSWER_MOST: usize = 16 << 20;
/// So many connections to one webhook are kept for the next request.
const IDLE_MOST: usize = 16;

/// How one webhook is reached.
pub(crate) struct Client {
    place: Place,
    /// `https://HOST:PORT/PATH`, as it is shown.
    url: String,
    /// `HOST:PORT` of the request.
    authority: String,
    path: String,
    /// What the server's certificate must be about.
    server: String,
    tls: Result<Arc<ClientConfig>, String>,
    oddities: Arc<Oddities>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

#[derive(Debug)]
enum Place {
    Service {
        namespace: String,
        name: String,
        port: i64,
    },
    Host {
        host: String,
        port: u16,
    },
}

impl Client {
    /// Reads a `clientConfig`.
    pub(crate) fn read(config: &Value) -> Self {
        let bundle = object::text(config, &["caBundle"]);
        let oddities = Arc::<Oddities>::default();
        let tls = trust::tls(bundle, &oddities);
        let idle = Mutex::default();
        if let Some(service) = config.get("service") {
            let text = |name: &str| object::text(service, &[name]).to_owned();
            let port = object::integer(service, &["port"]).unwrap_or(443);
            let server = format!("{}.{}.svc", text("name"), text("namespace"));
            let path = rooted(&text("path"));
            let authority = format!("{server}:{port}");
            return Self {
                place: Place::Service {
                    namespace: text("namespace"),
                    name: text("name"),
                    port,
                },
                url: format!("https://{authority}{path}"),
                authority,
                path,
                server,
                tls,
                oddities,
                idle,
            };
        }
        let url = object::text(config, &["url"]);
        let rest = url.strip_prefix("https://").unwrap_or(url);
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(443)),
            _ => (authority, 443),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let path = rooted(path);
        Self {
            url: format!("https://{authority}{path}"),
            authority: authority.to_owned(),
            path,
            server: host.clone(),
            place: Place::Host { host, port },
            tls,
            oddities,
            idle,
        }
    }

    /// Asks, and reads the answer as JSON.
    ///
    /// # Errors
    /// What went wrong, as the reference tells it.
    pub(crate) async fn post(
        &self,
        registry: &Registry,
        review: &Value,
        timeout: Duration,
    ) -> Result<Value, String> {
        let query = format!("?timeout={}s", timeout.as_secs());
        let failed = |why: &str| format!("Post \"{}{query}\": {why}", self.url);
        let body = Bytes::from(review.to_string());
        // Apart on the heap: every write is a future with this one in it, and hardly one gets here.
        let sent = Box::pin(self.send(registry, &query, body));
        match tokio::time::timeout(timeout, sent).await {
            Err(_) => Err(failed("context deadline exceeded")),
            Ok(Err(why)) => Err(failed(&why)),
            Ok(Ok((code, answer))) if code.is_success() => codec::parse(&answer)
                .map(|parsed| parsed.value)
                .map_err(|error| format!("couldn't get version/kind; {error}")),
            Ok(Ok((code, answer))) => Err(refusal(code, &answer)),
        }
    }

    async fn send(
        &self,
        registry: &Registry,
        query: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), String> {
        let request = || {
            Request::post(format!("{}{query}", self.path))
                .header(HOST, &self.authority)
                .header(CONTENT_TYPE, "application/json")
                .header(ACCEPT, "application/json, */*")
                .body(Full::new(body.clone()))
                .map_err(|error| error.to_string())
        };
        // A kept connection may have been closed meanwhile: then a new one is tried.
        loop {
            let kept = self.idle.lock().pop();
            let Some(mut sender) = kept else { break };
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.send_request(request()?).await {
                Ok(response) => return self.read_answer(sender, response).await,
                Err(error) if error.is_canceled() || error.is_closed() => {}
                Err(error) if error.is_incomplete_message() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let mut sender = self.connect(registry).await?;
        let response = sender.send_request(request()?).await.map_err(|error| {
            if error.is_incomplete_message() || error.is_canceled() {
                "EOF".to_owned()
            } else {
                error.to_string()
            }
        })?;
        self.read_answer(sender, response).await
    }

    async fn read_answer(
        &self,
        sender: SendRequest<Full<Bytes>>,
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
            idle.push(sender);
        }
        Ok((code, body))
    }

    /// Counts what was seen of certificates that were refused.
    fn count_oddities(&self, registry: &Registry) {
        let counted = &registry.counted;
        for (seen, counters) in [
            (
                &self.oddities.without_names,
                &counted.webhooks_without_names,
            ),
            (&self.oddities.with_sha1, &counted.webhooks_with_sha1),
        ] {
            let seen = seen.swap(0, Ordering::Relaxed);
            if seen > 0 {
                counters.of(&[]).fetch_add(seen, Ordering::Relaxed);
            }
        }
    }

    async fn connect(&self, registry: &Registry) -> Result<SendRequest<Full<Bytes>>, String> {
        let tls = self.tls.clone()?;
        let addresses = match &self.place {
            Place::Service {
                namespace,
                name,
                port,
            } => {
                let target = link::target(registry, namespace, name, *port)?;
                target.addresses().await?
            }
            Place::Host { host, port } => link::look_up_host(host, *port).await?,
        };
        let stream = link::connect(&addresses, tls, &self.server).await;
        if stream.is_err() {
            self.count_oddities(registry);
        }
        let stream = stream?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a webhook ended");
            }
        });
        Ok(sender)
    }
}

/// A path that begins with a slash and does not end with one; none is the root.
fn rooted(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

/// An answer that is no success, as the reference's client reads it.
fn refusal(code: StatusCode, body: &[u8]) -> String {
    if let Ok(Value::Object(status)) = serde_json::from_slice(body)
        && status.get("kind").and_then(Value::as_str) == Some("Status")
        && let Some(message) = status.get("message").and_then(Value::as_str)
    {
        return message.to_owned();
    }
    let text = String::from_utf8_lossy(body);
    let text = match text.trim() {
        "" => "unknown",
        text => text,
    };
    let said = match code.as_u16() {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        403 => text,
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        406 => "the server was unable to respond with a content type that the client supports",
        409 => "the server reported a conflict",
        415 => {
            "the body of the request was in an unknown format - accepted media types include: \
             application/json"
        }
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be \
             processing the request"
        }
        500.. => {
            return format!(
                "an error on the server ({}) has prevented the request from succeeding",
                evenkeel_api::field::quoted(text)
            );
        }
        other => {
            return format!(
                "the server responded with the status code {other} but did not return more \
                 information"
            );
        }
    };
    said.to_owned()
}
