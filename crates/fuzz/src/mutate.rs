//! How inputs are changed: bytes anywhere, and values where there is JSON.

use rand::Rng;
use rand::seq::IndexedRandom as _;
use serde_json::{Map, Value, json};

/// Inputs grow no longer than this, in bytes.
const MOST: usize = 16 << 10;
const BETWEEN: &str = "\n---\n";

/// Words that mean something to somebody here.
const WORDS: &[&str] = &[
    "metadata",
    "managedFields",
    "name",
    "spec",
    "containers",
    "status",
    "$patch",
    "replace",
    "delete",
    "merge",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "finalizers",
    "labels",
    "f:",
    "k:{\"name\":\"a\"}",
    "v:1",
    ".",
    "path",
    "op",
    "add",
    "remove",
    "move",
    "copy",
    "test",
    "from",
    "value",
    "/spec/-",
    "/a~1b",
    "~0",
    "in",
    "notin",
    "exists",
    "!",
    "(",
    ")",
    ",",
    "==",
    "!=",
    ">",
    "<",
    "=",
    "1Ki",
    "1e3",
    "1n",
    "1u",
    "1m",
    "-1",
    "0.5",
    "9223372036854775807",
    "9223372036854775808",
    "1E",
    "1Ei",
    "&a",
    "*a",
    "<<:",
    "|",
    ">-",
    "- ",
    "!!binary",
    "? ",
    "---",
    "true",
    "null",
    "~",
    "[",
    "]",
    "{",
    "}",
    "\u{0}",
    "k8s\u{0}",
    "ä",
    "\u{10ffff}",
    "@",
    "..",
    "[*]",
    "[?(@.b==1)]",
    "*/5",
    "L",
    "@every 1h",
    "CRON_TZ=UTC ",
    "has(",
    ".all(i, ",
    ".exists(",
    ".map(",
    "size(",
    "? 1 : 2",
    "dyn(",
    "b\"\\xff\"",
    "r'''",
    "duration('1h')",
    "timestamp('2020-01-01T00:00:00Z')",
    "quantity('1Ki')",
    "ip('1.2.3.4')",
    ".matches('a*')",
    ".format([",
    "optional.of(",
    "[?",
    "cel.bind(",
    "int(",
    "string(",
    "&&",
    "||",
    "%",
    "in ",
    "-9223372036854775808",
];

/// Changes an input once or a few times.
pub(crate) fn mutate(rng: &mut impl Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = input.to_vec();
    if rng.random_ratio(1, 2)
        && let Some(changed) = documents(rng, &out, other)
    {
        out = changed;
        if rng.random_ratio(3, 4) {
            return out;
        }
    }
    for _ in 0..1 << rng.random_range(0..4) {
        bytes(rng, &mut out, other);
    }
    out.truncate(MOST);
    out
}

fn bytes(rng: &mut impl Rng, out: &mut Vec<u8>, other: &[u8]) {
    let at = rng.random_range(0..=out.len());
    let end = (at + rng.random_range(0..=8)).min(out.len());
    match rng.random_range(0..9) {
        0 if at < out.len() => out[at] ^= 1 << rng.random_range(0..8),
        1 if at < out.len() => out[at] = rng.random(),
        2 => drop(out.drain(at..end)),
        3 => out.insert(at, rng.random()),
        4 => {
            // Something said twice.
            let piece = out[at..end].to_vec();
            drop(out.splice(at..at, piece));
        }
        5 if !other.is_empty() => {
            let from = rng.random_range(0..other.len());
            let to = (from + rng.random_range(1..=32)).min(other.len());
            drop(out.splice(at..end, other[from..to].iter().copied()));
        }
        6 if at < out.len() => {
            let edges = [0, 1, 0x7f, 0x80, 0xff, 0x1f, b'"', b'{', b' '];
            out[at] = *edges.choose(rng).unwrap_or(&0);
        }
        7 => out.truncate(at),
        _ => {
            let word = WORDS.choose(rng).copied().unwrap_or_default();
            drop(out.splice(at..at, word.bytes()));
        }
    }
}

/// Changes a value in one of the documents, when they are JSON.
fn documents(rng: &mut impl Rng, input: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let parse = |bytes: &[u8]| -> Option<Vec<Value>> {
        std::str::from_utf8(bytes)
            .ok()?
            .split(BETWEEN)
            .map(|document| serde_json::from_str(document).ok())
            .collect()
    };
    let mut values = parse(input)?;
    let others = parse(other).unwrap_or_default();
    let which = rng.random_range(0..values.len());
    value(rng, values.get_mut(which)?, others.first());
    let texts: Vec<String> = values.iter().map(Value::to_string).collect();
    Some(texts.join(BETWEEN).into_bytes())
}

fn value(rng: &mut impl Rng, value_: &mut Value, other: Option<&Value>) {
    // Down some way, then a change.
    match value_ {
        Value::Array(items) if !items.is_empty() && rng.random_ratio(4, 5) => {
            let at = rng.random_range(0..items.len());
            match rng.random_range(0..8) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, items[at].clone()),
                2 => items.reverse(),
                _ => value(rng, &mut items[at], other),
            }
        }
        Value::Object(fields) if !fields.is_empty() && rng.random_ratio(4, 5) => {
            field(rng, fields, other);
        }
        _ => *value_ = fresh(rng, other),
    }
}

fn field(rng: &mut impl Rng, fields: &mut Map<String, Value>, other: Option<&Value>) {
    let names: Vec<String> = fields.keys().cloned().collect();
    let Some(name) = names.choose(rng) else {
        return;
    };
    match rng.random_range(0..10) {
        0 => drop(fields.remove(name)),
        1 => {
            let new = WORDS.choose(rng).copied().unwrap_or_default();
            fields.insert(new.to_owned(), fresh(rng, other));
        }
        2 => {
            // The same under another name.
            let moved = fields.remove(name).unwrap_or_default();
            let new = names.choose(rng).unwrap_or(name);
            fields.insert(new.clone(), moved);
        }
        _ => {
            if let Some(inner) = fields.get_mut(name) {
                value(rng, inner, other);
            }
        }
    }
}

fn fresh(rng: &mut impl Rng, other: Option<&Value>) -> Value {
    match rng.random_range(0..12) {
        0 => Value::Null,
        1 => Value::Bool(rng.random()),
        2 => json!(0),
        3 => json!(i64::MAX),
        4 => json!(-1),
        5 => json!(1.5),
        6 => json!(""),
        7 => json!([]),
        8 => json!({}),
        9 => other.cloned().unwrap_or_default(),
        _ => json!(WORDS.choose(rng).copied().unwrap_or_default()),
    }
}
