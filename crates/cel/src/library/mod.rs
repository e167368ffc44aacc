//! Functions, by library. Each library is a table of declarations and a table of functions.
//!
//! A declaration is one line of text, `name overload receiver.(arguments)->result`: the set of
//! overloads reads as the documentation does, and is parsed once per environment.

pub(crate) mod authorizer;
pub(crate) mod format;
pub(crate) mod formatting;
pub(crate) mod lists;
pub(crate) mod math;
pub(crate) mod net;
pub(crate) mod optional;
pub(crate) mod quantity;
pub(crate) mod regex;
pub(crate) mod semver;
pub(crate) mod sets;
pub(crate) mod standard;
pub(crate) mod strings;
pub(crate) mod urls;

use std::sync::Arc;

use crate::errors::EvalError;
use crate::types::Type;
use crate::value::Value;

/// What a function gives; `None` where no overload takes these arguments.
pub(crate) type Outcome = Option<Result<Value, EvalError>>;

/// A function over its arguments, the receiver first.
pub(crate) type Function = fn(&[Value]) -> Outcome;

/// Declarations and what carries them out, by function.
pub(crate) struct Library {
    pub(crate) declarations: &'static str,
    pub(crate) functions: &'static [(&'static str, Function)],
}

/// A signature of a function.
#[derive(Debug, Clone)]
pub(crate) struct Overload {
    pub(crate) id: Arc<str>,
    pub(crate) member: bool,
    /// The receiver first, where there is one.
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    /// The type variables used.
    pub(crate) params: Vec<Arc<str>>,
}

/// Reads a line of a library's declarations.
pub(crate) fn declaration(line: &str) -> (&str, Overload) {
    let mut words = line.split_ascii_whitespace();
    let mut word = || words.next().expect("a declaration has three words");
    let (name, id, signature) = (word(), word(), word());
    let (left, result) = signature
        .split_once(")->")
        .expect("a signature has a result");
    let (receiver, arguments) = left.split_once('(').expect("a signature has arguments");
    let mut params = Vec::new();
    let mut args = Vec::new();
    let member = receiver.ends_with('.');
    if member {
        args.push(type_of(receiver.trim_end_matches('.'), &mut params));
    }
    args.extend(
        split(arguments)
            .into_iter()
            .map(|a| type_of(a, &mut params)),
    );
    let result = type_of(result, &mut params);
    (
        name,
        Overload {
            id: id.into(),
            member,
            args,
            result,
            params,
        },
    )
}

/// Splits at the commas that are not inside `<>`.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if start < text.len() {
        parts.push(&text[start..]);
    }
    parts
}

fn type_of(text: &str, params: &mut Vec<Arc<str>>) -> Type {
    if let Some((name, rest)) = text.split_once('<') {
        let inner = split(rest.strip_suffix('>').unwrap_or(rest));
        let mut inner = inner
            .into_iter()
            .map(|t| type_of(t, params))
            .collect::<Vec<_>>()
            .into_iter();
        let mut next = || inner.next().unwrap_or(Type::Dyn);
        return match name {
            "list" => Type::list(next()),
            "map" => Type::map(next(), next()),
            "type" => Type::Type(Arc::new(next())),
            _ => Type::optional(next()),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "A" | "B" => {
            if !params.iter().any(|p| **p == *text) {
                params.push(text.into());
            }
            Type::param(text)
        }
        name => Type::opaque(name),
    }
}
