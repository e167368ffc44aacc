//! From a message to the JSON that Go would write for the same object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::numbers::{self, Else, Node, Slot};
use super::wire::{Payload, Reader};
use super::{MAX_DEPTH, MAX_VALUES, ProtobufError};
use crate::quantity::Quantity;
use crate::schema::{Field, Schema, Ty, TypeDef};
use crate::{clock, json};

/// Reads a message of a type. Fields with unknown numbers are skipped, as everywhere in protobuf.
///
/// # Errors
/// When the message is malformed, too deep or too large, or the type has no protobuf form.
pub fn decode(schema: &Schema, ty: &Ty, message: &[u8]) -> Result<Value, ProtobufError> {
    let Ty::Struct(index) = ty else {
        return Err(ProtobufError::NoForm("of unknown type".to_owned()));
    };
    let mut object = Map::new();
    let mut decoder = Decoder { schema, values: 0 };
    decoder.message(*index, message, &mut object, 0)?;
    Ok(Value::Object(object))
}

struct Decoder<'s> {
    schema: &'s Schema,
    values: usize,
}

impl Decoder<'_> {
    fn message(
        &mut self,
        index: usize,
        bytes: &[u8],
        into: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let schema = self.schema;
        let definition = schema.get(index);
        let node = numbers::of(&definition.name)
            .ok_or_else(|| ProtobufError::NoForm(definition.name.clone()))?;
        self.fields(definition, node, bytes, into, depth)?;
        for (name, field) in &definition.fields {
            if field.always && !field.pointer && !into.contains_key(&**name) {
                let zero = match &field.ty {
                    Ty::Bool => Value::Bool(false),
                    Ty::Int32 | Ty::Int64 | Ty::Number => Value::from(0),
                    Ty::String => Value::String(String::new()),
                    _ => continue,
                };
                self.count()?;
                into.insert(name.to_string(), zero);
            }
        }
        Ok(())
    }

    fn fields(
        &mut self,
        definition: &TypeDef,
        node: &Node,
        bytes: &[u8],
        into: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        if depth > MAX_DEPTH {
            return Err(ProtobufError::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.field()? {
            match node.slot(number) {
                None => {}
                Some(Slot::Inline(inner)) => {
                    let bytes = payload.bytes(&definition.name)?;
                    self.fields(definition, inner, bytes, into, depth + 1)?;
                }
                Some(Slot::Field(name)) => {
                    if let Some(field) = definition.fields.get(*name) {
                        self.field(name, field, payload, into, depth)?;
                    }
                }
                Some(Slot::Either(name, other)) => {
                    let ty = self.schema.named(&definition.name);
                    let ty = ty.ok_or_else(|| ProtobufError::NoForm(definition.name.clone()))?;
                    let bytes = payload.bytes(name)?;
                    if *other == Else::Texts {
                        self.either_entry(name, &ty, bytes, into, depth)?;
                    } else {
                        let value = self.either(name, (&ty, *other), bytes, depth)?;
                        into.insert((*name).to_owned(), value);
                    }
                }
            }
        }
        Ok(())
    }

    /// What is an object of a type, or a list of them or of texts, or yes or no.
    fn either(
        &mut self,
        name: &str,
        (ty, other): (&Ty, Else),
        bytes: &[u8],
        depth: usize,
    ) -> Result<Value, ProtobufError> {
        self.count()?;
        let (mut object, mut list, mut set) = (None, Vec::new(), false);
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.field()? {
            match (other, number) {
                (Else::Bool, 1) => set = payload.varint(name)? != 0,
                (Else::Bool, 2) | (Else::Array | Else::Texts, 1) => {
                    object = Some(self.value(name, ty, payload, depth + 1)?);
                }
                (Else::Array, 2) => list.push(self.value(name, ty, payload, depth + 1)?),
                (Else::Texts, 2) => list.push(self.value(name, &Ty::String, payload, depth)?),
                _ => {}
            }
        }
        // In this order Go chooses what its JSON shows.
        Ok(match other {
            Else::Bool => object.unwrap_or(Value::Bool(set)),
            Else::Array | Else::Texts if !list.is_empty() => Value::Array(list),
            Else::Array | Else::Texts => object.unwrap_or(Value::Null),
        })
    }

    /// An entry of a map of such values.
    fn either_entry(
        &mut self,
        name: &str,
        ty: &Ty,
        bytes: &[u8],
        into: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let (mut key, mut value) = (String::new(), Value::Null);
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.field()? {
            match number {
                1 => key = text(payload.bytes(name)?),
                2 => {
                    let bytes = payload.bytes(name)?;
                    value = self.either(name, (ty, Else::Texts), bytes, depth + 1)?;
                }
                _ => {}
            }
        }
        let map = into
            .entry(name)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(map) = map {
            map.insert(key, value);
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), ProtobufError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            Err(ProtobufError::TooLarge)
        } else {
            Ok(())
        }
    }

    fn field(
        &mut self,
        name: &str,
        field: &Field,
        payload: Payload<'_>,
        into: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        match &field.ty {
            Ty::List(item) => {
                let list = into.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    self.item(name, item, payload, list, depth)?;
                }
            }
            Ty::Map(item) => {
                let map = into
                    .entry(name)
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    self.entry(name, item, payload, map, depth)?;
                }
            }
            Ty::Struct(index) => {
                self.count()?;
                // A message that comes in parts is merged.
                let object = into
                    .entry(name)
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(object) = object {
                    self.message(*index, payload.bytes(name)?, object, depth + 1)?;
                }
            }
            scalar => {
                let value = self.value(name, scalar, payload, depth)?;
                if value.is_null() || (is_zero(&value, scalar) && !field.pointer && !field.always) {
                    into.remove(name);
                } else {
                    into.insert(name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn item(
        &mut self,
        name: &str,
        item: &Ty,
        payload: Payload<'_>,
        list: &mut Vec<Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        match (item, payload) {
            // Numbers may be packed into one field.
            (Ty::Int32 | Ty::Int64 | Ty::Bool, Payload::Bytes(packed)) => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    let number = Payload::Varint(reader.varint()?);
                    list.push(self.value(name, item, number, depth)?);
                }
            }
            _ => list.push(self.value(name, item, payload, depth)?),
        }
        Ok(())
    }

    fn entry(
        &mut self,
        name: &str,
        item: &Ty,
        payload: Payload<'_>,
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(payload.bytes(name)?);
        while let Some((number, payload)) = reader.field()? {
            match number {
                1 => key = text(payload.bytes(name)?),
                2 => value = Some(self.value(name, item, payload, depth + 1)?),
                _ => {}
            }
        }
        let value = value.unwrap_or_else(|| match item {
            Ty::Bool => Value::Bool(false),
            Ty::Int32 | Ty::Int64 | Ty::Number => Value::from(0),
            Ty::String | Ty::Bytes => Value::String(String::new()),
            Ty::Quantity => Value::String("0".to_owned()),
            Ty::Struct(_) | Ty::Map(_) => Value::Object(Map::new()),
            Ty::List(_) => Value::Array(Vec::new()),
            _ => Value::Null,
        });
        map.insert(key, value);
        Ok(())
    }

    /// One value; null for a time that is not set.
    fn value(
        &mut self,
        name: &str,
        ty: &Ty,
        payload: Payload<'_>,
        depth: usize,
    ) -> Result<Value, ProtobufError> {
        self.count()?;
        Ok(match ty {
            Ty::Bool => Value::Bool(payload.varint(name)? != 0),
            Ty::Int32 => Value::from(low_half(payload.varint(name)?)),
            Ty::Int64 => Value::from(payload.varint(name)?.cast_signed()),
            Ty::Number => number(match payload {
                Payload::Fixed64(bits) => f64::from_bits(bits),
                Payload::Fixed32(bits) => f64::from(f32::from_bits(bits)),
                _ => return Err(ProtobufError::WrongWire(name.to_owned())),
            }),
            Ty::String => Value::String(text(payload.bytes(name)?)),
            Ty::Bytes => Value::String(STANDARD.encode(payload.bytes(name)?)),
            Ty::Time | Ty::MicroTime => time(name, ty, payload.bytes(name)?)?,
            Ty::Quantity => quantity(name, payload.bytes(name)?)?,
            Ty::IntOrString => int_or_string(name, payload.bytes(name)?)?,
            Ty::Any => raw(name, payload.bytes(name)?)?,
            Ty::Struct(index) => {
                let mut object = Map::new();
                self.message(*index, payload.bytes(name)?, &mut object, depth + 1)?;
                Value::Object(object)
            }
            // A list inside a map is a message with one repeated field.
            Ty::List(item) => {
                if depth > MAX_DEPTH {
                    return Err(ProtobufError::TooLarge);
                }
                let mut list = Vec::new();
                let mut reader = Reader::new(payload.bytes(name)?);
                while let Some((number, payload)) = reader.field()? {
                    if number == 1 {
                        self.item(name, item, payload, &mut list, depth + 1)?;
                    }
                }
                Value::Array(list)
            }
            Ty::Map(_) => return Err(ProtobufError::NoForm(name.to_owned())),
        })
    }
}

/// Does Go's `omitempty` drop it?
fn is_zero(value: &Value, ty: &Ty) -> bool {
    match value {
        Value::Bool(set) => !set,
        // An int-or-string is a struct in Go: it is never empty.
        Value::Number(number) => *ty != Ty::IntOrString && number.as_f64() == Some(0.0),
        Value::String(text) => *ty != Ty::IntOrString && text.is_empty(),
        _ => false,
    }
}

/// As Go writes it: a whole number has no point.
fn number(value: f64) -> Value {
    /// Below this every whole number is a value of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and small enough")]
        return Value::from(value as i64);
    }
    Value::from(value)
}

/// Go keeps the lower half of a number that is too large.
fn low_half(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// Go's JSON replaces what is not UTF-8.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The first second of the year 1, when Go's times begin.
const YEAR_ONE: i64 = -62_135_596_800;

fn time(name: &str, ty: &Ty, bytes: &[u8]) -> Result<Value, ProtobufError> {
    // A time that is not set is an empty message.
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.field()? {
        match number {
            1 => seconds = payload.varint(name)?.cast_signed(),
            2 => nanos = low_half(payload.varint(name)?),
            _ => {}
        }
    }
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(invalid(name, "nanoseconds out of range"));
    }
    let at = jiff::Timestamp::new(seconds, nanos)
        .ok()
        .filter(|at| at.as_second() >= YEAR_ONE)
        .ok_or_else(|| invalid(name, "time outside of the years 1 to 9999"))?;
    Ok(Value::String(if *ty == Ty::Time {
        clock::rfc3339(at)
    } else {
        clock::rfc3339_micro(at)
    }))
}

fn quantity(name: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut found = String::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.field()? {
        if number == 1 {
            found = text(payload.bytes(name)?);
        }
    }
    if found.is_empty() {
        return Ok(Value::String("0".to_owned()));
    }
    match found.parse::<Quantity>() {
        Ok(quantity) => Ok(Value::String(quantity.to_string())),
        Err(error) => Err(invalid(name, &error.to_string())),
    }
}

fn int_or_string(name: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut kind, mut number, mut string) = (0, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((field, payload)) = reader.field()? {
        match field {
            1 => kind = payload.varint(name)?,
            2 => number = low_half(payload.varint(name)?),
            3 => string = text(payload.bytes(name)?),
            _ => {}
        }
    }
    match kind {
        0 => Ok(Value::from(number)),
        1 => Ok(Value::String(string)),
        _ => Err(invalid(name, "impossible IntOrString.Type")),
    }
}

/// `RawExtension`, `FieldsV1` and `JSON` all hold JSON text in field 1.
fn raw(name: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut text: &[u8] = b"";
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.field()? {
        if number == 1 {
            text = payload.bytes(name)?;
        }
    }
    if text.is_empty() {
        return Ok(Value::Null);
    }
    json::parse(text)
        .map(|parsed| parsed.value)
        .map_err(|error| invalid(name, &error.to_string()))
}

fn invalid(field: &str, why: &str) -> ProtobufError {
    ProtobufError::Invalid {
        field: field.to_owned(),
        why: why.to_owned(),
    }
}
