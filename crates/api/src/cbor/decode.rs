//! From CBOR to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Number, Value};

use super::{CborError, MAX_DEPTH};

/// Arguments of these tags are bytes that are to become text later (RFC 8949, section 3.4.5.2).
const LATER_BASE64URL: u64 = 21;
const LATER_BASE64: u64 = 22;
const LATER_BASE16: u64 = 23;
const TIME_TEXT: u64 = 0;
const TIME_NUMBER: u64 = 1;
const BIG_POSITIVE: u64 = 2;
const BIG_NEGATIVE: u64 = 3;

/// Reads one item, which is all there is.
///
/// # Errors
/// It is malformed, or says what JSON can't.
pub fn decode(bytes: &[u8]) -> Result<Value, CborError> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value(0)?;
    if reader.at < bytes.len() {
        return Err(CborError::Extraneous(bytes.len() - reader.at, reader.at));
    }
    Ok(value)
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

/// What a head says.
#[derive(Clone, Copy)]
struct Head {
    first: u8,
    major: u8,
    /// `None`: of indefinite length.
    argument: Option<u64>,
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], CborError> {
        let end = self.at.checked_add(count).ok_or(CborError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(CborError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn number(&mut self, width: usize) -> Result<u64, CborError> {
        let taken = self.take(width)?;
        Ok(taken
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn head(&mut self) -> Result<Head, CborError> {
        let first = self.take(1)?[0];
        let argument = match first & 0x1f {
            small @ 0..=23 => Some(u64::from(small)),
            24 => Some(self.number(1)?),
            25 => Some(self.number(2)?),
            26 => Some(self.number(4)?),
            27 => Some(self.number(8)?),
            31 => None,
            _ => return Err(CborError::Head(first)),
        };
        Ok(Head {
            first,
            major: first >> 5,
            argument,
        })
    }

    /// Whether a container of indefinite length ends here.
    fn ends(&mut self) -> Result<bool, CborError> {
        let is_break = *self.bytes.get(self.at).ok_or(CborError::Truncated)? == 0xff;
        if is_break {
            self.at += 1;
        }
        Ok(is_break)
    }

    fn value(&mut self, depth: usize) -> Result<Value, CborError> {
        if depth > MAX_DEPTH {
            return Err(CborError::Depth);
        }
        let head = self.head()?;
        match (head.major, head.argument) {
            (0, Some(number)) => {
                let number = i64::try_from(number).map_err(|_| CborError::Integer)?;
                Ok(Value::from(number))
            }
            (1, Some(number)) => {
                let number = i64::try_from(number).map_err(|_| CborError::Integer)?;
                Ok(Value::from(-1 - number))
            }
            (2 | 3, _) => text(self.string(head)?).map(Value::String),
            (4, length) => self.array(length, depth),
            (5, length) => self.map(length, depth),
            (6, Some(tag)) => self.tagged(tag, depth),
            (7, Some(_)) => self.simple(head),
            _ => Err(CborError::Head(head.first)),
        }
    }

    /// A byte or text string; one of indefinite length comes in chunks of its own kind.
    fn string(&mut self, head: Head) -> Result<Vec<u8>, CborError> {
        if let Some(length) = head.argument {
            let length = usize::try_from(length).map_err(|_| CborError::Truncated)?;
            return self.take(length).map(<[u8]>::to_vec);
        }
        let mut whole = Vec::new();
        while !self.ends()? {
            let chunk = self.head()?;
            let length = match chunk.argument {
                Some(length) if chunk.major == head.major => length,
                _ => return Err(CborError::Head(chunk.first)),
            };
            let length = usize::try_from(length).map_err(|_| CborError::Truncated)?;
            whole.extend_from_slice(self.take(length)?);
        }
        Ok(whole)
    }

    fn array(&mut self, length: Option<u64>, depth: usize) -> Result<Value, CborError> {
        let mut items = Vec::new();
        let mut left = length;
        loop {
            match &mut left {
                Some(0) => break,
                Some(left) => *left -= 1,
                None if self.ends()? => break,
                None => {}
            }
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, length: Option<u64>, depth: usize) -> Result<Value, CborError> {
        let mut fields = Map::new();
        let mut left = length;
        loop {
            match &mut left {
                Some(0) => break,
                Some(left) => *left -= 1,
                None if self.ends()? => break,
                None => {}
            }
            let head = self.head()?;
            if !matches!(head.major, 2 | 3) {
                return Err(CborError::Key);
            }
            let name = text(self.string(head)?)?;
            let value = self.value(depth + 1)?;
            if fields.contains_key(&name) {
                return Err(CborError::Duplicate(name));
            }
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }

    /// What a tag is about. A tag is no level of its own, as in the reference's decoder, but for one
    /// within another: a chain of them has an end.
    fn tagged(&mut self, tag: u64, depth: usize) -> Result<Value, CborError> {
        let chained = self.bytes.get(self.at).is_some_and(|first| first >> 5 == 6);
        let depth = depth + usize::from(chained);
        match tag {
            LATER_BASE64URL | LATER_BASE64 | LATER_BASE16 => {
                let at = self.at;
                let head = self.head()?;
                if head.major != 2 {
                    self.at = at;
                    return self.value(depth);
                }
                let bytes = self.string(head)?;
                Ok(Value::String(match tag {
                    LATER_BASE64 => STANDARD.encode(bytes),
                    LATER_BASE64URL => URL_SAFE_NO_PAD.encode(bytes),
                    _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                }))
            }
            TIME_NUMBER => {
                let seconds = self.value(depth)?;
                let at = match &seconds {
                    Value::Number(number) => number
                        .as_i64()
                        .map(jiff::Timestamp::from_second)
                        .or_else(|| {
                            let duration =
                                jiff::SignedDuration::try_from_secs_f64(number.as_f64()?);
                            Some(duration.and_then(jiff::Timestamp::from_duration))
                        })
                        .and_then(Result::ok),
                    _ => None,
                };
                let at = at.ok_or(CborError::Forbidden("a time of this form"))?;
                Ok(Value::String(at.to_string()))
            }
            TIME_TEXT => match self.value(depth)? {
                time @ Value::String(_) => Ok(time),
                _ => Err(CborError::Forbidden("a time of this form")),
            },
            BIG_POSITIVE | BIG_NEGATIVE => Err(CborError::Forbidden("a bignum")),
            _ => self.value(depth),
        }
    }

    /// Floats and the few simple values that there are. Their argument has been read.
    fn simple(&mut self, head: Head) -> Result<Value, CborError> {
        let argument = head.argument.unwrap_or_default();
        let float = match head.first {
            0xf4 => return Ok(Value::Bool(false)),
            0xf5 => return Ok(Value::Bool(true)),
            0xf6 => return Ok(Value::Null),
            0xf9 => half(u16::try_from(argument).unwrap_or_default()),
            0xfa => f64::from(f32::from_bits(u32::try_from(argument).unwrap_or_default())),
            0xfb => f64::from_bits(argument),
            _ => return Err(CborError::Forbidden("this simple value")),
        };
        Number::from_f64(float)
            .map(Value::Number)
            .ok_or(CborError::Forbidden("NaN or infinity"))
    }
}

fn text(bytes: Vec<u8>) -> Result<String, CborError> {
    String::from_utf8(bytes).map_err(|_| CborError::Utf8)
}

/// A number of 16 bits: sign, five bits of exponent, ten of fraction (IEEE 754).
fn half(bits: u16) -> f64 {
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f64::from(bits & 0x3ff);
    let size = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}
