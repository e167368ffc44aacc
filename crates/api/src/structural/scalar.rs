//! Types, choices, texts and numbers: the checks of a value that need not look into it.

use serde_json::Value;

use super::validate::{Fault, FaultKind, Found};
use super::{Checks, Structural, Type, formats, numbers};

fn format_of(schema: &Structural) -> &str {
    schema
        .checks
        .as_ref()
        .and_then(|checks| checks.format.as_deref())
        .unwrap_or_default()
}

pub(super) fn has_types(schema: &Structural) -> bool {
    schema.ty != Type::None || schema.int_or_string || !format_of(schema).is_empty()
}

/// The names of the types that a schema allows.
fn allowed(schema: &Structural) -> &'static [&'static str] {
    if schema.int_or_string {
        return &["integer", "string"];
    }
    match schema.ty {
        Type::None => &[],
        Type::Object => &["object"],
        Type::Array => &["array"],
        Type::String => &["string"],
        Type::Integer => &["integer"],
        Type::Number => &["number"],
        Type::Boolean => &["boolean"],
    }
}

/// A number that Go would hold as an integer.
fn as_integer(value: &Value) -> Option<i64> {
    value.as_i64()
}

/// The schema type and format of a value.
fn found_type(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
        Value::Number(_) if as_integer(value).is_some() => ("integer", "int64"),
        Value::Number(_) => ("number", "float64"),
    }
}

pub(super) fn types(schema: &Structural, value: &Value, path: &str) -> Found {
    let wanted = allowed(schema);
    let wrong = |wanted: &str, found: &str| Found {
        faults: vec![Fault {
            name: Some(path.to_owned()),
            text: format!("{path} in body must be of type {wanted}: \"{found}\""),
            kind: FaultKind::Type(found.into()),
        }],
        matches: 0,
    };
    let held = Found {
        faults: Vec::new(),
        matches: 1,
    };
    if value.is_null() {
        return if wanted.is_empty() || schema.nullable {
            held
        } else {
            wrong(&wanted.join(","), "null")
        };
    }
    let format = format_of(schema);
    let (ty, found_format) = found_type(value);
    let whole_float = ty == "number"
        && value.as_f64().is_some_and(numbers::is_whole)
        && wanted.contains(&"integer");
    let integer_as_number = ty == "integer" && wanted.contains(&"number");
    let text_or_list = matches!(value, Value::String(_) | Value::Array(_));
    let fits = wanted.contains(&ty) || found_format == format || whole_float || integer_as_number;
    if !text_or_list && !format.is_empty() && !fits {
        return wrong(format, found_format);
    }
    let numeric = wanted.contains(&"number") || wanted.contains(&"integer");
    if !numeric && !format.is_empty() && text_or_list {
        return held;
    }
    if wanted.contains(&ty) || whole_float || integer_as_number {
        held
    } else {
        wrong(&wanted.join(","), ty)
    }
}

/// `enum`.
pub(super) fn choices(schema: &Structural, value: &Value, path: &str) -> Found {
    let Some(checks) = schema.checks.as_deref() else {
        return Found::default();
    };
    let allowed = &checks.one_of_values;
    // Null is never one of the choices, not even where it is listed.
    if allowed.is_empty() || (!value.is_null() && allowed.iter().any(|known| same(known, value))) {
        return Found::default();
    }
    let texts: Vec<String> = allowed
        .iter()
        .map(|known| match known {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    Found {
        faults: vec![Fault {
            name: Some(path.to_owned()),
            text: format!("{path} in body should be one of [{}]", texts.join(" ")),
            kind: FaultKind::Enum(value.clone(), texts),
        }],
        matches: 0,
    }
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        _ => left == right,
    }
}

pub(super) fn string(checks: Option<&Checks>, text: &str, path: &str) -> Found {
    let mut found = Found::default();
    let Some(checks) = checks else { return found };
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(most) = checks.max_length.filter(|most| length > *most) {
        found.push(Fault {
            name: Some(path.to_owned()),
            text: format!("{path} in body should be at most {most} chars long"),
            kind: FaultKind::TooLong(most),
        });
        return found;
    }
    if let Some(least) = checks.min_length.filter(|least| length < *least) {
        let wrong = format!("{path} in body should be at least {least} chars long");
        found.invalid(path, text, wrong);
        return found;
    }
    if let Some(pattern) = &checks.pattern {
        let more = match pattern.is_match(text) {
            Some(true) => return found,
            Some(false) => "",
            None => ", but pattern is invalid",
        };
        let pattern = pattern.as_str();
        let wrong = format!("{path} in body should match '{pattern}{more}'");
        found.invalid(path, text, wrong);
    }
    found
}

pub(super) fn format(checks: Option<&Checks>, text: &str, path: &str) -> Found {
    let mut found = Found::default();
    let format = checks.and_then(|checks| checks.format.as_deref());
    if let Some(format) = format.filter(|format| !formats::holds(format, text)) {
        found.push(Fault {
            name: Some(path.to_owned()),
            text: format!(
                "{path} in body must be of type {format}: {}",
                crate::field::quoted(text)
            ),
            kind: FaultKind::Type(text.into()),
        });
    }
    found
}

pub(super) fn number(schema: &Structural, value: &Value, path: &str) -> Found {
    let mut found = Found::default();
    let float = value.as_f64().unwrap_or_default();
    let exact = as_integer(value);
    let format = format_of(schema);
    let integer = schema.ty == Type::Integer && !schema.int_or_string;
    // Does the value fit its declared type?
    let fits = match (integer, exact, format) {
        (true, Some(value), "int32") => i32::try_from(value).is_ok(),
        (true, Some(_), _) => true,
        (true, None, _) => numbers::is_whole(float),
        (false, _, "float") if schema.ty == Type::Number => float.abs() <= f64::from(f32::MAX),
        _ => true,
    };
    if !fits {
        let ty = if integer { "integer" } else { "number" };
        let form = if format.is_empty() {
            "(default format)".to_owned()
        } else {
            format!("with format {format}")
        };
        found.loose(format!(
            "Checked value must be of type {ty} {form} in {path}"
        ));
    }
    let Some(checks) = schema.checks.as_deref() else {
        found.matches += 1;
        return found;
    };
    // An integer is compared with the whole part of a bound, unless the declared type says that
    // the bound can't be one.
    let native = |bound: f64| exact.filter(|_| !integer || bound.fract() == 0.0);
    if let Some(factor) = checks.multiple_of {
        let wrong = match native(factor) {
            Some(value) => {
                let factor = numbers::whole(factor);
                (factor <= 0 || value % factor != 0).then(|| factor.to_string())
            }
            None => {
                let times = if factor < 1.0 {
                    1.0 / factor * float
                } else {
                    float / factor
                };
                (factor <= 0.0 || !numbers::is_whole(times)).then(|| numbers::plain(factor))
            }
        };
        if let Some(factor) = wrong {
            found.invalid(
                path,
                value.clone(),
                format!("{path} in body should be a multiple of {factor}"),
            );
        }
    }
    if let Some(most) = checks.maximum {
        let open = checks.exclusive_maximum;
        let (beyond, shown) = match native(most) {
            Some(value) => {
                let most = numbers::whole(most);
                (value > most || (open && value == most), most.to_string())
            }
            None => (
                float > most || (open && float >= most),
                numbers::plain(most),
            ),
        };
        if beyond {
            let or_equal = if open { "" } else { " or equal to" };
            found.invalid(
                path,
                value.clone(),
                format!("{path} in body should be less than{or_equal} {shown}"),
            );
        }
    }
    if let Some(least) = checks.minimum {
        let open = checks.exclusive_minimum;
        let (below, shown) = match native(least) {
            Some(value) => {
                let least = numbers::whole(least);
                (value < least || (open && value == least), least.to_string())
            }
            None => (
                float < least || (open && float <= least),
                numbers::plain(least),
            ),
        };
        if below {
            let or_equal = if open { "" } else { " or equal to" };
            found.invalid(
                path,
                value.clone(),
                format!("{path} in body should be greater than{or_equal} {shown}"),
            );
        }
    }
    found.matches += 1;
    found
}
