//! Types as the checker knows them, and how messages name them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type of the language. Objects carry their fields, so that no registry is needed.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// Anything; checked at evaluation.
    Dyn,
    /// What an expression with an error has, so that one error is reported once.
    Error,
    /// The type of `null`.
    Null,
    /// `bool`.
    Bool,
    /// 64 bits, signed.
    Int,
    /// 64 bits, unsigned.
    Uint,
    /// IEEE 754 double.
    Double,
    /// Unicode text.
    String,
    /// Octets.
    Bytes,
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// A list of one type.
    List(Arc<Type>),
    /// A map from one type to another.
    Map(Arc<Type>, Arc<Type>),
    /// An object with declared fields.
    Object(Arc<ObjectType>),
    /// A library's type, as `kubernetes.Quantity` or `optional_type(int)`.
    Opaque(Arc<str>, Vec<Type>),
    /// A type variable of an overload.
    Param(Arc<str>),
    /// The type of a type.
    Type(Arc<Type>),
}

/// A named object and its fields, by the names that expressions use.
#[derive(Debug)]
pub struct ObjectType {
    /// The name, as messages show it.
    pub name: Arc<str>,
    /// Types by field.
    pub fields: BTreeMap<String, Type>,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

pub(crate) const OPTIONAL: &str = "optional_type";

impl Type {
    /// A list of `item`.
    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    /// A map from `key` to `value`.
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    /// An optional `value`.
    pub fn optional(value: Self) -> Self {
        Self::Opaque(OPTIONAL.into(), vec![value])
    }

    /// A library's type without parameters.
    pub fn opaque(name: &str) -> Self {
        Self::Opaque(name.into(), Vec::new())
    }

    pub(crate) fn param(name: &str) -> Self {
        Self::Param(name.into())
    }

    /// The type within an optional.
    pub(crate) fn unwrap_optional(&self) -> Option<&Self> {
        match self {
            Self::Opaque(name, params) if &**name == OPTIONAL => params.first(),
            _ => None,
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// Whether every value has the same small size.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool
            | Self::Double
            | Self::Duration
            | Self::Int
            | Self::Timestamp
            | Self::Uint => true,
            _ => self.unwrap_optional().is_some_and(Self::is_scalar),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Opaque(name, params) if params.is_empty() => f.write_str(name),
            Self::Opaque(name, params) => {
                write!(f, "{name}(")?;
                for (i, param) in params.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    param.fmt(f)?;
                }
                f.write_str(")")
            }
            Self::Param(name) => f.write_str(name),
            Self::Type(inner) => write!(f, "type({inner})"),
        }
    }
}
