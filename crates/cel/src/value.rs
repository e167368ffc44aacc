//! Values at evaluation. Cheap to clone: what is large is shared.
//!
//! Maps are ordered by key, so that evaluation is the same each time.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::errors::EvalError;
use crate::eval::Meter;
use crate::time::{Duration, Timestamp};

/// A value of the language.
#[derive(Debug, Clone)]
pub enum Value {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// Text.
    String(Arc<str>),
    /// Octets.
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A span of time.
    Duration(Duration),
    /// A list.
    List(Arc<List>),
    /// A map, or an object: fields are entries.
    Map(Arc<BTreeMap<Key, Value>>),
    /// A type, by name.
    Type(Arc<str>),
    /// A value that may be missing.
    Optional(Option<Arc<Value>>),
    /// A library's value.
    Opaque(Arc<dyn Opaque>),
}

/// A list, and what its elements are identified by.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// The elements.
    pub items: Vec<Value>,
    /// How equality and `+` treat them.
    pub kind: ListKind,
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ListKind {
    /// Order matters; `+` concatenates.
    #[default]
    Atomic,
    /// Order does not matter; `+` is the union.
    Set,
    /// Elements are identified by these fields; `+` merges.
    Map(Arc<[String]>),
}

/// A key of a map. Integers of both kinds that are equal are the same key.
#[derive(Debug, Clone)]
pub enum Key {
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// Text.
    String(Arc<str>),
}

impl Key {
    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Self::Bool(b) => (0, i128::from(*b), ""),
            Self::Int(n) => (1, i128::from(*n), ""),
            Self::Uint(n) => (1, i128::from(*n), ""),
            Self::String(s) => (2, 0, s),
        }
    }

    /// The key as a value.
    pub fn value(&self) -> Value {
        match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => Value::Int(*n),
            Self::Uint(n) => Value::Uint(*n),
            Self::String(s) => Value::String(s.clone()),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}
impl Eq for Key {}
impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// A value of a library: opaque to the language but for its functions.
pub trait Opaque: fmt::Debug + Send + Sync {
    /// The type's name, as `kubernetes.Quantity`.
    fn type_name(&self) -> &str;

    /// The value itself, for its library's functions.
    fn as_any(&self) -> &dyn Any;

    /// Equality with a value of any type.
    fn equals(&self, _other: &dyn Opaque) -> bool {
        false
    }

    /// A field: how values that are computed when asked for (the variables of a policy) appear.
    /// `None` means that there is no such field.
    fn field(&self, _name: &str, _meter: &mut Meter) -> Option<Result<Value, EvalError>> {
        None
    }

    /// What `item in value` gives; `None` for a value that holds no others.
    fn contains(&self, _item: &Value) -> Option<bool> {
        None
    }

    /// The value as JSON, where it has one.
    fn to_json(&self) -> Option<serde_json::Value> {
        None
    }
}

impl Value {
    /// A list without identity of elements.
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Arc::new(List {
            items,
            kind: ListKind::Atomic,
        }))
    }

    /// A map from text to values.
    pub fn map<K: AsRef<str>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        let entries = entries
            .into_iter()
            .map(|(k, v)| (Key::String(k.as_ref().into()), v));
        Self::Map(Arc::new(entries.collect()))
    }

    /// A library's value.
    pub fn opaque(value: impl Opaque + 'static) -> Self {
        Self::Opaque(Arc::new(value))
    }

    pub(crate) fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// JSON without a schema: integers stay integers, strings stay strings.
    pub fn from_json(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(b) => Self::Bool(*b),
            serde_json::Value::Number(n) => match n.as_i64() {
                Some(n) => Self::Int(n),
                None => Self::Double(n.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(s) => Self::String(s.as_str().into()),
            serde_json::Value::Array(items) => {
                Self::list(items.iter().map(Self::from_json).collect())
            }
            serde_json::Value::Object(map) => {
                Self::map(map.iter().map(|(k, v)| (k, Self::from_json(v))))
            }
        }
    }

    /// The value as JSON; types and opaque values without a form of their own are an error.
    pub fn to_json(&self) -> Result<serde_json::Value, EvalError> {
        use base64::Engine;
        use serde_json::Value as Json;
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(b) => Json::Bool(*b),
            Self::Int(n) => Json::from(*n),
            Self::Uint(n) => Json::from(*n),
            Self::Double(n) => serde_json::Number::from_f64(*n)
                .map(Json::Number)
                .ok_or_else(|| EvalError::new(format!("unsupported number in JSON: {n}")))?,
            Self::String(s) => Json::from(&**s),
            Self::Bytes(b) => Json::from(base64::engine::general_purpose::STANDARD.encode(b)),
            Self::Timestamp(t) => Json::from(t.to_string()),
            Self::Duration(d) => Json::from(d.to_string()),
            Self::List(list) => Json::Array(
                list.items
                    .iter()
                    .map(Self::to_json)
                    .collect::<Result<_, _>>()?,
            ),
            Self::Map(map) => {
                let mut object = serde_json::Map::new();
                for (key, value) in map.iter() {
                    object.insert(key.value().to_string(), value.to_json()?);
                }
                Json::Object(object)
            }
            Self::Optional(Some(value)) => value.to_json()?,
            Self::Optional(None) => Json::Null,
            Self::Opaque(value) if value.to_json().is_some() => value.to_json().unwrap_or_default(),
            Self::Type(_) | Self::Opaque(_) => {
                let name = self.type_name();
                return Err(EvalError::new(format!(
                    "type conversion error from '{name}' to JSON"
                )));
            }
        })
    }

    /// The name of the value's type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Type(_) => "type",
            Self::Optional(_) => crate::types::OPTIONAL,
            Self::Opaque(value) => value.type_name(),
        }
    }

    /// The value as a key of a map, if its type may be one. Whole doubles are integers.
    pub(crate) fn as_key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(b) => Key::Bool(*b),
            Self::Int(n) => Key::Int(*n),
            Self::Uint(n) => Key::Uint(*n),
            Self::String(s) => Key::String(s.clone()),
            Self::Double(n) => match crate::ops::double_to_int(*n) {
                #[allow(
                    clippy::cast_precision_loss,
                    reason = "compared with what it came from"
                )]
                Some(whole) if whole as f64 == *n => Key::Int(whole),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The text, if the value is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    /// A library's value of a known type.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        match self {
            Self::Opaque(value) => value.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// What `size()` gives, or one: the unit of costs.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::String(s) => s.chars().count() as u64,
            Self::Bytes(b) => b.len() as u64,
            Self::List(list) => list.items.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Optional(Some(value)) => value.size(),
            Self::Opaque(value) => match value.as_any().downcast_ref::<crate::library::net::Cidr>()
            {
                Some(cidr) => cidr.octets() as u64,
                None => match value.as_any().downcast_ref::<crate::library::net::Ip>() {
                    Some(ip) => ip.octets() as u64,
                    None => 1,
                },
            },
            _ => 1,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        crate::ops::equals(self, other)
    }
}

/// As error messages show a value.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(b) => b.fmt(f),
            Self::Int(n) => n.fmt(f),
            Self::Uint(n) => n.fmt(f),
            Self::Double(n) => f.write_str(&crate::convert::double_text(*n)),
            Self::String(s) => f.write_str(s),
            Self::Bytes(b) => f.write_str(&String::from_utf8_lossy(b)),
            Self::Timestamp(t) => t.fmt(f),
            Self::Duration(d) => d.fmt(f),
            Self::List(list) => {
                f.write_str("[")?;
                for (i, item) in list.items.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    item.fmt(f)?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("{")?;
                for (i, (key, value)) in map.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{}: {value}", key.value())?;
                }
                f.write_str("}")
            }
            Self::Type(name) => f.write_str(name),
            Self::Optional(Some(value)) => write!(f, "optional({value})"),
            Self::Optional(None) => f.write_str("optional.none()"),
            Self::Opaque(value) => match value.to_json() {
                Some(serde_json::Value::String(text)) => f.write_str(&text),
                _ => f.write_str(value.type_name()),
            },
        }
    }
}
