//! Responses: plain text, JSON, a stream of bytes, and the 101 that begins an upgrade.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body as _, Frame};
use tokio::sync::mpsc;

use super::backend::BackendError;

/// The body of every response.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// No body.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A text response. No newline is added: the API server makes the text a Status's message.
pub(super) fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", message.into().into())
}

/// A response with a content type.
pub(super) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> Response<Body> {
    let body = Full::new(body)
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON response.
pub(super) fn json(value: &serde_json::Value) -> Response<Body> {
    with_type(StatusCode::OK, "application/json", value.to_string().into())
}

/// The response to HEAD: without the body, and with the length that it would have. Over HTTP/2 nobody
/// else takes it off.
pub(super) fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        let length = HeaderValue::from(length);
        parts.headers.entry(CONTENT_LENGTH).or_insert(length);
    }
    Response::from_parts(parts, empty())
}

/// A refusal.
pub(super) fn refuse(error: &BackendError) -> Response<Body> {
    text(error.status, error.message.clone())
}

/// A body that ends when the sender is dropped; each piece is flushed as it comes.
pub(super) fn streamed(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Response<Body> {
    let frames = futures::stream::unfold(pieces, |mut pieces| async move {
        pieces.recv().await.map(|piece| (piece, pieces))
    })
    .map(|piece| piece.map(Frame::data));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// `101 Switching Protocols` to the named protocol.
pub(super) fn switching(protocol: &'static str) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}
