//! Requests as a client writes them, and answers as they come back: for tests that must see every
//! byte, header and status code.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use evenkeel_server::http::Body;
use evenkeel_server::{Door, Identity};
use futures::FutureExt as _;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

/// Longest wait for a line of a watch.
const LIMIT: Duration = Duration::from_secs(20);

/// Somebody who calls the door.
#[derive(Debug, Clone)]
pub struct Caller {
    door: Arc<Door>,
    identity: Identity,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub code: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// `Warning` headers.
    pub warnings: Vec<String>,
    /// All headers.
    pub headers: http::HeaderMap,
    /// The body, when it is JSON; a string otherwise.
    pub body: Value,
}

impl Reply {
    /// The message of a `Status`.
    #[must_use]
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The reason of a `Status`.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }

    /// The resource version of an object or a list.
    #[must_use]
    pub fn revision(&self) -> u64 {
        revision(&self.body)
    }

    /// A header; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Fails with the whole answer unless the code is this.
    #[allow(clippy::must_use_candidate, reason = "many calls only check")]
    pub fn expect(self, code: u16) -> Self {
        assert_eq!(self.code, code, "{:#}", self.body);
        self
    }
}

/// The resource version of an object or a list; 0 when it has none.
#[must_use]
pub fn revision(value: &Value) -> u64 {
    value["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

impl Caller {
    pub(crate) fn new(door: &Arc<Door>, identity: Identity) -> Self {
        Self {
            door: Arc::clone(door),
            identity,
        }
    }

    /// Sends bytes as they are; the answer comes as it is.
    pub async fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        // The compiler need not look through the whole door wherever a test asks it.
        self.door
            .handle(request, self.identity.clone())
            .boxed()
            .await
    }

    async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = request
            .body(Full::new(bytes::Bytes::from(bytes)))
            .expect("a request");
        // The compiler need not look through the whole door wherever a test asks it.
        self.door
            .handle(request, self.identity.clone())
            .boxed()
            .await
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let method = method.parse().expect("a method");
        let answer = self.raw(method, path, headers, body).await;
        let (parts, body) = answer.into_parts();
        let text = |name: &str| -> Vec<String> {
            let values = parts.headers.get_all(name).into_iter();
            values
                .filter_map(|value| value.to_str().ok())
                .map(str::to_owned)
                .collect()
        };
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Reply {
            code: parts.status.as_u16(),
            content_type: text("content-type").join(""),
            warnings: text("warning"),
            headers: parts.headers.clone(),
            body,
        }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], None).await
    }

    /// `GET` with an `Accept` header.
    pub async fn get_as(&self, path: &str, accept: &str) -> Reply {
        self.send("GET", path, &[("accept", accept)], None).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[], Some(body)).await
    }

    /// `PUT`.
    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send("PUT", path, &[], Some(body)).await
    }

    /// `PATCH` of a content type (`application/merge-patch+json`).
    pub async fn patch(&self, path: &str, content_type: &str, body: &Value) -> Reply {
        self.send("PATCH", path, &[("content-type", content_type)], Some(body))
            .await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str, options: Option<&Value>) -> Reply {
        self.send("DELETE", path, &[], options).await
    }

    /// Opens a watch: `path` has the whole query.
    pub async fn watch(&self, path: &str) -> Lines {
        self.watch_as(path, "application/json").await
    }

    /// The same, in another form of JSON.
    pub async fn watch_as(&self, path: &str, accept: &str) -> Lines {
        let answer = self
            .raw(Method::GET, path, &[("accept", accept)], None)
            .await;
        Lines {
            code: answer.status().as_u16(),
            body: answer.into_body(),
            rest: BytesMut::new(),
        }
    }
}

/// The events of a watch, line by line.
#[derive(Debug)]
pub struct Lines {
    /// Status code of the answer.
    pub code: u16,
    body: Body,
    rest: BytesMut,
}

impl Lines {
    /// The next event; `None` at the end. Waits with a bound.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                return Some(serde_json::from_slice(&line).expect("an event is a line of JSON"));
            }
            let frame = tokio::time::timeout(LIMIT, self.body.frame())
                .await
                .expect("an event within the bound")?;
            if let Ok(data) = frame.expect("a watch does not break").into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }

    /// The next event as type, name and revision.
    pub async fn event(&mut self) -> (String, String, u64) {
        let event = self.next().await.expect("a watch does not end here");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["object"];
        (
            text(&event["type"]),
            text(&object["metadata"]["name"]),
            revision(object),
        )
    }
}
