//! Regular expressions, in RE2's syntax.
//!
//! The engine here knows more and differs in places: classes as `\d` mean ASCII in RE2, and
//! brackets inside brackets mean themselves. Patterns are translated, then kept, because the same
//! few patterns are matched again and again.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;

use super::{Library, Outcome};
use crate::errors::EvalError;
use crate::value::Value;

pub(crate) const LIBRARY: Library = Library {
    declarations: "
find string_find_string string.(string)->string
findAll string_find_all_string string.(string)->list<string>
findAll string_find_all_string_int string.(string,int)->list<string>
",
    functions: &[("find", find), ("findAll", find_all)],
};

/// Patterns kept at most.
const KEPT: usize = 1_000;
/// Most memory for one compiled pattern, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

static PATTERNS: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);

/// Compiles a pattern, or finds it compiled.
pub(crate) fn compile(pattern: &str) -> Result<Regex, EvalError> {
    let mut kept = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = kept.get(pattern) {
        return Ok(regex.clone());
    }
    let regex = regex::RegexBuilder::new(&translate(pattern))
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| {
            let text = error.to_string();
            let reason = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            EvalError::new(format!("error parsing regexp: {reason}: `{pattern}`"))
        })?;
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

/// RE2's syntax in the engine's.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let (mut class, mut fresh) = (false, false);
    while let Some(c) = chars.next() {
        let begins = std::mem::take(&mut fresh);
        match c {
            '\\' => match chars.next() {
                Some('d') => out.push_str(if class { "0-9" } else { "[0-9]" }),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str(if class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('s') => out.push_str(if class {
                    "\\t\\n\\f\\r "
                } else {
                    "[\\t\\n\\f\\r ]"
                }),
                Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
                Some('b') => out.push_str("(?-u:\\b)"),
                Some('B') => out.push_str("(?-u:\\B)"),
                Some('Q') if !class => {
                    let mut literal = String::new();
                    while let Some(c) = chars.next() {
                        if c == '\\' && chars.peek() == Some(&'E') {
                            chars.next();
                            break;
                        }
                        literal.push(c);
                    }
                    out.push_str(&regex::escape(&literal));
                }
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            '[' if !class => {
                class = true;
                fresh = true;
                out.push('[');
            }
            '[' if chars.peek() == Some(&':') => {
                // A named class, as [[:alpha:]].
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' => out.push_str("\\["),
            '^' if class && begins => {
                fresh = true;
                out.push('^');
            }
            ']' if class && begins => out.push_str("\\]"),
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                out.push('\\');
                out.push(c);
            }
            '-' if class && chars.peek() == Some(&'-') => out.push_str("\\-"),
            c => out.push(c),
        }
    }
    out
}

/// `text.matches(pattern)`.
pub(crate) fn matches(args: &[Value]) -> Outcome {
    let [Value::String(text), Value::String(pattern)] = args else {
        return None;
    };
    Some(compile(pattern).map(|regex| Value::Bool(regex.is_match(text))))
}

fn illegal(pattern: &str) -> impl Fn(EvalError) -> EvalError {
    move |_| EvalError::new(format!("Illegal regex: {pattern}"))
}

fn find(args: &[Value]) -> Outcome {
    let [Value::String(text), Value::String(pattern)] = args else {
        return None;
    };
    Some(
        compile(pattern)
            .map_err(illegal(pattern))
            .map(|regex| Value::from(regex.find(text).map_or("", |m| m.as_str()))),
    )
}

fn find_all(args: &[Value]) -> Outcome {
    let (text, pattern, limit) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, -1),
        [
            Value::String(text),
            Value::String(pattern),
            Value::Int(limit),
        ] => (text, pattern, *limit),
        _ => return None,
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Some(compile(pattern).map_err(illegal(pattern)).map(|regex| {
        Value::list(
            regex
                .find_iter(text)
                .take(limit)
                .map(|m| Value::from(m.as_str()))
                .collect(),
        )
    }))
}
