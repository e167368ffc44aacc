//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386), with the limits and the habits of the
//! reference.
//!
//! The reference is more lenient than the RFCs in ways that clients have come to rely on:
//! negative indices count from the end, `replace` of an absent field adds it, `test` of an absent
//! field passes against null, and a merge patch drops nulls inside new lists. The operations are
//! therefore written out here instead of taken from a strict library.

use serde_json::{Map, Value};

use super::PatchError;
use super::golang;

/// Most operations in one JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// Most bytes that the `copy` operations of one JSON patch may add, counted as JSON text.
pub const MAX_COPY_BYTES: usize = 3 * 1024 * 1024;

/// Applies a JSON patch (RFC 6902): all of it, or an error.
///
/// # Errors
/// [`PatchError::Invalid`] when it is not a JSON patch, [`PatchError::TooLarge`] beyond
/// [`MAX_OPERATIONS`], [`PatchError::Unprocessable`] when an operation does not apply or a test
/// fails.
pub fn json_patch(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = match patch {
        Value::Null => &[][..],
        Value::Array(operations) => operations,
        other => {
            return Err(not_decodable(
                other,
                "Go value of type []handlers.jsonPatchOp",
            ));
        }
    };
    for operation in operations {
        check(operation)?;
    }
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut document = object.clone();
    let mut copied = 0;
    for operation in operations {
        run(&mut document, operation, &mut copied).map_err(PatchError::Unprocessable)?;
    }
    Ok(document)
}

/// Applies a JSON merge patch (RFC 7386).
///
/// # Errors
/// [`PatchError::Invalid`] when the patch is not an object.
pub fn merge_patch(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(fields) = patch else {
        return Err(if patch.is_null() {
            PatchError::Invalid("Invalid JSON Patch".to_owned())
        } else {
            not_decodable(patch, "Go value of type map[string]interface {}")
        });
    };
    let mut document = object.clone();
    if let Value::Object(into) = &mut document {
        merge(into, fields);
    } else {
        document = without_nulls(patch);
    }
    Ok(document)
}

fn not_decodable(value: &Value, wanted: &str) -> PatchError {
    let found = match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Null | Value::Object(_) => "object",
    };
    PatchError::Invalid(format!(
        "error decoding patch: json: cannot unmarshal {found} into {wanted}"
    ))
}

/// What Go's decoder would refuse of one operation.
fn check(operation: &Value) -> Result<(), PatchError> {
    let fields = match operation {
        Value::Object(fields) => fields,
        Value::Null => return Ok(()),
        other => {
            return Err(not_decodable(
                other,
                "Go value of type handlers.jsonPatchOp",
            ));
        }
    };
    for name in ["op", "path", "from"] {
        match fields.get(name) {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(other) => {
                let wanted = format!("Go struct field jsonPatchOp.{name} of type string");
                return Err(not_decodable(other, &wanted));
            }
        }
    }
    Ok(())
}

fn run(document: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), String> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let kind = text("op").unwrap_or("unknown");
    let path = || text("path").ok_or_else(|| format!("{kind} operation failed to decode path"));
    let from = || text("from").ok_or_else(|| format!("{kind} operation failed to decode from"));
    let value = || operation.get("value").cloned().unwrap_or_default();
    match kind {
        "add" => {
            let path = path()?;
            let (parent, key) = parent(document, path).ok_or_else(|| missing(kind, path))?;
            add(parent, &key, value())
                .map_err(|why| format!("error in add for path: '{path}': {why}"))
        }
        "remove" => {
            let path = path()?;
            let (parent, key) = parent(document, path).ok_or_else(|| missing(kind, path))?;
            remove(parent, &key)
                .map(drop)
                .map_err(|why| format!("error in remove for path: '{path}': {why}"))
        }
        "replace" => {
            let path = path()?;
            if path.is_empty() {
                let value = value();
                if !value.is_object() && !value.is_array() {
                    return Err("replace operation value must be object or array".to_owned());
                }
                *document = value;
                return Ok(());
            }
            let (parent, key) = parent(document, path).ok_or_else(|| missing(kind, path))?;
            match parent {
                Value::Object(fields) => {
                    fields.insert(key, value());
                }
                Value::Array(items) => {
                    let at = index(&key, items.len()).map_err(|_| {
                        format!("replace operation does not apply: doc is missing key: {path}")
                    })?;
                    items[at] = value();
                }
                _ => return Err(missing(kind, path)),
            }
            Ok(())
        }
        "move" => {
            let (from, path) = (from()?, path()?);
            let (source, key) = parent(document, from).ok_or_else(|| missing(kind, from))?;
            let value = remove(source, &key)
                .map_err(|why| format!("error in move for path: '{key}': {why}"))?;
            let (target, key) = parent(document, path).ok_or_else(|| missing(kind, path))?;
            add(target, &key, value)
                .map_err(|why| format!("error in move for path: '{path}': {why}"))
        }
        "copy" => {
            let (from, path) = (from()?, path()?);
            let (source, key) = parent(document, from).ok_or_else(|| missing(kind, from))?;
            let value = get(source, &key)
                .map_err(|why| format!("error in copy for from: '{from}': {why}"))?
                .cloned();
            let (target, key) = parent(document, path).ok_or_else(|| missing(kind, path))?;
            *copied += value.as_ref().map_or(0, |value| value.to_string().len());
            if *copied > MAX_COPY_BYTES {
                return Err(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is \
                     {copied}, exceeding the limit {MAX_COPY_BYTES}"
                ));
            }
            add(target, &key, value.unwrap_or_default())
                .map_err(|why| format!("error while adding value during copy: {why}"))
        }
        "test" => test(document, path()?, operation.get("value")),
        other => Err(format!("Unexpected kind: {other}")),
    }
}

fn missing(kind: &str, path: &str) -> String {
    format!("{kind} operation does not apply: doc is missing path: \"{path}\": missing value")
}

fn test(document: &mut Value, path: &str, expected: Option<&Value>) -> Result<(), String> {
    let failed = || format!("testing value {path} failed: test failed");
    let null = Value::Null;
    let expected = expected.unwrap_or(&null);
    if path.is_empty() {
        return if equal(document, expected) {
            Ok(())
        } else {
            Err(failed())
        };
    }
    let (parent, key) = parent(document, path)
        .ok_or_else(|| format!("test operation does not apply: is missing path: {path}"))?;
    let found =
        get(parent, &key).map_err(|why| format!("error in test for path: '{path}': {why}"))?;
    if equal(found.unwrap_or(&null), expected) {
        Ok(())
    } else {
        Err(failed())
    }
}

/// Equality of JSON, numbers by value.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || (left.is_f64() != right.is_f64() && left.as_f64() == right.as_f64())
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| equal(l, r))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(name, l)| right.get(name).is_some_and(|r| equal(l, r)))
        }
        _ => left == right,
    }
}

/// The container that a pointer's last token is looked up in, and that token.
fn parent<'d>(document: &'d mut Value, path: &str) -> Option<(&'d mut Value, String)> {
    let rest = path.split_once('/')?.1;
    let (parents, key) = match rest.rsplit_once('/') {
        Some((parents, key)) => (Some(parents), key),
        None => (None, rest),
    };
    let mut at = document;
    for token in parents.into_iter().flat_map(|parents| parents.split('/')) {
        let token = unescape(token);
        at = match at {
            Value::Object(fields) => fields.get_mut(&token)?,
            Value::Array(items) => {
                let found = index(&token, items.len()).ok()?;
                &mut items[found]
            }
            _ => return None,
        };
    }
    (at.is_object() || at.is_array()).then(|| (at, unescape(key)))
}

fn unescape(token: &str) -> String {
    if token.contains('~') {
        token.replace("~1", "/").replace("~0", "~")
    } else {
        token.to_owned()
    }
}

/// The place that an index token names in a list of `length`; negative ones count from the end.
fn index(token: &str, length: usize) -> Result<usize, String> {
    let number: i64 = token.parse().map_err(|_| {
        format!(
            "strconv.Atoi: parsing {}: invalid syntax",
            golang::quoted(token)
        )
    })?;
    let refused = || format!("Unable to access invalid index: {number}: invalid index referenced");
    let at = if number < 0 {
        let back = usize::try_from(number.unsigned_abs()).map_err(|_| refused())?;
        length.checked_sub(back)
    } else {
        usize::try_from(number).ok()
    };
    at.filter(|at| *at < length).ok_or_else(refused)
}

fn get<'d>(parent: &'d Value, key: &str) -> Result<Option<&'d Value>, String> {
    match parent {
        Value::Array(items) => index(key, items.len()).map(|at| items.get(at)),
        other => Ok(other.get(key)),
    }
}

fn add(parent: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match parent {
        Value::Object(fields) => {
            fields.insert(key.to_owned(), value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            // One past the end is a place to add at.
            let at = index(key, items.len() + 1)?;
            items.insert(at, value);
        }
        _ => return Err("unknown object type".to_owned()),
    }
    Ok(())
}

fn remove(parent: &mut Value, key: &str) -> Result<Value, String> {
    match parent {
        Value::Object(fields) => fields
            .remove(key)
            .ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value")),
        Value::Array(items) => index(key, items.len()).map(|at| items.remove(at)),
        _ => Err("unknown object type".to_owned()),
    }
}

fn merge(into: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match (value, into.get_mut(name)) {
            (Value::Null, _) => {
                into.remove(name);
            }
            (Value::Object(value), Some(Value::Object(into))) => merge(into, value),
            // A struct replaced by something else takes it as it is; all else loses its nulls.
            (value, Some(slot @ Value::Object(_))) => *slot = value.clone(),
            (value, _) => {
                into.insert(name.clone(), without_nulls(value));
            }
        }
    }
}

/// A copy in which no object has null fields; nulls in lists stay.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
