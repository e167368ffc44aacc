//! The cost of what was evaluated.

use super::{REGEX, TRAVERSAL, scaled};
use crate::library::format::NamedFormat;
use crate::value::Value;

/// Making a list.
pub(crate) const LIST_BASE: u64 = 10;
/// Making a map.
pub(crate) const MAP_BASE: u64 = 30;
/// Making an object.
pub(crate) const STRUCT_BASE: u64 = 40;

/// `a == b`.
pub(crate) fn equality(a: &Value, b: &Value) -> u64 {
    if matches!(a, Value::Opaque(_)) {
        return 1;
    }
    scaled(a.size().min(b.size()), TRAVERSAL)
}

fn text(args: &[Value], at: usize) -> u64 {
    scaled(args.get(at).map_or(0, Value::size), TRAVERSAL)
}

fn pattern(args: &[Value]) -> u64 {
    let subject = scaled(1 + args.first().map_or(0, Value::size), TRAVERSAL);
    subject.saturating_mul(scaled(args.get(1).map_or(0, Value::size), REGEX))
}

/// Each element of one list against each of another.
fn product(args: &[Value]) -> u64 {
    args.iter().map(Value::size).product()
}

/// Reading a whole tree.
fn traversal(value: &Value) -> u64 {
    match value {
        // Here the reference rounds down.
        Value::String(s) => s.len() as u64 / 10,
        Value::Bytes(b) => b.len() as u64 / 10,
        Value::List(list) => list.items.iter().map(traversal).sum(),
        Value::Map(map) => map
            .iter()
            .map(|(k, v)| traversal(&k.value()) + traversal(v))
            .sum(),
        _ => 1,
    }
}

/// A call of a function. `overload` is known where the types allowed just one.
pub(crate) fn call(
    name: &str,
    overload: Option<&str>,
    args: &[Value],
    result: Option<&Value>,
) -> u64 {
    match name {
        "check" => 350_000,
        "fieldSelector" | "labelSelector" => {
            let length = args.get(1).map_or(0, Value::size);
            LIST_BASE + scaled(length, TRAVERSAL) + scaled(scaled(length, 0.5), 50.0)
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            args.first().map_or(0, traversal)
        }
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => text(args, 0),
        "ip" if matches!(args.first(), Some(Value::String(_))) => text(args, 0),
        "replace" | "split" | "ip.isCanonical" => {
            scaled(args.first().map_or(0, Value::size), 2.0 * TRAVERSAL)
        }
        "join" => scaled(result.map_or(0, Value::size), 2.0 * TRAVERSAL),
        "find" | "findAll" => pattern(args),
        "containsIP" | "containsCIDR" => {
            let size = args.first().map_or(0, Value::size);
            let mut cost = scaled(size + size, TRAVERSAL);
            if name == "containsCIDR" {
                cost += scaled(size, TRAVERSAL) + 1;
            }
            if matches!(args.get(1), Some(Value::String(_))) {
                cost += text(args, 1);
            }
            cost
        }
        "sets.contains" | "sets.intersects" => 1 + product(args),
        "sets.equivalent" => 1 + 2 * product(args),
        "validate" => {
            let longest = args
                .first()
                .and_then(Value::downcast::<NamedFormat>)
                .map_or(0, |f| f.regex_size());
            let subject = scaled(1 + args.get(1).map_or(0, Value::size), TRAVERSAL);
            subject.saturating_mul(scaled(longest, REGEX))
        }
        _ => standard(overload.unwrap_or_default(), args),
    }
}

fn standard(overload: &str, args: &[Value]) -> u64 {
    let size = |at: usize| args.get(at).map_or(0, Value::size);
    match overload {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string"
        | "strings_quote" | "string_format" => text(args, 0),
        "in_list" => size(1),
        "add_string" | "add_bytes" => scaled(size(0) + size(1), TRAVERSAL),
        // The reference shares the parts of a joined list; here they are copied, and large
        // copies are paid for.
        "add_list" => 1 + (size(0) + size(1)) / 64,
        "matches" | "matches_string" => pattern(args),
        "contains_string" => text(args, 0).saturating_mul(text(args, 1)),
        id if ["less_", "greater_"].iter().any(|p| id.starts_with(p))
            && (id.ends_with("_string") || id.ends_with("_bytes")) =>
        {
            scaled(size(0).min(size(1)), TRAVERSAL)
        }
        // A list can be joined without its type being known.
        "" => match args {
            [Value::List(a), Value::List(b)] => 1 + (a.items.len() + b.items.len()) as u64 / 64,
            _ => 1,
        },
        _ => 1,
    }
}
