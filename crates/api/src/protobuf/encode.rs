//! From JSON to a message.
//!
//! Values that JSON leaves out are left out here too, where Go writes zeros: every reader takes
//! both for the same object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::numbers::{self, Else, Node, Slot};
use super::wire::{put_bytes, put_double, put_message, put_number};
use super::{MAX_DEPTH, ProtobufError, kind_type};
use crate::schema::{Schema, Ty, TypeDef};
use crate::status::Status;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Writes an object of a type as a message, without its envelope.
///
/// # Errors
/// When the type has no protobuf form or a value does not fit it.
pub fn encode(schema: &Schema, ty: &Ty, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::new();
    Encoder { schema }.inner(&mut out, "", ty, object, 0)?;
    Ok(out)
}

/// Writes an object, a list or a `PartialObjectMetadata(List)`.
pub(super) fn object(
    schema: &Schema,
    api_version: &str,
    kind: &str,
    object: &Value,
) -> Result<Vec<u8>, ProtobufError> {
    let encoder = Encoder { schema };
    let mut out = Vec::new();
    if kind == "PartialObjectMetadata" {
        encoder.metadata_only(&mut out, object)?;
        return Ok(out);
    }
    if let Some(ty) = kind_type(schema, api_version, kind) {
        encoder.inner(&mut out, "", &ty, object, 0)?;
        return Ok(out);
    }
    let none = || ProtobufError::NoForm(format!("{kind} in {api_version}"));
    let item = kind.strip_suffix("List").ok_or_else(none)?;
    let item = match item {
        "PartialObjectMetadata" => None,
        item => Some(kind_type(schema, api_version, item).ok_or_else(none)?),
    };
    // All lists have the same form, but for one that was numbered the other way around.
    let (metadata, items) = match (api_version, kind) {
        ("meta.k8s.io/v1beta1", "PartialObjectMetadataList") => (2, 1),
        _ => (1, 2),
    };
    put_message(&mut out, metadata, |out| {
        list_meta(out, object.get("metadata").unwrap_or(&Value::Null));
        Ok::<_, ProtobufError>(())
    })?;
    for value in object
        .get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        put_message(&mut out, items, |out| match &item {
            Some(ty) => encoder.inner(out, "items", ty, value, 1),
            None => encoder.metadata_only(out, value),
        })?;
    }
    Ok(out)
}

fn list_meta(out: &mut Vec<u8>, metadata: &Value) {
    let text = |name: &str| {
        metadata
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    put_bytes(out, 1, text("selfLink").as_bytes());
    put_bytes(out, 2, text("resourceVersion").as_bytes());
    put_bytes(out, 3, text("continue").as_bytes());
    if let Some(remaining) = metadata.get("remainingItemCount").and_then(Value::as_i64) {
        put_number(out, 4, remaining.cast_unsigned());
    }
}

/// `meta.v1.Status`, which is not in every schema.
pub(super) fn status(status: &Status) -> Vec<u8> {
    let mut out = Vec::new();
    let written = put_status(&mut out, status);
    match written {
        Ok(()) => out,
        Err(never) => match never {},
    }
}

fn put_status(out: &mut Vec<u8>, status: &Status) -> Result<(), std::convert::Infallible> {
    put_message(out, 1, |out| {
        put_bytes(out, 1, b"");
        put_bytes(out, 2, status.metadata.resource_version.as_bytes());
        put_bytes(out, 3, status.metadata.continue_.as_bytes());
        Ok::<_, std::convert::Infallible>(())
    })?;
    put_bytes(out, 2, status.status.as_bytes());
    put_bytes(out, 3, status.message.as_bytes());
    put_bytes(out, 4, status.reason.as_bytes());
    if let Some(details) = &status.details {
        put_message(out, 5, |out| {
            put_bytes(out, 1, details.name.as_bytes());
            put_bytes(out, 2, details.group.as_bytes());
            put_bytes(out, 3, details.kind.as_bytes());
            for cause in &details.causes {
                put_message(out, 4, |out| {
                    put_bytes(out, 1, cause.reason.as_bytes());
                    put_bytes(out, 2, cause.message.as_bytes());
                    put_bytes(out, 3, cause.field.as_bytes());
                    Ok::<_, std::convert::Infallible>(())
                })?;
            }
            put_number(out, 5, u64::from(details.retry_after_seconds));
            put_bytes(out, 6, details.uid.as_bytes());
            Ok::<_, std::convert::Infallible>(())
        })?;
    }
    put_number(out, 6, u64::from(status.code));
    Ok(())
}

struct Encoder<'s> {
    schema: &'s Schema,
}

impl Encoder<'_> {
    fn metadata_only(&self, out: &mut Vec<u8>, object: &Value) -> Result<(), ProtobufError> {
        let ty = self
            .schema
            .named(META)
            .ok_or_else(|| ProtobufError::NoForm(META.to_owned()))?;
        match object.get("metadata") {
            None | Some(Value::Null) => Ok(()),
            Some(metadata) => self.field(out, 1, "metadata", &ty, metadata, 0),
        }
    }

    fn fields(
        &self,
        out: &mut Vec<u8>,
        definition: &TypeDef,
        node: &Node,
        object: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        for (number, slot) in &node.slots {
            match slot {
                Slot::Inline(inner) => put_message(out, *number, |out| {
                    self.fields(out, definition, inner, object, depth)
                })?,
                Slot::Field(name) => {
                    let value = object.get(*name).filter(|value| !value.is_null());
                    if let (Some(value), Some(field)) = (value, definition.fields.get(*name)) {
                        self.field(out, *number, name, &field.ty, value, depth)?;
                    }
                }
                Slot::Either(name, other) => {
                    let Some(value) = object.get(*name).filter(|value| !value.is_null()) else {
                        continue;
                    };
                    let ty = self.own(definition)?;
                    if *other == Else::Texts {
                        let entries = value.as_object().ok_or_else(|| misfit(name, value))?;
                        for (key, value) in entries {
                            put_message(out, *number, |out| {
                                put_bytes(out, 1, key.as_bytes());
                                put_message(out, 2, |out| {
                                    self.either(out, name, (&ty, *other), value, depth + 1)
                                })
                            })?;
                        }
                    } else {
                        put_message(out, *number, |out| {
                            self.either(out, name, (&ty, *other), value, depth + 1)
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The type itself that is written.
    fn own(&self, definition: &TypeDef) -> Result<Ty, ProtobufError> {
        self.schema
            .named(&definition.name)
            .ok_or_else(|| ProtobufError::NoForm(definition.name.clone()))
    }

    /// What is an object of a type, or a list of them or of texts, or yes or no.
    fn either(
        &self,
        out: &mut Vec<u8>,
        name: &str,
        (ty, other): (&Ty, Else),
        value: &Value,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        match value {
            Value::Bool(set) if other == Else::Bool => put_number(out, 1, u64::from(*set)),
            Value::Array(items) if other != Else::Bool => {
                let item_type = if other == Else::Texts {
                    &Ty::String
                } else {
                    ty
                };
                for item in items {
                    self.field(out, 2, name, item_type, item, depth)?;
                }
            }
            object => {
                let place = if other == Else::Bool {
                    put_number(out, 1, 1);
                    2
                } else {
                    1
                };
                self.field(out, place, name, ty, object, depth)?;
            }
        }
        Ok(())
    }

    /// A field with its tag: repeated for lists and maps.
    fn field(
        &self,
        out: &mut Vec<u8>,
        number: u32,
        name: &str,
        ty: &Ty,
        value: &Value,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        match (ty, value) {
            (Ty::Bool, Value::Bool(set)) => put_number(out, number, u64::from(*set)),
            (Ty::Int32 | Ty::Int64, Value::Number(_)) => {
                let value = value.as_i64().ok_or_else(|| misfit(name, value))?;
                put_number(out, number, value.cast_unsigned());
            }
            (Ty::Number, Value::Number(_)) => {
                put_double(out, number, value.as_f64().unwrap_or_default());
            }
            (Ty::String, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
            (Ty::Bytes, Value::String(text)) => {
                let bytes = STANDARD.decode(text).map_err(|_| misfit(name, value))?;
                put_bytes(out, number, &bytes);
            }
            (Ty::List(item), Value::Array(values)) => {
                for value in values {
                    self.field(out, number, name, item, value, depth)?;
                }
            }
            (Ty::Map(item), Value::Object(entries)) => {
                for (key, value) in entries {
                    put_message(out, number, |out| {
                        put_bytes(out, 1, key.as_bytes());
                        match &**item {
                            // A list inside a map is a message with one repeated field.
                            Ty::List(item) => put_message(out, 2, |out| {
                                let values = value.as_array().into_iter().flatten();
                                for value in values {
                                    self.field(out, 1, name, item, value, depth + 1)?;
                                }
                                Ok(())
                            }),
                            item => self.field(out, 2, name, item, value, depth + 1),
                        }
                    })?;
                }
            }
            _ => put_message(out, number, |out| {
                self.inner(out, name, ty, value, depth + 1)
            })?,
        }
        Ok(())
    }

    /// The content of a value that is a message of its own.
    fn inner(
        &self,
        out: &mut Vec<u8>,
        name: &str,
        ty: &Ty,
        value: &Value,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        if depth > MAX_DEPTH {
            return Err(ProtobufError::TooLarge);
        }
        match (ty, value) {
            (Ty::Any, value) => put_bytes(out, 1, value.to_string().as_bytes()),
            (_, Value::Null) => {}
            (Ty::Struct(index), Value::Object(object)) => {
                let definition = self.schema.get(*index);
                let node = numbers::of(&definition.name)
                    .ok_or_else(|| ProtobufError::NoForm(definition.name.clone()))?;
                self.fields(out, definition, node, object, depth)?;
            }
            (Ty::Time | Ty::MicroTime, Value::String(text)) => {
                let at: jiff::Timestamp = text.parse().map_err(|_| misfit(name, value))?;
                let nanos = at.as_nanosecond().rem_euclid(1_000_000_000);
                let seconds = i64::try_from(at.as_nanosecond().div_euclid(1_000_000_000))
                    .map_err(|_| misfit(name, value))?;
                // `Time` has whole seconds, `MicroTime` whole microseconds.
                let nanos = if *ty == Ty::Time {
                    0
                } else {
                    nanos / 1000 * 1000
                };
                put_number(out, 1, seconds.cast_unsigned());
                put_number(out, 2, u64::try_from(nanos).unwrap_or_default());
            }
            (Ty::Quantity, Value::String(text)) => put_bytes(out, 1, text.as_bytes()),
            (Ty::Quantity, Value::Number(number)) => {
                put_bytes(out, 1, number.to_string().as_bytes());
            }
            (Ty::IntOrString, value) => {
                let (kind, number, text) = match value {
                    Value::String(text) => (1, 0, text.as_str()),
                    Value::Number(number) => {
                        (0, number.as_i64().ok_or_else(|| misfit(name, value))?, "")
                    }
                    _ => return Err(misfit(name, value)),
                };
                put_number(out, 1, kind);
                put_number(out, 2, number.cast_unsigned());
                put_bytes(out, 3, text.as_bytes());
            }
            _ => return Err(misfit(name, value)),
        }
        Ok(())
    }
}

fn misfit(field: &str, value: &Value) -> ProtobufError {
    let mut why = value.to_string();
    let end = (0..=64.min(why.len()))
        .rev()
        .find(|end| why.is_char_boundary(*end));
    why.truncate(end.unwrap_or(0));
    ProtobufError::Invalid {
        field: field.to_owned(),
        why: format!("{why} does not fit its type"),
    }
}
