//! How messages are framed: a flag for compression, the length in 4 bytes, the message
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use prost::Message;

use crate::error::{Code, GrpcError};

const PREFIX_BYTES: usize = 5;
/// Room that is made for a message before it is there, bytes.
const AHEAD: usize = 1 << 20;

/// Frames a message.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    out.put_u8(0);
    // A message of 4 GiB was refused long before, by whoever made it.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    out.put(message.encode_to_vec().as_slice());
    out.freeze()
}

/// Takes the next whole message out of what has been received.
pub(crate) fn decode<M: Message + Default>(
    target: &str,
    received: &mut BytesMut,
) -> Result<Option<M>, GrpcError> {
    let Some(message) = take(target, received)? else {
        return Ok(None);
    };
    M::decode(message)
        .map(Some)
        .map_err(|error| GrpcError::Protocol {
            target: target.to_owned(),
            detail: error.to_string(),
        })
}

/// Takes the bytes of the next whole message out of what has been received.
pub(crate) fn take(target: &str, received: &mut BytesMut) -> Result<Option<Bytes>, GrpcError> {
    let Some(prefix) = received.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    if prefix[0] != 0 {
        return Err(GrpcError::Protocol {
            target: target.to_owned(),
            detail: "a compressed message that nobody asked for".to_owned(),
        });
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if received.len() < PREFIX_BYTES + length {
        // What is announced is believed when it comes: five bytes ask for no four gigabytes.
        received.reserve((PREFIX_BYTES + length - received.len()).min(AHEAD));
        return Ok(None);
    }
    received.advance(PREFIX_BYTES);
    Ok(Some(received.split_to(length).freeze()))
}

/// What the headers or trailers of an answer say about how it went; `None` if nothing.
pub(crate) fn status(headers: &HeaderMap) -> Option<Result<(), GrpcError>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status")?.parse().unwrap_or(2);
    if code == 0 {
        return Some(Ok(()));
    }
    Some(Err(GrpcError::Status {
        code: Code(code),
        message: unescape(text("grpc-message").unwrap_or_default()),
    }))
}

/// Percent-encodes a message: what is not plain text of one line, and the sign itself.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Undoes the percent-encoding of a message.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        let escaped = (*first == b'%')
            .then(|| u8::try_from(digit(0)? << 4 | digit(1)?).ok())
            .flatten();
        match escaped {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct One {
        #[prost(string, tag = "1")]
        text: String,
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let mut received = BytesMut::from(&[0, 0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(take("t", &mut received).expect("no error"), None);
        assert!(received.capacity() <= 2 * AHEAD, "{}", received.capacity());
    }

    #[test]
    fn a_sign_is_no_digit_of_an_escape() {
        assert_eq!(unescape("%+f%41%4"), "%+fA%4");
    }

    #[test]
    fn a_message_comes_out_whole_however_it_arrives() {
        let sent = One {
            text: "x".repeat(300),
        };
        let wire = encode(&sent);
        let mut received = BytesMut::new();
        for (at, byte) in wire.iter().chain(wire.iter()).enumerate() {
            received.put_u8(*byte);
            let got: Option<One> = decode("t", &mut received).expect("in order");
            let whole = (at + 1) % wire.len() == 0;
            assert_eq!(got, whole.then(|| sent.clone()));
        }
        assert!(received.is_empty());
    }

    #[test]
    fn a_status_is_read_with_its_words() {
        let mut headers = HeaderMap::new();
        assert!(status(&headers).is_none());
        headers.insert("grpc-status", "14".parse().expect("a value"));
        headers.insert("grpc-message", "no%20leader: 5%".parse().expect("a value"));
        let Some(Err(GrpcError::Status { code, message })) = status(&headers) else {
            panic!("an error was sent");
        };
        assert_eq!(
            (code, message.as_str()),
            (Code::UNAVAILABLE, "no leader: 5%")
        );
    }
}
