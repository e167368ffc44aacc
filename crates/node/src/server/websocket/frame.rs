//! WebSocket framing (RFC 6455, section 5), server side. Pure: bytes in, headers out.
//!
//! Payloads are never collected here: the connection hands them on piece by piece, so that a
//! message of any length costs no more memory than a piece.

use bytes::{BufMut, BytesMut};

/// Longest payload of a ping, pong or close frame, bytes (section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Close, ping and pong may come between the fragments of a message.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The start of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// The last frame of its message.
    pub(super) last: bool,
    /// What it is.
    pub(super) opcode: Opcode,
    /// Payload, bytes.
    pub(super) length: u64,
    /// What the client masked the payload with.
    pub(super) mask: [u8; 4],
}

/// The client broke the protocol; the connection is closed with 1002.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("reserved bits are set and no extension was agreed")]
    ReservedBits,
    #[error("unknown opcode {0:#x}")]
    UnknownOpcode(u8),
    #[error("a client's frame is not masked")]
    NotMasked,
    #[error("a control frame is fragmented or longer than 125 bytes")]
    BadControl,
    #[error("payload length has its highest bit set")]
    BadLength,
    #[error("a continuation without a message, or a message inside another")]
    BadFragment,
}

/// Reads a header from the front of `bytes`: the header and its size, or `None` when more bytes
/// are needed.
pub(crate) fn parse_header(bytes: &[u8]) -> Result<Option<(FrameHeader, usize)>, FrameError> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBits);
    }
    let bits = first & 0x0F;
    let opcode = Opcode::from_bits(bits).ok_or(FrameError::UnknownOpcode(bits))?;
    let last = first & 0x80 != 0;
    if second & 0x80 == 0 {
        return Err(FrameError::NotMasked);
    }
    let short = second & 0x7F;
    if opcode.is_control() && (!last || usize::from(short) > MAX_CONTROL) {
        return Err(FrameError::BadControl);
    }
    let (length, extended) = match short {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (u64::from_be_bytes(*length), 8),
            None => return Ok(None),
        },
        _ => (u64::from(short), 0),
    };
    if length >> 63 != 0 {
        return Err(FrameError::BadLength);
    }
    let Some(mask) = rest
        .get(extended..)
        .and_then(|rest| rest.first_chunk::<4>())
    else {
        return Ok(None);
    };
    Ok(Some((
        FrameHeader {
            last,
            opcode,
            length,
            mask: *mask,
        },
        2 + extended + 4,
    )))
}

/// Removes the mask from a piece of payload that begins `offset` bytes into it.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4], offset: u64) {
    let turn = (offset % 4) as usize;
    let mut key = [0u8; 8];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = mask[(turn + at) % 4];
    }
    let wide = u64::from_ne_bytes(key);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let mut bytes = [0u8; 8];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// Appends the header of a whole, unmasked message.
pub(super) fn put_header(out: &mut BytesMut, opcode: Opcode, length: usize) {
    out.put_u8(0x80 | opcode.bits());
    if let Ok(short) = u8::try_from(length)
        && usize::from(short) <= MAX_CONTROL
    {
        out.put_u8(short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.put_u8(126);
        out.put_u16(medium);
    } else {
        out.put_u8(127);
        out.put_u64(length as u64);
    }
}
