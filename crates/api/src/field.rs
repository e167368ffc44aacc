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
            self.with([".", name, ""])
        }
    }

    /// The item `index` of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        // Most lists are short.
        const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        match DIGITS.get(index) {
            Some(digit) => self.with(["[", digit, "]"]),
            None => self.with(["[", &index.to_string(), "]"]),
        }
    }

    /// The entry `key` of the map here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(["[", key, "]"])
    }

    /// Every check makes paths, and hardly any is ever shown: they are put together by hand, because
    /// formatting takes several times as long.
    fn with(&self, more: [&str; 3]) -> Self {
        let room = more.iter().fold(self.0.len(), |sum, part| sum + part.len());
        let mut path = String::with_capacity(room);
        path.push_str(&self.0);
        more.iter().for_each(|part| path.push_str(part));
        Self(path)
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
    /// The reference declares this rule beside the field, and checks what is declared last.
    pub declared: bool,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body)
    }
}

/// Renders a bad value as the reference does: scalars plainly, text quoted as Go's `%q`, and
/// everything else as Go's JSON encoder writes it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(_) | Value::Object(_) => escape_html(&value.to_string()),
        other => other.to_string(),
    }
}

/// Go's JSON encoder escapes what could end a script element.
fn escape_html(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            other => out.push(other),
        }
    }
    out
}

/// Quotes text as Go's `strconv.Quote` does.
#[must_use]
pub fn quoted(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let written = match c {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\u{7}' => out.write_str("\\a"),
            '\u{8}' => out.write_str("\\b"),
            '\u{b}' => out.write_str("\\v"),
            '\u{c}' => out.write_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => write!(out, "\\x{:02x}", c as u32),
            c if c.is_control() || c == '\u{feff}' => write!(out, "\\u{:04x}", c as u32),
            c => out.write_char(c),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
    out.push('"');
    out
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
            declared: false,
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
            declared: false,
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

    /// The server could not check a value.
    #[must_use]
    pub fn internal(path: &Path, detail: &str) -> Self {
        Self::bare(Kind::Internal, path, detail)
    }

    /// A value has the wrong type.
    #[must_use]
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: &str) -> Self {
        Self::with_value(Kind::TypeInvalid, path, &value.into(), detail)
    }

    /// A value is none of the allowed ones, which are listed in the order given.
    #[must_use]
    pub fn not_supported(path: &Path, value: impl Into<Value>, allowed: &[&str]) -> Self {
        let allowed: Vec<String> = allowed.iter().map(|item| quoted(item)).collect();
        let detail = if allowed.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", allowed.join(", "))
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
        let bytes = if max == 1 { "byte" } else { "bytes" };
        Self::bare(
            Kind::TooLong,
            path,
            &format!("may not be more than {max} {bytes}"),
        )
    }

    /// A text has more than `max` characters.
    #[must_use]
    pub fn too_long_text(path: &Path, max: usize) -> Self {
        let characters = if max == 1 { "character" } else { "characters" };
        Self::bare(
            Kind::TooLong,
            path,
            &format!("may not be more than {max} {characters}"),
        )
    }

    /// A value does not hold, and is not shown.
    #[must_use]
    pub fn invalid_omitted(path: &Path, detail: &str) -> Self {
        Self::bare(Kind::Invalid, path, detail)
    }

    /// A value does not hold, and is shown as `text` because its form in the reference is not
    /// that of the object (Go's names of internal fields, or a redaction).
    #[must_use]
    pub fn invalid_shown(path: &Path, text: &str, detail: &str) -> Self {
        Self::bare(Kind::Invalid, path, &format!("{text}: {detail}"))
    }

    /// Like [`Self::invalid_shown`], for a value that stands twice.
    #[must_use]
    pub fn duplicate_shown(path: &Path, text: &str) -> Self {
        Self::bare(Kind::Duplicate, path, text)
    }

    /// Like [`Self::invalid_shown`], for a value that is none of the allowed ones.
    #[must_use]
    pub fn not_supported_shown(path: &Path, text: &str, allowed: &[&str]) -> Self {
        let allowed: Vec<String> = allowed.iter().map(|item| quoted(item)).collect();
        let detail = format!("{text}: supported values: {}", allowed.join(", "));
        Self::bare(Kind::NotSupported, path, &detail)
    }

    /// The same error, told after those that are not declared.
    #[must_use]
    pub fn declared(mut self) -> Self {
        self.declared = true;
        self
    }

    /// The same error with a detail added.
    #[must_use]
    pub fn with_detail(mut self, detail: &str) -> Self {
        self.body.push_str(": ");
        self.body.push_str(detail);
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_go_writes_it() {
        assert_eq!(Path::root().to_string(), "<nil>");
        assert_eq!(Path::root().child("spec").to_string(), "spec");
        let env = Path::new("spec").child("containers").index(9).child("env");
        assert_eq!(env.to_string(), "spec.containers[9].env");
        assert_eq!(env.index(10).to_string(), "spec.containers[9].env[10]");
        let label = Path::new("metadata").child("labels").key("a.b/c");
        assert_eq!(label.to_string(), "metadata.labels[a.b/c]");
    }
}
