//! Answers.

use bytes::Bytes;
use evenkeel_api::{Status, cbor, protobuf};
use futures::Stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use http_body::Frame;
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
