//! A stored object: its bytes, its revision, and the few fields that selection needs.
//!
//! The bytes are those of the store; get, list and every watcher share them. The resource version
//! is not part of them: it is spliced in where an object is written out.

mod scan;

use std::sync::Arc;

use bytes::Bytes;
use evenkeel_api::row::ResourceDef;
use evenkeel_api::selector::{self, FieldSelector, LabelSelector};
use evenkeel_api::{json, object};
use serde_json::Value;
use tokio::sync::OnceCell;

/// An object as the cache holds it.
#[derive(Debug, Clone)]
pub struct Object {
    /// JSON without a resource version.
    pub bytes: Bytes,
    /// Where the resource version goes.
    pub splice: usize,
    /// The revision of its last write.
    pub revision: u64,
    /// What selection needs.
    pub head: Head,
    /// It is stored in another version than new writes are: a write that changes nothing else
    /// brings it up to date.
    pub stale: bool,
    /// It is of another version than its row, and a webhook has to convert it; what came of that.
    pub foreign: Option<Arc<OnceCell<Arc<Object>>>>,
}

/// The selectable part of an object.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.namespace`; empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// `metadata.labels`.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The row's selectable fields, in the row's order.
    pub fields: Box<[Box<str>]>,
}

/// Why stored bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON, or not an object with metadata.
    #[error("stored object is not readable: {0}")]
    Unreadable(String),
}

impl Head {
    /// Reads the head of a decoded object.
    #[must_use]
    pub fn of(row: &ResourceDef, value: &Value) -> Self {
        let labels = object::at(value, &["metadata", "labels"])
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                (
                    key.as_str().into(),
                    value.as_str().unwrap_or_default().into(),
                )
            })
            .collect();
        Self {
            name: object::name(value).into(),
            namespace: object::namespace(value).into(),
            labels,
            fields: fields(row, value),
        }
    }

    /// The label of a key.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(name, _)| &**name == key)
            .map(|(_, value)| &**value)
    }
}

fn fields(row: &ResourceDef, value: &Value) -> Box<[Box<str>]> {
    row.selectable
        .iter()
        .map(|field| {
            let mut texts = field.at.iter().map(|at| selector::field_text(value, at));
            let set = texts.find(|text| !text.is_empty());
            set.map_or_else(|| field.unset.as_ref().into(), Into::into)
        })
        .collect()
}

impl Object {
    /// Reads stored bytes.
    ///
    /// # Errors
    /// The bytes are not an object that the door wrote.
    pub fn read(row: &ResourceDef, bytes: Bytes, revision: u64) -> Result<Self, ObjectError> {
        let unreadable = |error: serde_json::Error| ObjectError::Unreadable(error.to_string());
        if let Some(custom) = &row.custom {
            let mut value = json::tree(&bytes).map_err(unreadable)?;
            let stale = object::text(&value, &["apiVersion"]) != custom.stored_version();
            let foreign = custom.is_foreign(&value);
            let encoded = if !foreign && custom.read_stored(&mut value) {
                json::encode(&value)
            } else {
                let splice = json::splice_point(&bytes)
                    .ok_or_else(|| ObjectError::Unreadable("no metadata".to_owned()))?;
                json::Encoded { bytes, splice }
            };
            return Ok(Self {
                head: Head::of(row, &value),
                bytes: encoded.bytes,
                splice: encoded.splice,
                revision,
                stale,
                foreign: foreign.then(Arc::default),
            });
        }
        if let Some(view) = &row.view {
            let mut value = json::tree(&bytes).map_err(unreadable)?;
            (view.from_stored)(&mut value);
            let encoded = json::encode(&value);
            return Ok(Self {
                bytes: encoded.bytes,
                splice: encoded.splice,
                revision,
                head: Head::of(row, &value),
                stale: false,
                foreign: None,
            });
        }
        let splice = json::splice_point(&bytes)
            .ok_or_else(|| ObjectError::Unreadable("no metadata".to_owned()))?;
        let head = scan::head(row, &bytes).map_err(unreadable)?;
        Ok(Self {
            bytes,
            splice,
            revision,
            head,
            stale: false,
            foreign: None,
        })
    }

    /// The object decoded, its resource version included.
    ///
    /// # Panics
    /// Never for bytes that [`Self::read`] accepted.
    #[must_use]
    pub fn value(&self) -> Value {
        let mut value = json::tree(&self.bytes).unwrap_or_default();
        object::metadata(&mut value).insert(
            "resourceVersion".to_owned(),
            Value::String(self.revision.to_string()),
        );
        value
    }

    /// Appends its JSON, with the resource version, to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        json::write_with_revision(out, &self.bytes, self.splice, self.revision);
    }

    /// Appends its JSON, with the resource version, to `out`, but for its version and kind.
    pub fn write_untyped(&self, out: &mut Vec<u8>) {
        // They stand before the metadata, which are opened right before the splice point.
        const METADATA: &[u8] = b"\"metadata\":{";
        out.push(b'{');
        let metadata = self.splice - METADATA.len();
        json::write_with_revision(out, &self.bytes[metadata..], METADATA.len(), self.revision);
    }

    /// Appends its `PartialObjectMetadata` of a version as JSON to `out`: the metadata as they are written, so
    /// that the rest of the object is not read for it.
    pub fn write_metadata(&self, out: &mut Vec<u8>, api_version: &str) {
        // The splice point is behind the brace that opens the metadata.
        let end = self.splice + scan::object_end(&self.bytes[self.splice..]);
        let metadata = &self.bytes[self.splice - 1..end];
        out.extend_from_slice(b"{\"apiVersion\":\"");
        out.extend_from_slice(api_version.as_bytes());
        out.extend_from_slice(b"\",\"kind\":\"PartialObjectMetadata\",\"metadata\":");
        json::write_with_revision(out, metadata, 1, self.revision);
        out.push(b'}');
    }

    /// `NAMESPACE/NAME` or `NAME`, as in store keys and continue tokens.
    #[must_use]
    pub fn path(&self) -> String {
        if self.head.namespace.is_empty() {
            self.head.name.to_string()
        } else {
            format!("{}/{}", self.head.namespace, self.head.name)
        }
    }
}

/// Which objects a list or watch is about.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Empty for all namespaces and for cluster-scoped kinds.
    pub namespace: String,
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// Does an object belong to it?
    #[must_use]
    pub fn matches(&self, row: &ResourceDef, head: &Head) -> bool {
        (self.namespace.is_empty() || *self.namespace == *head.namespace)
            && (self.labels.is_everything() || self.labels.matches_with(|key| head.label(key)))
            && (self.fields.is_everything()
                || self.fields.matches_with(|field| match field {
                    "metadata.name" => &head.name,
                    "metadata.namespace" => &head.namespace,
                    other => row
                        .selectable
                        .iter()
                        .position(|known| known.path == other)
                        .and_then(|index| head.fields.get(index))
                        .map_or("", |text| text),
                }))
    }
}
