//! Objects as CBOR (RFC 8949), in the dialect of `k8s.io/apimachinery`'s serializer.
//!
//! Written: a self-describing tag in front, text as byte strings, the shortest heads. Read: both
//! kinds of strings, definite and indefinite lengths, unknown tags by their content, bytes that
//! are tagged as "base64 later" as base64 text. Refused, as there: duplicate keys, numbers that
//! JSON does not have, integers beyond 64 bits with sign, bytes that are no UTF-8. What comes out
//! is the JSON value of the same object; nothing here knows types.

mod decode;
mod encode;

#[cfg(test)]
mod tests;

use serde_json::Value;

pub use decode::decode;

/// `Content-Type` of one object.
pub const MEDIA_TYPE: &str = "application/cbor";
/// `Content-Type` of a watch: one item after the other (RFC 8742).
pub const SEQUENCE: &str = "application/cbor-seq";

/// The tag that says "this is CBOR", number 55799.
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];
/// Values nest no deeper than in JSON.
const MAX_DEPTH: usize = 127;

/// Why an item could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// It ends in the middle.
    #[error("unexpected EOF")]
    Truncated,
    /// Something stands behind the item.
    #[error("cbor: {0} bytes of extraneous data starting at index {1}")]
    Extraneous(usize, usize),
    /// Reserved heads, breaks in the wrong place, chunks of another kind.
    #[error("cbor: invalid head 0x{0:02x}")]
    Head(u8),
    /// It nests too deeply.
    #[error("cbor: exceeded max nested level {MAX_DEPTH}")]
    Depth,
    /// An integer that does not fit 64 bits with sign.
    #[error("cbor: cannot unmarshal integer into Go value of type int64 (overflows)")]
    Integer,
    /// NaN, infinity, or a simple value that JSON does not have.
    #[error("cbor: {0} is not allowed")]
    Forbidden(&'static str),
    /// A string that is not UTF-8.
    #[error("cbor: invalid UTF-8 string")]
    Utf8,
    /// A key that is not a string.
    #[error("cbor: map keys must be strings")]
    Key,
    /// A key that stands twice in its map.
    #[error("cbor: found duplicate map key {0:?}")]
    Duplicate(String),
}

/// Writes an object.
#[must_use]
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(&SELF_DESCRIBED);
    encode::value(&mut out, value);
    out
}

/// One event of a watch: the event and the object in it describe themselves.
#[must_use]
pub fn watch_frame(kind: &str, object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(&SELF_DESCRIBED);
    encode::head(&mut out, encode::MAP, 2);
    encode::text(&mut out, "type");
    encode::text(&mut out, kind);
    encode::text(&mut out, "object");
    out.extend_from_slice(&SELF_DESCRIBED);
    encode::value(&mut out, object);
    out
}
