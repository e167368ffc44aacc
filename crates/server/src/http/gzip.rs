//! Compressed answers, for clients that ask for them and when there is something to gain.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::answer::{Answer, stream};
use super::request::Attributes;

/// Shorter answers are not worth it.
const LEAST: u64 = 128 << 10;
/// The level of the reference: most of the gain for little time.
const LEVEL: Compression = Compression::fast();
/// So much is compressed in one go; others are served between two of them.
const PIECE: usize = 128 << 10;

/// Does a client take compressed answers?
#[must_use]
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim() == "gzip")
}

/// Is it an object, a list, a page of discovery or of OpenAPI that is answered? Watches and streams to
/// somebody else go as they are.
#[must_use]
pub fn is_compressible(attributes: &Attributes) -> bool {
    if attributes.resource_request {
        return attributes.verb != "watch"
            && !matches!(
                attributes.subresource.as_str(),
                "attach" | "exec" | "proxy" | "log" | "portforward"
            );
    }
    let path = attributes.path.trim_start_matches('/');
    matches!(path.split('/').next(), Some("api" | "apis" | "openapi"))
}

/// Compresses an answer that is there as a whole and long enough. What is not is not touched.
pub async fn compress(answer: Answer) -> Answer {
    let is_long = answer
        .body()
        .size_hint()
        .exact()
        .is_some_and(|it| it > LEAST);
    if !is_long || answer.headers().contains_key(CONTENT_ENCODING) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let Ok(whole) = body.collect().await else {
        // A body that is there as a whole can't fail.
        return Answer::from_parts(parts, super::full(Bytes::new()));
    };
    let headers = &mut parts.headers;
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Answer::from_parts(parts, stream(pieces(whole.to_bytes())))
}

/// The compressed pieces of some bytes, each made when it is asked for.
fn pieces(bytes: Bytes) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let encoder = GzEncoder::new(Vec::new(), LEVEL);
    futures::stream::try_unfold(Some((bytes, encoder)), |state| async move {
        let Some((mut rest, mut encoder)) = state else {
            return Ok(None);
        };
        loop {
            if rest.is_empty() {
                return Ok(Some((Bytes::from(encoder.finish()?), None)));
            }
            let piece = rest.split_to(rest.len().min(PIECE));
            encoder.write_all(&piece)?;
            let made = std::mem::take(encoder.get_mut());
            if !made.is_empty() {
                return Ok(Some((Bytes::from(made), Some((rest, encoder)))));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http::StatusCode;

    use super::*;
    use crate::http::json_bytes;

    #[tokio::test]
    async fn long_answers_are_compressed_and_short_ones_are_not() {
        let long: Vec<u8> = (0..1_000_000_u32).map(|at| (at / 7 % 251) as u8).collect();
        let answer = compress(json_bytes(StatusCode::OK, long.clone())).await;
        assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(answer.headers()[VARY], "Accept-Encoding");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() < long.len() / 2, "{}", bytes.len());
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_ref())
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(plain, long);
        let short = compress(json_bytes(StatusCode::OK, vec![b'x'; 128 << 10])).await;
        assert!(!short.headers().contains_key(CONTENT_ENCODING));
    }

    #[test]
    fn the_header_is_read_as_the_reference_reads_it() {
        let accepts = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(text));
            accepts_gzip(&headers)
        };
        assert!(accepts("gzip") && accepts("deflate, gzip"));
        assert!(!accepts("identity") && !accepts("gzip;q=0"));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
