//! The text of objects without `metadata.managedFields`, which is cut out before it is decoded.
//!
//! No loop reads them, they are often the larger half of an object, and as a tree of maps they cost
//! more to build and throw away than all the rest of it.

use std::borrow::Cow;

use memchr::memmem;

/// Begins the value where it is written without blanks, as the door does. Nothing within a string can
/// look like this: its quotes are escaped.
const KEY: &str = "\"managedFields\":[";

/// A JSON text without any managed fields. What is not written as expected stays: it is only a matter
/// of cost.
pub(crate) fn without_managed_fields(text: &str) -> Cow<'_, str> {
    let key = memmem::Finder::new(KEY);
    let Some(first) = key.find(text.as_bytes()) else {
        return Cow::Borrowed(text);
    };
    let mut kept = String::with_capacity(text.len());
    let (mut from, mut at) = (0, first);
    loop {
        let array = at + KEY.len() - 1;
        let Some(length) = array_length(&text.as_bytes()[array..]) else {
            break;
        };
        kept.push_str(&text[from..at]);
        from = array + length;
        // A comma belongs to it, on one side or the other.
        if text.as_bytes().get(from) == Some(&b',') {
            from += 1;
        } else if kept.ends_with(',') {
            kept.pop();
        }
        match key.find(&text.as_bytes()[from..]) {
            Some(next) => at = from + next,
            None => break,
        }
    }
    kept.push_str(&text[from..]);
    Cow::Owned(kept)
}

/// The length of the array that the text begins with.
fn array_length(text: &[u8]) -> Option<usize> {
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
    use super::without_managed_fields as cut;

    const FIELDS: &str =
        r#""managedFields":[{"manager":"a\"]","fieldsV1":{"f:x":{"k:{\"n\":[\"}\"]}":{}}}},{}]"#;

    #[test]
    fn managed_fields_are_cut_out_wherever_they_stand() {
        let first = format!(r#"{{"metadata":{{{FIELDS},"name":"a"}},"kind":"Pod"}}"#);
        assert_eq!(cut(&first), r#"{"metadata":{"name":"a"},"kind":"Pod"}"#);
        let last = format!(r#"{{"metadata":{{"name":"a",{FIELDS}}},"kind":"Pod"}}"#);
        assert_eq!(cut(&last), r#"{"metadata":{"name":"a"},"kind":"Pod"}"#);
        let only = format!(r#"{{"metadata":{{{FIELDS}}}}}"#);
        assert_eq!(cut(&only), r#"{"metadata":{}}"#);
        let list = format!("[{first},{last},{{}},{only}]");
        assert_eq!(
            cut(&list),
            r#"[{"metadata":{"name":"a"},"kind":"Pod"},{"metadata":{"name":"a"},"kind":"Pod"},{},{"metadata":{}}]"#
        );
    }

    #[test]
    fn a_text_that_only_speaks_of_them_stays() {
        for text in [
            r#"{"data":{"it":"{\"managedFields\":[1]}"}}"#,
            r#"{"metadata":{"managedFields":null}}"#,
            r#"{"metadata":{"managedFields":["#,
        ] {
            assert_eq!(cut(text), text);
        }
    }
}
