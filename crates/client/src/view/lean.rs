//! Objects without `metadata.managedFields`, cut out of the text before it is decoded.
//!
//! No loop reads them, they are often the larger half of an object, and as a tree of maps they cost
//! more to build and throw away than all the rest of it.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Begins the value where it is written without blanks, as the door does. Nothing within a string can
/// look like this: its quotes are escaped.
const KEY: &str = "\"managedFields\":[";

/// An object that is decoded without its managed fields.
#[derive(Debug, Clone)]
pub(super) struct Lean<K>(pub(super) K);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lean<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = without(String::from(Box::<str>::from(raw)));
        serde_json::from_str(&text)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// The JSON text of an object without its managed fields. What is not written as expected stays: it
/// is only a matter of cost.
fn without(mut text: String) -> String {
    let Some(at) = text.find(KEY) else {
        return text;
    };
    let Some(length) = array(&text.as_bytes()[at + KEY.len() - 1..]) else {
        return text;
    };
    let end = at + KEY.len() - 1 + length;
    // A comma belongs to it, on one side or the other.
    match (text.as_bytes().get(end), text.as_bytes()[..at].last()) {
        (Some(b','), _) => text.replace_range(at..=end, ""),
        (_, Some(b',')) => text.replace_range(at - 1..end, ""),
        _ => text.replace_range(at..end, ""),
    }
    text
}

/// The length of the array that the text begins with.
fn array(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while *text.get(at)? != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &str =
        r#""managedFields":[{"manager":"a\"]","fieldsV1":{"f:x":{"k:{\"n\":[\"}\"]}":{}}}},{}]"#;

    fn cut(before: &str, after: &str) -> String {
        without(format!("{before}{FIELDS}{after}"))
    }

    #[test]
    fn managed_fields_are_cut_out_wherever_they_stand() {
        let first = cut(r#"{"metadata":{"#, r#","name":"a"},"kind":"Pod"}"#);
        assert_eq!(first, r#"{"metadata":{"name":"a"},"kind":"Pod"}"#);
        let last = cut(r#"{"metadata":{"name":"a","#, r#"},"kind":"Pod"}"#);
        assert_eq!(last, r#"{"metadata":{"name":"a"},"kind":"Pod"}"#);
        assert_eq!(cut(r#"{"metadata":{"#, "}}"), r#"{"metadata":{}}"#);
    }

    #[test]
    fn a_text_that_only_speaks_of_them_stays() {
        for text in [
            r#"{"data":{"it":"{\"managedFields\":[1]}"}}"#,
            r#"{"metadata":{"managedFields":null}}"#,
            r#"{"metadata":{"managedFields":["#,
        ] {
            assert_eq!(without(text.to_owned()), text);
        }
    }
}
