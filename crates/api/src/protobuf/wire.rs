//! The wire format itself: tags, varints and lengths. It knows nothing of types.

use super::ProtobufError;

/// What stands behind a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'b [u8]),
}

impl<'b> Payload<'b> {
    pub(super) fn bytes(self, field: &str) -> Result<&'b [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::WrongWire(field.to_owned())),
        }
    }

    pub(super) fn varint(self, field: &str) -> Result<u64, ProtobufError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(ProtobufError::WrongWire(field.to_owned())),
        }
    }
}

/// Reads a message field by field.
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next number.
    pub(super) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().enumerate() {
            if index == 10 || (index == 9 && *byte > 1) {
                return Err(ProtobufError::Overflow);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(ProtobufError::Truncated)
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], ProtobufError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn tag(&mut self) -> Result<(u32, u64), ProtobufError> {
        let tag = self.varint()?;
        match u32::try_from(tag >> 3) {
            Ok(number) if number > 0 => Ok((number, tag & 7)),
            _ => Err(ProtobufError::IllegalTag(tag)),
        }
    }

    /// The next field; `None` at the end. Groups, which Kubernetes never writes, are skipped.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Payload<'b>)>, ProtobufError> {
        let mut groups = 0_usize;
        while !self.rest.is_empty() {
            let (number, wire) = self.tag()?;
            let payload = match wire {
                0 => Payload::Varint(self.varint()?),
                1 => Payload::Fixed64(u64::from_le_bytes(fixed(self.take(8)?)?)),
                2 => {
                    let length = usize::try_from(self.varint()?);
                    Payload::Bytes(self.take(length.map_err(|_| ProtobufError::Truncated)?)?)
                }
                3 => {
                    groups += 1;
                    continue;
                }
                4 if groups > 0 => {
                    groups -= 1;
                    continue;
                }
                5 => Payload::Fixed32(u32::from_le_bytes(fixed(self.take(4)?)?)),
                other => return Err(ProtobufError::IllegalTag(other)),
            };
            if groups == 0 {
                return Ok(Some((number, payload)));
            }
        }
        if groups == 0 {
            Ok(None)
        } else {
            Err(ProtobufError::Truncated)
        }
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], ProtobufError> {
    bytes.try_into().map_err(|_| ProtobufError::Truncated)
}

pub(super) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let (bytes, length) = varint_bytes(value);
    out.extend_from_slice(&bytes[..length]);
}

fn varint_bytes(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut length = 0;
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        bytes[length] = if value == 0 { low } else { low | 0x80 };
        length += 1;
        if value == 0 {
            return (bytes, length);
        }
    }
}

pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

pub(super) fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a field whose content `write` appends; its length goes in front afterwards.
pub(super) fn put_message<E>(
    out: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_varint(out, u64::from(number) << 3 | 2);
    let start = out.len();
    write(out)?;
    let (bytes, length) = varint_bytes((out.len() - start) as u64);
    out.splice(start..start, bytes[..length].iter().copied());
    Ok(())
}
