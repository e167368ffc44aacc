//! SPDY/3.1 frames (SPDY Protocol Draft 3.1, sections 2.2 and 2.6). Pure: bytes in, frames out.

use bytes::{BufMut, BytesMut};

use super::headers::{HeaderDecoder, HeaderError, Headers};

/// The sender's last frame on a stream.
pub(crate) const FLAG_FIN: u8 = 0x01;
/// Largest control frame, bytes; larger ones end the connection.
pub(super) const MAX_CONTROL: usize = 64 * 1024;
/// SETTINGS id of the window that new streams start with.
pub(super) const SETTINGS_INITIAL_WINDOW: u32 = 7;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// RST_STREAM: the frame broke the protocol.
pub(super) const RST_PROTOCOL_ERROR: u32 = 1;
/// RST_STREAM: too many streams.
pub(super) const RST_REFUSED_STREAM: u32 = 3;
/// RST_STREAM: the stream is not wanted.
pub(super) const RST_CANCEL: u32 = 5;

/// The first eight bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameHead {
    /// A control frame; its payload is parsed by [`parse_control`].
    Control { kind: u16, flags: u8, length: usize },
    /// Data of a stream.
    Data {
        stream: u32,
        flags: u8,
        length: usize,
    },
}

/// A control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ControlFrame {
    SynStream {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        stream: u32,
        status: u32,
    },
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// A kind this side does not know; it is skipped, as the specification asks.
    Unknown(u16),
}

/// The peer broke the protocol; the connection ends with GOAWAY.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("SPDY version {0} is not 3")]
    Version(u16),
    #[error("a control frame of {0} bytes is too large")]
    TooLarge(usize),
    #[error("a frame of kind {0} is malformed")]
    Malformed(u16),
    #[error("bad headers")]
    Headers(#[from] HeaderError),
}

/// Reads the first eight bytes of a frame.
pub(crate) fn parse_head(bytes: [u8; 8]) -> Result<FrameHead, FrameError> {
    let [a, b, c, d, flags, rest @ ..] = bytes;
    let first = u32::from_be_bytes([a, b, c, d]);
    let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
    if first & 0x8000_0000 == 0 {
        return Ok(FrameHead::Data {
            stream: first,
            flags,
            length,
        });
    }
    let version = u16::from_be_bytes([a & 0x7F, b]);
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    if length > MAX_CONTROL {
        return Err(FrameError::TooLarge(length));
    }
    Ok(FrameHead::Control {
        kind: u16::from_be_bytes([c, d]),
        flags,
        length,
    })
}

fn number(payload: &[u8], at: usize) -> Option<u32> {
    payload
        .get(at..)?
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

fn stream_id(payload: &[u8]) -> Option<u32> {
    number(payload, 0).map(|id| id & 0x7FFF_FFFF)
}

/// Reads the payload of a control frame.
pub(crate) fn parse_control(
    kind: u16,
    flags: u8,
    payload: &[u8],
    decoder: &mut HeaderDecoder,
) -> Result<ControlFrame, FrameError> {
    let malformed = || FrameError::Malformed(kind);
    let fin = flags & FLAG_FIN != 0;
    Ok(match kind {
        SYN_STREAM => {
            let stream = stream_id(payload).ok_or_else(malformed)?;
            let headers = decoder.decode(payload.get(10..).ok_or_else(malformed)?)?;
            ControlFrame::SynStream {
                stream,
                fin,
                headers,
            }
        }
        SYN_REPLY => {
            let stream = stream_id(payload).ok_or_else(malformed)?;
            let headers = decoder.decode(payload.get(4..).ok_or_else(malformed)?)?;
            ControlFrame::SynReply {
                stream,
                fin,
                headers,
            }
        }
        HEADERS => {
            let stream = stream_id(payload).ok_or_else(malformed)?;
            decoder.decode(payload.get(4..).ok_or_else(malformed)?)?;
            ControlFrame::Headers { stream, fin }
        }
        RST_STREAM => ControlFrame::RstStream {
            stream: stream_id(payload).ok_or_else(malformed)?,
            status: number(payload, 4).ok_or_else(malformed)?,
        },
        SETTINGS => {
            let count = number(payload, 0).ok_or_else(malformed)? as usize;
            let entries = payload.get(4..).ok_or_else(malformed)?;
            if entries.len() / 8 < count {
                return Err(malformed());
            }
            let settings = entries
                .chunks_exact(8)
                .take(count)
                .filter_map(|entry| Some((number(entry, 0)? & 0x00FF_FFFF, number(entry, 4)?)))
                .collect();
            ControlFrame::Settings(settings)
        }
        PING => ControlFrame::Ping(number(payload, 0).ok_or_else(malformed)?),
        GOAWAY => ControlFrame::GoAway {
            last: stream_id(payload).ok_or_else(malformed)?,
            status: number(payload, 4).unwrap_or(0),
        },
        WINDOW_UPDATE => ControlFrame::WindowUpdate {
            stream: stream_id(payload).ok_or_else(malformed)?,
            delta: number(payload, 4).ok_or_else(malformed)? & 0x7FFF_FFFF,
        },
        other => ControlFrame::Unknown(other),
    })
}

fn put_control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u8(flags);
    out.put_uint(length as u64, 3);
}

/// Appends a SYN_STREAM with an encoded header block.
#[cfg(test)]
pub(crate) fn put_syn_stream(out: &mut BytesMut, stream: u32, flags: u8, block: &[u8]) {
    put_control(out, SYN_STREAM, flags, 10 + block.len());
    out.put_u32(stream);
    out.put_u32(0);
    out.put_u16(0);
    out.put_slice(block);
}

/// Appends a SYN_REPLY with an encoded header block.
pub(crate) fn put_syn_reply(out: &mut BytesMut, stream: u32, block: &[u8]) {
    put_control(out, SYN_REPLY, 0, 4 + block.len());
    out.put_u32(stream);
    out.put_slice(block);
}

/// Appends a RST_STREAM.
pub(crate) fn put_rst_stream(out: &mut BytesMut, stream: u32, status: u32) {
    put_control(out, RST_STREAM, 0, 8);
    out.put_u32(stream);
    out.put_u32(status);
}

/// Appends a SETTINGS frame with one entry.
pub(crate) fn put_setting(out: &mut BytesMut, id: u32, value: u32) {
    put_control(out, SETTINGS, 0, 12);
    out.put_u32(1);
    out.put_u32(id & 0x00FF_FFFF);
    out.put_u32(value);
}

/// Appends a PING.
pub(crate) fn put_ping(out: &mut BytesMut, id: u32) {
    put_control(out, PING, 0, 4);
    out.put_u32(id);
}

/// Appends a GOAWAY.
pub(crate) fn put_go_away(out: &mut BytesMut, last: u32, status: u32) {
    put_control(out, GOAWAY, 0, 8);
    out.put_u32(last);
    out.put_u32(status);
}

/// Appends a WINDOW_UPDATE.
pub(crate) fn put_window_update(out: &mut BytesMut, stream: u32, delta: u32) {
    put_control(out, WINDOW_UPDATE, 0, 8);
    out.put_u32(stream);
    out.put_u32(delta & 0x7FFF_FFFF);
}

/// Appends a DATA frame; `data` is at most 16 MiB.
pub(crate) fn put_data(out: &mut BytesMut, stream: u32, flags: u8, data: &[u8]) {
    out.put_u32(stream & 0x7FFF_FFFF);
    out.put_u8(flags);
    out.put_uint(data.len() as u64, 3);
    out.put_slice(data);
}
