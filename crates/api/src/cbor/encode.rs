//! From JSON to CBOR, in the shortest form.

use serde_json::{Number, Value};

/// Major types, in the upper three bits of a head.
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1 << 5;
const BYTES: u8 = 2 << 5;
const ARRAY: u8 = 4 << 5;
pub(super) const MAP: u8 = 5 << 5;

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const FLOAT32: u8 = 0xfa;
const FLOAT64: u8 = 0xfb;

pub(super) fn value(out: &mut Vec<u8>, given: &Value) {
    match given {
        Value::Null => out.push(NULL),
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Number(number) => self::number(out, number),
        Value::String(string) => text(out, string),
        Value::Array(items) => {
            head(out, ARRAY, items.len() as u64);
            for item in items {
                value(out, item);
            }
        }
        Value::Object(fields) => {
            head(out, MAP, fields.len() as u64);
            for (name, field) in fields {
                text(out, name);
                value(out, field);
            }
        }
    }
}

fn number(out: &mut Vec<u8>, number: &Number) {
    if let Some(positive) = number.as_u64() {
        head(out, UNSIGNED, positive);
    } else if let Some(negative) = number.as_i64() {
        // -1 is 0, -2 is 1, and so on.
        head(out, NEGATIVE, !negative.cast_unsigned());
    } else {
        let double = number.as_f64().unwrap_or_default();
        #[allow(
            clippy::cast_possible_truncation,
            reason = "used only when nothing is lost"
        )]
        let single = double as f32;
        if f64::from(single).to_bits() == double.to_bits() {
            out.push(FLOAT32);
            out.extend_from_slice(&single.to_be_bytes());
        } else {
            out.push(FLOAT64);
            out.extend_from_slice(&double.to_be_bytes());
        }
    }
}

/// Text goes as a byte string, as Go writes it: nobody has to look for UTF-8 in it.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    head(out, BYTES, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A major type and its argument.
pub(super) fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    if let Ok(small) = u8::try_from(argument) {
        if small < 24 {
            out.push(major | small);
        } else {
            out.extend_from_slice(&[major | 24, small]);
        }
    } else if let Ok(short) = u16::try_from(argument) {
        out.push(major | 25);
        out.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(argument) {
        out.push(major | 26);
        out.extend_from_slice(&word.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend_from_slice(&argument.to_be_bytes());
    }
}
