//! Answers.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use evenkeel_api::{Status, cbor, protobuf};
use futures::Stream;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING,
};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::Value;

use super::media::Encoding;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;
/// An answer.
pub type Answer = Response<Body>;

/// A body that is there as a whole.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The answer to HEAD: without the body, and with the length that it would have. Over HTTP/2 nobody
/// else takes it off, and clients take it for a broken stream.
#[must_use]
pub fn without_body(answer: Answer) -> Answer {
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        let length = HeaderValue::from(length);
        parts.headers.entry(CONTENT_LENGTH).or_insert(length);
    }
    Answer::from_parts(parts, full(Bytes::new()))
}

/// A body that comes in pieces.
pub fn stream(pieces: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static) -> Body {
    use futures::StreamExt as _;
    StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// An answer with a content type.
#[must_use]
pub fn answer(code: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

/// A JSON answer from bytes.
#[must_use]
pub fn json_bytes(code: StatusCode, bytes: impl Into<Bytes>) -> Answer {
    answer(code, "application/json", full(bytes))
}

/// A JSON answer from a value.
#[must_use]
pub fn json(code: StatusCode, value: &Value) -> Answer {
    json_bytes(code, value.to_string())
}

/// A plain text answer.
#[must_use]
pub fn text(code: StatusCode, text: impl Into<String>) -> Answer {
    answer(code, "text/plain; charset=utf-8", full(text.into()))
}

/// What is said of a path that leads nowhere: that of a group that is served is told in a status.
#[must_use]
pub fn page_not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A failure, or a success without an object.
#[must_use]
pub fn status_answer(status: &Status) -> Answer {
    status_answer_as(Encoding::Json, status)
}

/// A failure, or a success without an object, in an encoding.
#[must_use]
pub fn status_answer_as(encoding: Encoding, status: &Status) -> Answer {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = match encoding {
        Encoding::Protobuf => answer(
            code,
            protobuf::MEDIA_TYPE,
            full(protobuf::encode_status(status)),
        ),
        Encoding::Json => json_bytes(code, serde_json::to_vec(status).unwrap_or_default()),
        Encoding::Pretty => json_bytes(code, serde_json::to_vec_pretty(status).unwrap_or_default()),
        Encoding::Yaml => answer(
            code,
            "application/yaml",
            full(serde_saphyr::to_string(status).unwrap_or_default()),
        ),
        Encoding::Cbor => answer(
            code,
            cbor::MEDIA_TYPE,
            full(cbor::encode(
                &serde_json::to_value(status).unwrap_or_default(),
            )),
        ),
    };
    let wait = status
        .details
        .as_ref()
        .map_or(0, |details| details.retry_after_seconds);
    if wait > 0 {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(wait));
    }
    answer
}

/// Adds warnings as the reference does: `299 - "text"`.
pub fn warn(answer: &mut Answer, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| {
                if matches!(c, '"' | '\\') {
                    vec!['\\', c]
                } else {
                    vec![c]
                }
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(WARNING, value);
        }
    }
}

/// What is kept as long as a request goes on that outlives its answer: the body of the answer has
/// it, and so does whoever serves an upgraded connection.
#[derive(Debug, Clone)]
pub struct LongRunning(
    #[expect(dead_code, reason = "it is there to be dropped")] Arc<dyn Any + Send + Sync>,
);

impl LongRunning {
    /// Keeps something.
    #[must_use]
    pub fn new(kept: impl Any + Send + Sync) -> Self {
        Self(Arc::new(kept))
    }
}

struct Held {
    body: Body,
    _until_it_ends: LongRunning,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Keeps something until the answer has been read to its end, or nobody reads it any more.
#[must_use]
pub fn hold(answer: Answer, kept: LongRunning) -> Answer {
    answer.map(|body| {
        Held {
            body,
            _until_it_ends: kept,
        }
        .boxed_unsync()
    })
}
