//! Field paths and field errors, worded as the Kubernetes API words them.
//!
//! The texts follow `k8s.io/apimachinery/pkg/util/validation/field`: clients and people match on
//! them.

use std::fmt;

use serde_json::Value;

/// Where a value stands in an object: `spec.containers[0].image`, `metadata.labels[a]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path of one field.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The object itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The field `name` of the value here.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            Self::new(name)
        } else {
            Self(format!("{}.{name}", self.0))
        }
    }

    /// The item `index` of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The entry `key` of the map here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field. The names are those of `metav1.CauseType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `FieldValueRequired`
    Required,
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueNotSupported`
    NotSupported,
    /// `FieldValueDuplicate`
    Duplicate,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueTooLong`
    TooLong,
    /// `FieldValueTooMany`
    TooMany,
    /// `FieldValueNotFound`
    NotFound,
    /// `FieldValueTypeInvalid`
    TypeInvalid,
    /// `InternalError`
    Internal,
}

impl Kind {
    /// The reason in a status cause.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: Kind,
    /// Where, as printed.
    pub field: String,
    /// The message without the field.
    pub body: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body)
    }
}

/// Renders a bad value as Go's `%#v`-like form that Kubernetes prints.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

impl FieldError {
    fn with_value(kind: Kind, path: &Path, value: &Value, detail: &str) -> Self {
        let mut body = format!("{}: {}", kind.text(), shown(value));
        if !detail.is_empty() {
            body.push_str(": ");
            body.push_str(detail);
        }
        Self {
            kind,
            field: path.to_string(),
            body,
        }
    }

    fn bare(kind: Kind, path: &Path, detail: &str) -> Self {
        let mut body = kind.text().to_owned();
        if !detail.is_empty() {
            body.push_str(": ");
            body.push_str(detail);
        }
        Self {
            kind,
            field: path.to_string(),
            body,
        }
    }

    /// A value is missing.
    #[must_use]
    pub fn required(path: &Path, detail: &str) -> Self {
        Self::bare(Kind::Required, path, detail)
    }

    /// A value does not hold.
    #[must_use]
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: &str) -> Self {
        Self::with_value(Kind::Invalid, path, &value.into(), detail)
    }

    /// A value has the wrong type.
    #[must_use]
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: &str) -> Self {
        Self::with_value(Kind::TypeInvalid, path, &value.into(), detail)
    }

    /// A value is none of the allowed ones.
    #[must_use]
    pub fn not_supported(path: &Path, value: impl Into<Value>, allowed: &[&str]) -> Self {
        let mut sorted: Vec<String> = allowed.iter().map(|item| format!("{item:?}")).collect();
        sorted.sort();
        let detail = if sorted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", sorted.join(", "))
        };
        Self::with_value(Kind::NotSupported, path, &value.into(), &detail)
    }

    /// A value stands twice.
    #[must_use]
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::with_value(Kind::Duplicate, path, &value.into(), "")
    }

    /// A value that something refers to is not there.
    #[must_use]
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::with_value(Kind::NotFound, path, &value.into(), "")
    }

    /// A field may not be set, or not be changed.
    #[must_use]
    pub fn forbidden(path: &Path, detail: &str) -> Self {
        Self::bare(Kind::Forbidden, path, detail)
    }

    /// A text is longer than `max` bytes.
    #[must_use]
    pub fn too_long(path: &Path, max: usize) -> Self {
        Self::bare(
            Kind::TooLong,
            path,
            &format!("may not be more than {max} bytes"),
        )
    }

    /// A list or map has more than `max` items.
    #[must_use]
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::bare(
            Kind::TooMany,
            path,
            &format!("{actual}: must have at most {max} {items}"),
        )
    }
}

/// What is wrong with an object, in the order found.
pub type ErrorList = Vec<FieldError>;
