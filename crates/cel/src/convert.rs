//! Conversions between types: `int(x)`, `string(x)` and their kin.

use crate::errors::EvalError;
use crate::library::Outcome;
use crate::ops::{double_to_int, double_to_uint};
use crate::time::{Duration, Timestamp};
use crate::value::Value;

fn failed(message: impl AsRef<str>) -> Outcome {
    Some(Err(EvalError::new(message)))
}

pub(crate) fn to_bool(args: &[Value]) -> Outcome {
    Some(Ok(Value::Bool(match args {
        [Value::Bool(b)] => *b,
        [Value::String(s)] => match &**s {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => return failed("type conversion error from 'string' to 'bool'"),
        },
        _ => return None,
    })))
}

pub(crate) fn to_bytes(args: &[Value]) -> Outcome {
    Some(Ok(match args {
        [bytes @ Value::Bytes(_)] => bytes.clone(),
        [Value::String(s)] => Value::Bytes(s.as_bytes().into()),
        _ => return None,
    }))
}

pub(crate) fn to_double(args: &[Value]) -> Outcome {
    #[allow(
        clippy::cast_precision_loss,
        reason = "the conversion that was asked for"
    )]
    let value = match args {
        [Value::Double(n)] => *n,
        [Value::Int(n)] => *n as f64,
        [Value::Uint(n)] => *n as f64,
        [Value::String(s)] => match s.parse() {
            Ok(n) => n,
            Err(_) => return failed("type conversion error from 'string' to 'double'"),
        },
        _ => return None,
    };
    Some(Ok(Value::Double(value)))
}

pub(crate) fn to_int(args: &[Value]) -> Outcome {
    let value = match args {
        [Value::Int(n)] => *n,
        [Value::Uint(n)] => match i64::try_from(*n) {
            Ok(n) => n,
            Err(_) => return failed("integer overflow"),
        },
        [Value::Double(n)] => match double_to_int(*n) {
            Some(n) => n,
            None => return failed("integer overflow"),
        },
        [Value::String(s)] => match s.parse() {
            Ok(n) => n,
            Err(_) => return failed("type conversion error from 'string' to 'int'"),
        },
        [Value::Timestamp(t)] => t.seconds(),
        [Value::Duration(d)] => d.0,
        _ => return None,
    };
    Some(Ok(Value::Int(value)))
}

pub(crate) fn to_uint(args: &[Value]) -> Outcome {
    let value = match args {
        [Value::Uint(n)] => *n,
        [Value::Int(n)] => match u64::try_from(*n) {
            Ok(n) => n,
            Err(_) => return failed("unsigned integer overflow"),
        },
        [Value::Double(n)] => match double_to_uint(*n) {
            Some(n) => n,
            None => return failed("unsigned integer overflow"),
        },
        [Value::String(s)] => match s.parse() {
            Ok(n) => n,
            Err(_) => return failed("type conversion error from 'string' to 'uint'"),
        },
        _ => return None,
    };
    Some(Ok(Value::Uint(value)))
}

pub(crate) fn to_string(args: &[Value]) -> Outcome {
    Some(Ok(match args {
        [text @ Value::String(_)] => text.clone(),
        [Value::Bytes(b)] => match std::str::from_utf8(b) {
            Ok(text) => Value::from(text),
            Err(_) => return failed("invalid UTF-8 in bytes, cannot convert to string"),
        },
        [
            value @ (Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::Timestamp(_)
            | Value::Duration(_)),
        ] => Value::from(value.to_string()),
        [Value::Opaque(value)] => match value.to_json() {
            Some(serde_json::Value::String(text)) => Value::from(text),
            _ => return None,
        },
        _ => return None,
    }))
}

pub(crate) fn to_timestamp(args: &[Value]) -> Outcome {
    let value = match args {
        [Value::Timestamp(t)] => *t,
        [Value::Int(n)] => match Timestamp::new(*n, 0) {
            Some(t) => t,
            None => return failed("timestamp overflow"),
        },
        [Value::String(s)] => match Timestamp::parse(s) {
            Some(t) => t,
            None => {
                return failed(
                    "type conversion error from 'string' to 'google.protobuf.Timestamp'",
                );
            }
        },
        _ => return None,
    };
    Some(Ok(Value::Timestamp(value)))
}

/// The language's durations stay within ten thousand years.
const MAX_SECONDS: i128 = 315_576_000_000;

pub(crate) fn to_duration(args: &[Value]) -> Outcome {
    let value = match args {
        [Value::Duration(d)] => *d,
        [Value::String(s)] => match Duration::parse(s) {
            Some(d) if i128::from(d.0).abs() <= MAX_SECONDS * 1_000_000_000 => d,
            _ => {
                return failed("type conversion error from 'string' to 'google.protobuf.Duration'");
            }
        },
        _ => return None,
    };
    Some(Ok(Value::Duration(value)))
}

pub(crate) fn to_type(args: &[Value]) -> Outcome {
    let [value] = args else { return None };
    Some(Ok(Value::Type(value.type_name().into())))
}

/// A double as the reference prints it: shortest digits, an exponent below 1e-4 and from 1e6 on.
pub(crate) fn double_text(n: f64) -> String {
    if n.is_nan() {
        return "NaN".into();
    }
    if n.is_infinite() {
        return if n > 0.0 {
            "+Inf".into()
        } else {
            "-Inf".into()
        };
    }
    let scientific = format!("{n:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if n != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{n}")
}
