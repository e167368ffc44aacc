//! JSON and YAML in, JSON out.
//!
//! Reading notices duplicate fields, which strict field validation has to name. Writing puts
//! `apiVersion`, `kind` and `metadata` first and notes where the resource version belongs, so that
//! a stored object keeps its bytes and the revision is spliced in when it is read.

use std::cell::{Cell, RefCell};
use std::fmt;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::yaml;

/// So many fields that stand twice or are not known are told of, as in the reference.
pub const MAX_ODD: usize = 100;

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("json parse error: {0}")]
    Json(String),
    /// Not YAML.
    #[error("yaml: {0}")]
    Yaml(String),
}

/// A document and what is odd about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The document; of duplicate fields the last one counts, as in the reference.
    pub value: Value,
    /// Fields that stand more than once.
    pub duplicates: Duplicates,
}

/// Fields that stand more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duplicates {
    /// Of JSON: their paths.
    Fields(Vec<String>),
    /// Of YAML: what is said of each, with its line.
    Lines(Vec<String>),
}

impl Default for Duplicates {
    fn default() -> Self {
        Self::Fields(Vec::new())
    }
}

impl Duplicates {
    /// How many there are, of those that are told.
    #[must_use]
    pub fn len(&self) -> usize {
        let (Self::Fields(all) | Self::Lines(all)) = self;
        all.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a JSON document.
///
/// # Errors
/// Syntax errors, or nesting deeper than 127 levels.
pub fn parse(bytes: &[u8]) -> Result<Parsed, DecodeError> {
    let notes = Notes::default();
    let value = noted(bytes, &notes)?;
    if !notes.found.get() {
        return Ok(Parsed {
            value,
            duplicates: Duplicates::default(),
        });
    }
    // Duplicates are rare: only then is the document read again with paths kept.
    let tracing = Notes {
        tracing: true,
        ..Notes::default()
    };
    let value = noted(bytes, &tracing)?;
    Ok(Parsed {
        value,
        duplicates: Duplicates::Fields(tracing.duplicates.into_inner()),
    })
}

/// Reads a document whose strings have not been looked at, or were as a whole, which is cheaper by far.
fn noted(bytes: &[u8], notes: &Notes) -> Result<Value, DecodeError> {
    fn read<'de, R: serde_json::de::Read<'de>>(
        mut reader: serde_json::Deserializer<R>,
        notes: &Notes,
    ) -> serde_json::Result<Value> {
        let value = Seed { notes }.deserialize(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
    let value = match std::str::from_utf8(bytes) {
        Ok(text) => read(serde_json::Deserializer::from_str(text), notes),
        // It says where.
        Err(_) => read(serde_json::Deserializer::from_slice(bytes), notes),
    };
    value.map_err(|error| DecodeError::Json(error.to_string()))
}

/// Reads a JSON tree of which nobody wants to know what is odd about it.
///
/// # Errors
/// Syntax errors, or nesting deeper than 127 levels.
pub fn tree(bytes: &[u8]) -> serde_json::Result<Value> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// Reads the first YAML document.
///
/// # Errors
/// Syntax errors, or a document beyond the reader's budgets (alias bombs).
pub fn parse_yaml(bytes: &[u8]) -> Result<Parsed, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|error| DecodeError::Yaml(error.to_string()))?;
    let notes = Notes::default();
    // As YAML 1.1 has it: `y` and `on` are truths, numbers with a leading zero are octal.
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
    };
    let read =
        |reader: serde_saphyr::Deserializer<'_, '_>| Seed { notes: &notes }.deserialize(reader);
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, options, read);
    let value = value.map_err(|error| DecodeError::Yaml(error.to_string()))?;
    Ok(Parsed {
        value,
        duplicates: if notes.found.get() {
            repeated(text)
        } else {
            Duplicates::default()
        },
    })
}

/// The paths of all fields of a JSON document as they stand there, as often as they do. None of a
/// document that can't be read.
#[must_use]
pub fn fields(bytes: &[u8]) -> Vec<String> {
    let notes = Notes {
        tracing: true,
        fields: Some(RefCell::default()),
        ..Notes::default()
    };
    let read = noted(bytes, &notes);
    let fields = notes.fields.filter(|_| read.is_ok());
    fields.map(RefCell::into_inner).unwrap_or_default()
}

/// The fields of a document that stand more than once as those of YAML, which JSON is too.
#[must_use]
pub fn repeated(text: &str) -> Duplicates {
    Duplicates::Lines(yaml::repeated(text))
}

#[derive(Default)]
struct Notes {
    found: Cell<bool>,
    tracing: bool,
    /// All that there are, if somebody wants to know.
    fields: Option<RefCell<Vec<String>>>,
    path: RefCell<Vec<String>>,
    duplicates: RefCell<Vec<String>>,
}

impl Notes {
    /// The path of the field that is read.
    fn here(&self) -> String {
        let path = self.path.borrow().concat();
        path.trim_start_matches('.').to_owned()
    }
}

struct Seed<'n> {
    notes: &'n Notes,
}

/// The name of an entry. In YAML it may be another scalar, which stands for the text that JSON has of
/// it, as in the reference: `y: 1` is `"true": 1`.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E>(self, value: String) -> Result<String, E> {
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::with_capacity(items.size_hint().unwrap_or(0).min(1024));
        loop {
            if self.notes.tracing {
                self.notes
                    .path
                    .borrow_mut()
                    .push(format!("[{}]", list.len()));
            }
            let item = items.next_element_seed(Seed { notes: self.notes })?;
            if self.notes.tracing {
                self.notes.path.borrow_mut().pop();
            }
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            if self.notes.tracing {
                self.notes.path.borrow_mut().push(format!(".{key}"));
            }
            if let Some(fields) = &self.notes.fields {
                fields.borrow_mut().push(self.notes.here());
            }
            let value = entries.next_value_seed(Seed { notes: self.notes })?;
            if map.contains_key(&key) {
                self.notes.found.set(true);
                if self.notes.tracing {
                    let path = self.notes.here();
                    let mut duplicates = self.notes.duplicates.borrow_mut();
                    if duplicates.len() < MAX_ODD && !duplicates.contains(&path) {
                        duplicates.push(path);
                    }
                }
            }
            if self.notes.tracing {
                self.notes.path.borrow_mut().pop();
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        self.deserialize(inner)
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Value, E> {
        std::str::from_utf8(value)
            .map(|text| Value::String(text.to_owned()))
            .map_err(|_| E::custom("not UTF-8"))
    }
}

/// An object as it is stored: JSON without its resource version, and where that belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The JSON text.
    pub bytes: Bytes,
    /// Offset just behind the opening brace of `metadata`.
    pub splice: usize,
}

/// Writes an object for the store: `apiVersion`, `kind`, `metadata` first, and no
/// `metadata.resourceVersion`.
#[must_use]
pub fn encode(object: &Value) -> Encoded {
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for name in ["apiVersion", "kind"] {
        if let Some(value) = object.get(name) {
            write_key(&mut out, name);
            write_value(&mut out, value);
            out.push(b',');
        }
    }
    out.extend_from_slice(b"\"metadata\":{");
    let splice = out.len();
    let mut first = true;
    for (name, value) in object
        .get("metadata")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if name == "resourceVersion" {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        write_key(&mut out, name);
        write_value(&mut out, value);
    }
    out.push(b'}');
    for (name, value) in object.as_object().into_iter().flatten() {
        if matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        out.push(b',');
        write_key(&mut out, name);
        write_value(&mut out, value);
    }
    out.push(b'}');
    Encoded {
        bytes: Bytes::from(out),
        splice,
    }
}

/// Finds the splice point of stored bytes again.
#[must_use]
pub fn splice_point(bytes: &[u8]) -> Option<usize> {
    const MARK: &[u8] = b"\"metadata\":{";
    bytes
        .windows(MARK.len())
        .position(|window| window == MARK)
        .map(|at| at + MARK.len())
}

/// Appends the object with its resource version to `out`.
pub fn write_with_revision(out: &mut Vec<u8>, bytes: &[u8], splice: usize, revision: u64) {
    let (before, after) = bytes.split_at(splice);
    out.reserve(bytes.len() + 44);
    out.extend_from_slice(before);
    out.extend_from_slice(b"\"resourceVersion\":\"");
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(if after.first() == Some(&b'}') {
        b"\""
    } else {
        b"\","
    });
    out.extend_from_slice(after);
}

fn write_key(out: &mut Vec<u8>, name: &str) {
    write_value(out, &Value::String(name.to_owned()));
    out.push(b':');
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    // Writing a `Value` into a `Vec` can't fail: keys are strings and the sink is memory.
    serde_json::to_writer(out, value).expect("JSON into memory");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_named() {
        let parsed = parse(br#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#).expect("good");
        assert_eq!(parsed.value, json!({"a": 3, "b": [{"c": 2}]}));
        let paths = ["b[0].c", "a"].map(str::to_owned).to_vec();
        assert_eq!(parsed.duplicates, Duplicates::Fields(paths));
        assert!(parse(b"{}").expect("good").duplicates.is_empty());
        let all = fields(br#"{"b":[{"c":1,"c":2}],"a":3,"a":{"z":0}}"#);
        assert_eq!(all, ["b", "b[0].c", "b[0].c", "a", "a", "a.z"]);
        assert!(fields(b"{").is_empty());
        assert!(parse(b"{} x").is_err());
        assert!(parse(&[b'['; 100_000]).is_err());
        // What is no text is told apart from what is no JSON.
        let wrong = parse(b"{\"a\":\"\xff\"}").expect_err("not a text");
        assert!(
            wrong.to_string().contains("invalid unicode code point"),
            "{wrong}"
        );
    }

    #[test]
    fn yaml_is_read_as_version_1_1() {
        let read = |text: &str| parse_yaml(text.as_bytes()).expect("good");
        let found = read("{a: y, b: Off, c: 'no', y: 1, 2: x, mode: 0644, d: ~, e: 1.5}");
        let wanted = json!({"a": true, "b": false, "c": "no", "true": 1, "2": "x", "mode": 420,
            "d": null, "e": 1.5});
        assert_eq!(found.value, wanted);
        assert!(found.duplicates.is_empty());
        let found = read("a: {b: 1, b: 2}");
        assert_eq!(found.value, json!({"a": {"b": 2}}));
        let lines = vec!["line 1: key \"b\" already set in map".to_owned()];
        assert_eq!(found.duplicates, Duplicates::Lines(lines));
        let merged = read("x: &x {a: 1}\ny: {<<: *x, b: 2}");
        assert_eq!(merged.value["true"], json!({"a": 1, "b": 2}));
    }

    #[test]
    fn revision_is_spliced() {
        let object = json!({"data": {"metadata": {}}, "kind": "K", "apiVersion": "v1",
            "metadata": {"name": "n", "resourceVersion": "old"}});
        let encoded = encode(&object);
        assert_eq!(splice_point(&encoded.bytes), Some(encoded.splice));
        let mut out = Vec::new();
        write_with_revision(&mut out, &encoded.bytes, encoded.splice, 7);
        let back: Value = serde_json::from_slice(&out).expect("good");
        assert_eq!(back["metadata"]["resourceVersion"], "7");
        assert_eq!(back["data"], object["data"]);
        let empty = encode(&json!({"kind": "K"}));
        let mut out = Vec::new();
        write_with_revision(&mut out, &empty.bytes, empty.splice, 7);
        let back: Value = serde_json::from_slice(&out).expect("good");
        assert_eq!(back["metadata"]["resourceVersion"], "7");
    }
}
