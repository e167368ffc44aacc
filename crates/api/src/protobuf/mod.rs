//! Objects as `application/vnd.kubernetes.protobuf`: the wire form of Go clients and of kubectl's
//! typed commands.
//!
//! There is no generated code here. A message is read and written by walking its
//! [`Schema`] type beside a table of field numbers (`numbers.tsv`, one line per published type,
//! parsed at first use), so that a kind needs no line of its own. What comes out of [`decode`] is
//! what Go's JSON of the same object would be: it goes through the same admission as a JSON body.
//!
//! Custom resources have no protobuf form, here as in the reference.

mod decode;
mod discovery;
mod encode;
mod envelope;
mod numbers;
mod wire;

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::schema::{Schema, Ty};
use crate::status::Status;

pub use decode::decode;
pub use discovery::encode_discovery;
pub use encode::encode;
pub use envelope::{Envelope, decode_envelope, encode_envelope, watch_frame};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Messages nest at most so deep; Go's own types need about twenty levels.
const MAX_DEPTH: usize = 100;
/// An object has at most so many values: tiny messages must not become a huge object.
const MAX_VALUES: usize = 1 << 20;

/// Why a message could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The body does not begin with `k8s\0`.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoPrefix,
    /// The body has nothing behind the prefix.
    #[error("empty body")]
    Empty,
    /// A message ends in the middle of a field.
    #[error("unexpected EOF")]
    Truncated,
    /// A number has more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// A field has a number or wire type that does not exist.
    #[error("proto: illegal tag {0}")]
    IllegalTag(u64),
    /// A field is written in another form than its type asks for.
    #[error("proto: wrong wireType for field {0}")]
    WrongWire(String),
    /// Messages are nested too deeply or hold too many values.
    #[error("proto: message is nested too deeply or has too many values")]
    TooLarge,
    /// The value of a field is not what its type allows.
    #[error("proto: field {field}: {why}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The type has no protobuf form.
    #[error("object {0} has no protobuf form")]
    NoForm(String),
}

/// The type of a kind that has a protobuf form.
#[must_use]
pub fn kind_type(schema: &Schema, api_version: &str, kind: &str) -> Option<Ty> {
    let (group, version) = api_version
        .rsplit_once('/')
        .unwrap_or(("core", api_version));
    let group = group.split('.').next().unwrap_or(group);
    let meta = matches!(kind, "Status" | "DeleteOptions" | "PartialObjectMetadata");
    let name = if meta || group == "meta" {
        format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")
    } else if group == "apiregistration" {
        format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}")
    } else if group == "apiextensions" {
        format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
    } else {
        format!("io.k8s.api.{group}.{version}.{kind}")
    };
    schema.named(&name).filter(|_| has_form(&name))
}

/// Whether a type, by its full name (`io.k8s.api.core.v1.Pod`), has a protobuf form.
#[must_use]
pub fn has_form(type_name: &str) -> bool {
    numbers::of(type_name).is_some()
}

/// Writes an object, a list or a `PartialObjectMetadata(List)` with its envelope.
///
/// # Errors
/// When its kind has no protobuf form or a value does not fit its type.
pub fn encode_object(schema: &Schema, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let raw = encode::object(schema, api_version, kind, object)?;
    Ok(encode_envelope(api_version, kind, &raw))
}

/// Writes a status with its envelope.
#[must_use]
pub fn encode_status(status: &Status) -> Vec<u8> {
    encode_envelope("v1", "Status", &encode::status(status))
}
