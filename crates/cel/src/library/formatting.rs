//! `'%s is %d'.format([a, b])`.

use super::Outcome;
use crate::convert::{double_text, to_string};
use crate::errors::EvalError;
use crate::value::Value;

/// Most digits after the point.
const MAX_PRECISION: usize = 1_000;
const DEFAULT_PRECISION: usize = 6;

pub(crate) fn format(args: &[Value]) -> Outcome {
    let [Value::String(template), Value::List(list)] = args else {
        return None;
    };
    Some(
        fill(template, &list.items)
            .map(Value::from)
            .map_err(EvalError::new),
    )
}

fn fill(template: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = template.chars();
    let mut next = 0;
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut clause = rest.next().ok_or("unexpected end of string")?;
        if clause == '%' {
            out.push('%');
            continue;
        }
        let arg = args
            .get(next)
            .ok_or_else(|| format!("index {next} out of range"))?;
        next += 1;
        let mut precision = None;
        if clause == '.' {
            let mut digits = String::new();
            clause = loop {
                let c = rest.next().ok_or(
                    "error while parsing precision: could not find end of precision specifier",
                )?;
                if !c.is_ascii_digit() {
                    break c;
                }
                digits.push(c);
            };
            let value: usize = digits.parse().map_err(
                |_| "error while parsing precision: error while converting precision to integer",
            )?;
            if value > MAX_PRECISION {
                return Err(format!(
                    "error while parsing precision: precision {value} exceeds maximum allowed precision {MAX_PRECISION}"
                ));
            }
            precision = Some(value);
        }
        out.push_str(&clause_text(
            clause,
            precision.unwrap_or(DEFAULT_PRECISION),
            arg,
        )?);
    }
    Ok(out)
}

fn clause_text(clause: char, precision: usize, arg: &Value) -> Result<String, String> {
    match clause {
        's' => string(arg),
        'd' => match arg {
            Value::Int(n) => Ok(n.to_string()),
            Value::Uint(n) => Ok(n.to_string()),
            Value::Double(n) => Ok(special(*n).unwrap_or_else(|| n.to_string())),
            _ => Err(mismatch("decimal clause can only be used on numbers", arg)),
        },
        'f' | 'e' => {
            let n = number(arg).ok_or_else(|| {
                let words = if clause == 'f' {
                    "fixed-point"
                } else {
                    "scientific"
                };
                mismatch(&format!("{words} clause can only be used on doubles"), arg)
            })?;
            Ok(special(n).unwrap_or_else(|| {
                if clause == 'f' {
                    format!("{n:.precision$}")
                } else {
                    scientific(n, precision)
                }
            }))
        }
        'b' => match arg {
            Value::Bool(b) => Ok(u8::from(*b).to_string()),
            Value::Int(n) => Ok(signed(*n, |n| format!("{n:b}"))),
            Value::Uint(n) => Ok(format!("{n:b}")),
            _ => Err(mismatch(
                "only integers and bools can be formatted as binary",
                arg,
            )),
        },
        'o' => match arg {
            Value::Int(n) => Ok(signed(*n, |n| format!("{n:o}"))),
            Value::Uint(n) => Ok(format!("{n:o}")),
            _ => Err(mismatch("octal clause can only be used on integers", arg)),
        },
        'x' | 'X' => {
            let octets = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let text = match arg {
                Value::Int(n) => signed(*n, |n| format!("{n:x}")),
                Value::Uint(n) => format!("{n:x}"),
                Value::String(s) => octets(s.as_bytes()),
                Value::Bytes(b) => octets(b),
                _ => {
                    return Err(mismatch(
                        "only integers, byte buffers, and strings can be formatted as hex",
                        arg,
                    ));
                }
            };
            Ok(if clause == 'X' {
                text.to_uppercase()
            } else {
                text
            })
        }
        other => Err(format!(
            "could not parse formatting clause: unrecognized formatting clause \"{other}\""
        )),
    }
}

fn mismatch(rule: &str, arg: &Value) -> String {
    format!(
        "error during formatting: {rule}, was given {}",
        arg.type_name()
    )
}

#[allow(
    clippy::cast_precision_loss,
    reason = "the conversion that was asked for"
)]
fn number(arg: &Value) -> Option<f64> {
    match arg {
        Value::Double(n) => Some(*n),
        Value::Int(n) => Some(*n as f64),
        Value::Uint(n) => Some(*n as f64),
        Value::String(s) => match &**s {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn special(n: f64) -> Option<String> {
    if n.is_nan() {
        return Some("NaN".into());
    }
    n.is_infinite().then(|| {
        if n > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        }
    })
}

fn signed(n: i64, digits: fn(u64) -> String) -> String {
    format!(
        "{}{}",
        if n < 0 { "-" } else { "" },
        digits(n.unsigned_abs())
    )
}

/// With a sign and two digits in the exponent.
fn scientific(n: f64, precision: usize) -> String {
    let text = format!("{n:.precision$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

fn string(arg: &Value) -> Result<String, String> {
    Ok(match arg {
        Value::Null => "null".into(),
        Value::Type(name) => name.to_string(),
        Value::Double(n) => special(*n).unwrap_or_else(|| double_text(*n)),
        Value::List(list) => {
            let items: Result<Vec<_>, _> = list.items.iter().map(string).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Map(map) => {
            let mut entries = Vec::with_capacity(map.len());
            for (key, value) in map.iter() {
                entries.push((string(&key.value())?, string(value)?));
            }
            entries.sort();
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(k, v)| format!("{k}: {v}"))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => match to_string(std::slice::from_ref(other)) {
            Some(Ok(Value::String(text))) => text.to_string(),
            Some(Err(error)) => return Err(error.to_string()),
            _ => {
                return Err(mismatch(
                    "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps",
                    other,
                ));
            }
        },
    })
}
