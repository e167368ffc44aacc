//! What selection needs of a stored object, read from its bytes without decoding the rest.
//!
//! Every write passes here on its way into the cache, and every object at start. A decoded tree
//! would cost an allocation for each field of an object, for a handful of texts.

use std::borrow::Cow;
use std::fmt;

use evenkeel_api::row::ResourceDef;
use evenkeel_api::{json, selector};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::Head;

/// Reads the head of an object.
///
/// # Errors
/// Not JSON, or not an object with metadata.
pub(super) fn head(row: &ResourceDef, bytes: &[u8]) -> Result<Head, serde_json::Error> {
    let paths = || row.selectable.iter().flat_map(|field| &field.at);
    let count = paths().count();
    // Metadata are read by themselves, and a mask has room for so many.
    if count > 64 || paths().any(|path| path.starts_with("metadata.")) {
        return Ok(Head::of(row, &json::tree(bytes)?));
    }
    let paths: Vec<&str> = paths().map(AsRef::as_ref).collect();
    let mut texts = vec![String::new(); count];
    // Looked at as a whole, not string by string.
    let text = std::str::from_utf8(bytes).map_err(de::Error::custom)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let head = Root {
        paths: &paths,
        texts: &mut texts,
    };
    let mut head = head.deserialize(&mut reader)?;
    reader.end()?;
    let mut texts = texts.into_iter();
    let fields = row.selectable.iter().map(|field| {
        // All of its own are taken, so that the next field begins with its own.
        let own = texts.by_ref().take(field.at.len());
        let set = own.fold(
            String::new(),
            |set, text| if set.is_empty() { text } else { set },
        );
        if set.is_empty() {
            field.unset.as_ref().into()
        } else {
            set.into()
        }
    });
    head.fields = fields.collect();
    Ok(head)
}

/// The offset behind the closing brace of an object whose opening brace is just before `rest`.
pub(super) fn object_end(rest: &[u8]) -> usize {
    let (mut depth, mut quoted, mut at) = (1_u32, false, 0);
    while let Some(byte) = rest.get(at) {
        at += 1;
        match byte {
            // Whatever is escaped ends nothing.
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// A text, not copied where it can be helped.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }
}

/// The whole object.
struct Root<'s> {
    paths: &'s [&'s str],
    texts: &'s mut [String],
}

impl<'de> DeserializeSeed<'de> for Root<'_> {
    type Value = Head;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Head, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_> {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Head, A::Error> {
        let mut head = None;
        let Self { paths, texts } = self;
        let all = u64::MAX >> (64 - paths.len().max(1));
        while let Some(name) = entries.next_key_seed(Text)? {
            if name == "metadata" {
                head = Some(entries.next_value_seed(Metadata)?);
            } else {
                Part {
                    paths,
                    texts: &mut *texts,
                    wanted: all,
                    offset: 0,
                }
                .next(&name, &mut entries)?;
            }
        }
        head.ok_or_else(|| de::Error::missing_field("metadata"))
    }
}

/// `metadata`.
struct Metadata;

impl<'de> DeserializeSeed<'de> for Metadata {
    type Value = Head;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Head, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Head, A::Error> {
        let mut head = Head::default();
        while let Some(name) = entries.next_key_seed(Text)? {
            match &*name {
                "name" => head.name = entries.next_value_seed(Text)?.into(),
                "namespace" => head.namespace = entries.next_value_seed(Text)?.into(),
                "labels" => head.labels = entries.next_value_seed(Labels)?,
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(head)
    }
}

/// `metadata.labels`.
struct Labels;

impl<'de> DeserializeSeed<'de> for Labels {
    type Value = Box<[(Box<str>, Box<str>)]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Labels {
    type Value = Box<[(Box<str>, Box<str>)]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut labels = Vec::new();
        while let Some(name) = entries.next_key_seed(Text)? {
            let value = entries.next_value_seed(Text)?;
            labels.push((name.into(), value.into()));
        }
        Ok(labels.into())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Box::default())
    }
}

/// A part of the object that paths lead into.
struct Part<'s> {
    paths: &'s [&'s str],
    texts: &'s mut [String],
    /// Bits of the paths that lead here.
    wanted: u64,
    /// Bytes of these paths that have led here, which they share.
    offset: usize,
}

impl Part<'_> {
    /// Reads a field of this part, as far as a path asks for it.
    fn next<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        entries: &mut A,
    ) -> Result<(), A::Error> {
        let (mut ends, mut below) = (0_u64, 0_u64);
        for (place, path) in self.paths.iter().enumerate() {
            if self.wanted & (1 << place) == 0 {
                continue;
            }
            match path
                .get(self.offset..)
                .and_then(|rest| rest.strip_prefix(name))
            {
                Some("") => ends |= 1 << place,
                Some(rest) if rest.starts_with('.') => below |= 1 << place,
                _ => {}
            }
        }
        if ends == 0 && below == 0 {
            entries.next_value::<IgnoredAny>()?;
        } else if ends == 0 {
            entries.next_value_seed(Part {
                paths: self.paths,
                texts: &mut *self.texts,
                wanted: below,
                offset: self.offset + name.len() + 1,
            })?;
        } else {
            // A text, mostly; whatever it is, it is compared as one.
            let value: Value = entries.next_value()?;
            for (place, path) in self.paths.iter().enumerate() {
                if (ends | below) & (1 << place) != 0 {
                    let rest = path.get(self.offset + name.len() + 1..);
                    let rest = rest.into_iter().flat_map(|rest| rest.split('.'));
                    self.texts[place] = selector::text_at(&value, rest);
                }
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        while let Some(name) = entries.next_key_seed(Text)? {
            self.next(&name, &mut entries)?;
        }
        Ok(())
    }

    // What is no object has no fields: its paths lead nowhere.

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_api::Rows;
    use serde_json::json;

    use super::*;

    /// Whatever is stored, the bytes say what the decoded object says.
    #[test]
    fn bytes_are_read_as_the_decoded_object_is() {
        let rows = Rows::builtin();
        let samples = [
            json!({"metadata": {"name": "a", "namespace": "b", "labels": {"x": "y", "q\"": "\u{e9}\n"}},
                "spec": {"nodeName": "n", "hostNetwork": true, "schedulerName": null, "replicas": 3},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "successful": 4},
                "type": "Opaque", "reason": "Why", "involvedObject": {"kind": "Pod", "uid": "u"}}),
            json!({"metadata": {"name": "a", "namespace": null, "labels": null}}),
            json!({"metadata": {}, "spec": [{"nodeName": "no"}], "status": "none", "type": 5,
                "involvedObject": null, "source": {"component": "c"}}),
            json!({"metadata": {"name": "a", "labels": {}}, "spec": {"nodeName": {"a": [1, "}"]}}}),
        ];
        for row in rows.iter() {
            for sample in &samples {
                let bytes = serde_json::to_vec(sample).unwrap();
                let (read, of) = (head(row, &bytes).unwrap(), Head::of(row, sample));
                assert_eq!(format!("{read:?}"), format!("{of:?}"), "{}", row.gvk.kind);
            }
            for bad in ["", "{}", "[]", "{\"metadata\":{}", "{\"metadata\":{}} x"] {
                assert!(head(row, bad.as_bytes()).is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn objects_end_at_their_own_brace() {
        for text in [r#"}"#, r#""a":"}\"{","b":{"c":[{}]}}"#, r#""a":"\\"}"#] {
            for after in ["", ",\"spec\":{}}"] {
                assert_eq!(object_end(format!("{text}{after}").as_bytes()), text.len());
            }
        }
    }
}
