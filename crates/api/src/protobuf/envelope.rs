//! What stands around a message: four bytes `k8s\0`, then `runtime.Unknown` with the kind and the
//! object's own message inside (`k8s.io/apimachinery/pkg/runtime/generated.proto`).

use super::ProtobufError;
use super::wire::{Reader, put_bytes, put_message};

const PREFIX: &[u8] = b"k8s\0";

/// An opened envelope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Envelope<'b> {
    /// `apps/v1`; empty when the client has left it out.
    pub api_version: &'b str,
    /// `Deployment`; empty when the client has left it out.
    pub kind: &'b str,
    /// The object's message.
    pub raw: &'b [u8],
}

/// Opens an envelope.
///
/// # Errors
/// When there is no prefix or the envelope is malformed.
pub fn decode_envelope(body: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let message = body.strip_prefix(PREFIX).ok_or(ProtobufError::NoPrefix)?;
    if message.is_empty() {
        return Err(ProtobufError::Empty);
    }
    let mut envelope = Envelope::default();
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.field()? {
        match number {
            1 => {
                let mut meta = Reader::new(payload.bytes("typeMeta")?);
                while let Some((number, payload)) = meta.field()? {
                    match number {
                        1 => envelope.api_version = text(payload.bytes("apiVersion")?)?,
                        2 => envelope.kind = text(payload.bytes("kind")?)?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = payload.bytes("raw")?,
            _ => {}
        }
    }
    Ok(envelope)
}

fn text(bytes: &[u8]) -> Result<&str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|error| ProtobufError::Invalid {
        field: "typeMeta".to_owned(),
        why: error.to_string(),
    })
}

/// Puts a message into an envelope.
#[must_use]
pub fn encode_envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 24);
    out.extend_from_slice(PREFIX);
    let written: Result<(), std::convert::Infallible> = put_message(&mut out, 1, |out| {
        put_bytes(out, 1, api_version.as_bytes());
        put_bytes(out, 2, kind.as_bytes());
        Ok(())
    });
    match written {
        Ok(()) => {}
        Err(never) => match never {},
    }
    put_bytes(&mut out, 2, raw);
    // The reference writes both, always empty.
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

/// One event of a watch: a length of four bytes, big-endian, then `meta.v1.WatchEvent` with the
/// object in its own envelope. The event itself has none.
#[must_use]
pub fn watch_frame(kind: &str, enveloped: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(enveloped.len() + kind.len() + 24);
    out.extend_from_slice(&[0; 4]);
    put_bytes(&mut out, 1, kind.as_bytes());
    let written: Result<(), std::convert::Infallible> = put_message(&mut out, 2, |out| {
        put_bytes(out, 1, enveloped);
        Ok(())
    });
    match written {
        Ok(()) => {}
        Err(never) => match never {},
    }
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}
