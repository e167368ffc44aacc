//! Text. Positions count code points.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Library, Outcome, formatting, lists};
use crate::errors::EvalError;
use crate::value::Value;

pub(crate) const LIBRARY: Library = Library {
    declarations: "
charAt string_char_at_int string.(int)->string
indexOf string_index_of_string string.(string)->int
indexOf string_index_of_string_int string.(string,int)->int
lastIndexOf string_last_index_of_string string.(string)->int
lastIndexOf string_last_index_of_string_int string.(string,int)->int
lowerAscii string_lower_ascii string.()->string
upperAscii string_upper_ascii string.()->string
replace string_replace_string_string string.(string,string)->string
replace string_replace_string_string_int string.(string,string,int)->string
split string_split_string string.(string)->list<string>
split string_split_string_int string.(string,int)->list<string>
substring string_substring_int string.(int)->string
substring string_substring_int_int string.(int,int)->string
trim string_trim string.()->string
format string_format string.(list<dyn>)->string
strings.quote strings_quote (string)->string
join list_join list<string>.()->string
join list_join_string list<string>.(string)->string
",
    functions: &[
        ("charAt", char_at),
        ("indexOf", |a| index_of(a, false)),
        ("lastIndexOf", |a| index_of(a, true)),
        ("lowerAscii", |a| text(a, |s| s.to_ascii_lowercase())),
        ("upperAscii", |a| text(a, |s| s.to_ascii_uppercase())),
        ("replace", replace),
        ("split", split),
        ("substring", substring),
        ("trim", |a| text(a, |s| s.trim().to_owned())),
        ("format", formatting::format),
        ("strings.quote", |a| text(a, quote)),
        ("join", join),
    ],
};

/// What the general environment has beyond Kubernetes'.
pub(crate) const ENCODERS: Library = Library {
    declarations: "
reverse string_reverse string.()->string
base64.decode base64_decode_string (string)->bytes
base64.encode base64_encode_bytes (bytes)->string
",
    functions: &[
        ("reverse", |a| text(a, |s| s.chars().rev().collect())),
        ("base64.decode", decode),
        ("base64.encode", encode),
    ],
};

/// For patches as text.
pub(crate) const JSON_PATCH: Library = Library {
    declarations: "
jsonpatch.escapeKey string_jsonpatch_escapeKey_string (string)->string
",
    functions: &[("jsonpatch.escapeKey", |a| {
        text(a, |s| s.replace('~', "~0").replace('/', "~1"))
    })],
};

fn text(args: &[Value], change: fn(&str) -> String) -> Outcome {
    let [Value::String(s)] = args else {
        return None;
    };
    Some(Ok(Value::from(change(s))))
}

fn failed(message: impl AsRef<str>) -> Outcome {
    Some(Err(EvalError::new(message)))
}

fn out_of_range(index: i64) -> Outcome {
    failed(format!("index out of range: {index}"))
}

fn char_at(args: &[Value]) -> Outcome {
    let [Value::String(s), Value::Int(index)] = args else {
        return None;
    };
    let count = s.chars().count();
    match usize::try_from(*index) {
        Ok(at) if at <= count => Some(Ok(Value::from(
            s.chars().nth(at).map(String::from).unwrap_or_default(),
        ))),
        _ => out_of_range(*index),
    }
}

fn index_of(args: &[Value], last: bool) -> Outcome {
    let (s, part, offset) = match args {
        [Value::List(list), item] => return Some(Ok(lists::position(&list.items, item, last))),
        [Value::String(s), Value::String(part)] => (s, part, None),
        [Value::String(s), Value::String(part), Value::Int(offset)] => (s, part, Some(*offset)),
        _ => return None,
    };
    let hay: Vec<char> = s.chars().collect();
    let needle: Vec<char> = part.chars().collect();
    let length = i64::try_from(hay.len()).unwrap_or(i64::MAX);
    let offset = match offset {
        Some(offset) if offset < 0 => return out_of_range(offset),
        Some(offset) => offset,
        None if last && needle.is_empty() => length,
        None if last => length - 1,
        None => 0,
    };
    if needle.is_empty() {
        return Some(Ok(Value::Int(offset.min(length))));
    }
    let none = Some(Ok(Value::Int(-1)));
    if offset >= length || needle.len() > hay.len() {
        return none;
    }
    let start = usize::try_from(offset).unwrap_or(0);
    let matches = |at: &usize| hay[*at..].starts_with(&needle);
    let end = hay.len() - needle.len();
    let found = if last {
        (0..=start.min(end)).rev().find(matches)
    } else {
        (start..=end).find(matches)
    };
    match found.and_then(|at| i64::try_from(at).ok()) {
        Some(at) => Some(Ok(Value::Int(at))),
        None => none,
    }
}

fn replace(args: &[Value]) -> Outcome {
    let (s, from, to, limit) = match args {
        [Value::String(s), Value::String(from), Value::String(to)] => (s, from, to, -1),
        [
            Value::String(s),
            Value::String(from),
            Value::String(to),
            Value::Int(limit),
        ] => (s, from, to, *limit),
        _ => return None,
    };
    let replaced = match usize::try_from(limit) {
        Ok(limit) => s.replacen(&**from, to, limit),
        Err(_) => s.replace(&**from, to),
    };
    Some(Ok(Value::from(replaced)))
}

fn split(args: &[Value]) -> Outcome {
    let (s, separator, limit) = match args {
        [Value::String(s), Value::String(separator)] => (s, separator, -1),
        [
            Value::String(s),
            Value::String(separator),
            Value::Int(limit),
        ] => (s, separator, *limit),
        _ => return None,
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<Value> = if limit == 0 {
        Vec::new()
    } else if separator.is_empty() {
        // Go splits between characters, without the empty ends.
        let mut parts = Vec::new();
        let mut rest = &**s;
        while let Some(c) = rest.chars().next() {
            if parts.len() + 1 == limit {
                parts.push(Value::from(rest));
                break;
            }
            parts.push(Value::from(&rest[..c.len_utf8()]));
            rest = &rest[c.len_utf8()..];
        }
        parts
    } else {
        s.splitn(limit, &**separator).map(Value::from).collect()
    };
    Some(Ok(Value::list(parts)))
}

fn substring(args: &[Value]) -> Outcome {
    let (s, start, end) = match args {
        [Value::String(s), Value::Int(start)] => (s, *start, None),
        [Value::String(s), Value::Int(start), Value::Int(end)] => (s, *start, Some(*end)),
        _ => return None,
    };
    let length = i64::try_from(s.chars().count()).unwrap_or(i64::MAX);
    if let Some(end) = end.filter(|end| start > *end) {
        return failed(format!(
            "invalid substring range. start: {start}, end: {end}"
        ));
    }
    for index in [Some(start), end].into_iter().flatten() {
        if index < 0 || index > length {
            return out_of_range(index);
        }
    }
    let skip = usize::try_from(start).unwrap_or(0);
    let take = usize::try_from(end.unwrap_or(length) - start).unwrap_or(0);
    Some(Ok(Value::from(
        s.chars().skip(skip).take(take).collect::<String>(),
    )))
}

fn join(args: &[Value]) -> Outcome {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return None,
    };
    let mut parts = Vec::with_capacity(list.items.len());
    for item in &list.items {
        match item {
            Value::String(s) => parts.push(&**s),
            other => return failed(format!("join: invalid input: {other}")),
        }
    }
    Some(Ok(Value::from(parts.join(separator))))
}

fn quote(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn decode(args: &[Value]) -> Outcome {
    let [Value::String(s)] = args else {
        return None;
    };
    let plain = base64::engine::general_purpose::STANDARD_NO_PAD;
    let decoded = STANDARD.decode(&**s).or_else(|_| plain.decode(&**s));
    Some(
        decoded
            .map(|b| Value::Bytes(b.into()))
            .map_err(|e| EvalError::new(e.to_string())),
    )
}

fn encode(args: &[Value]) -> Outcome {
    let [Value::Bytes(b)] = args else { return None };
    Some(Ok(Value::from(STANDARD.encode(b))))
}
