//! Framing, for `crates/fuzz` alone.

use bytes::BytesMut;

use crate::frame;

/// All whole messages of what came in pieces of a given size, and why there are no more where the
/// rest can't be read.
#[must_use]
pub fn messages(received: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let mut buffer = BytesMut::new();
    let mut out = Vec::new();
    for piece in received.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match frame::take("a server", &mut buffer) {
                Ok(Some(message)) => out.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => return (out, Some(error.to_string())),
            }
        }
    }
    (out, None)
}

/// A status's message as it is sent, and what is read of it.
#[must_use]
pub fn status_message(text: &str) -> (String, String) {
    let sent = frame::escape(text);
    let read = frame::unescape(&sent);
    (sent, read)
}

/// What is read of a status's message.
#[must_use]
pub fn read_status_message(text: &str) -> String {
    frame::unescape(text)
}
