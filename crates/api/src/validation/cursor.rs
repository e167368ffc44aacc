//! A value together with where it stands.

use serde_json::Value;

use crate::field::Path;
use crate::object::Fields;

static NOTHING: Value = Value::Null;

/// A place in an object. Fields that are missing read as null, and so do fields of null, so that
/// checks need no nesting of options.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    /// What stands there.
    pub value: &'a Value,
    /// Where that is.
    pub path: Path,
}

impl<'a> Cursor<'a> {
    /// The object itself.
    #[must_use]
    pub fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: Path::root(),
        }
    }

    /// A value at a path.
    #[must_use]
    pub fn new(value: &'a Value, path: Path) -> Self {
        Self { value, path }
    }

    /// A field; null when it is missing.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self {
            value: self.raw(name),
            path: self.path.child(name),
        }
    }

    /// A field that is there and not null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Self> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Self {
            value,
            path: self.path.child(name),
        })
    }

    /// The path of a field.
    #[must_use]
    pub fn at(&self, name: &str) -> Path {
        self.path.child(name)
    }

    /// The value of a field; null when it is missing.
    #[must_use]
    pub fn raw(&self, name: &str) -> &'a Value {
        self.value.get(name).unwrap_or(&NOTHING)
    }

    /// Is the field there and not null?
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        !self.raw(name).is_null()
    }

    /// The text of a field; empty when missing.
    #[must_use]
    pub fn text(&self, name: &str) -> &'a str {
        self.raw(name).as_str().unwrap_or_default()
    }

    /// The integer in a field.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.raw(name).as_i64()
    }

    /// The integer in a field; zero when missing.
    #[must_use]
    pub fn number(&self, name: &str) -> i64 {
        self.integer(name).unwrap_or_default()
    }

    /// The truth in a field; `None` when missing.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.raw(name).as_bool()
    }

    /// Is the field there and true?
    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        self.flag(name).unwrap_or_default()
    }

    /// The items of the list in a field, with their places.
    pub fn items(&self, name: &str) -> impl ExactSizeIterator<Item = Self> + use<'a> {
        let path = self.path.child(name);
        self.list(name)
            .iter()
            .enumerate()
            .map(move |(index, value)| Self {
                value,
                path: path.index(index),
            })
    }

    /// The list in a field; empty when missing.
    #[must_use]
    pub fn list(&self, name: &str) -> &'a [Value] {
        self.raw(name)
            .as_array()
            .map_or(&[], |items| items.as_slice())
    }

    /// The texts of the list in a field.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.list(name).iter().filter_map(Value::as_str)
    }

    /// The entries of the map in a field.
    pub fn entries(&self, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.raw(name)
            .as_object()
            .into_iter()
            .flat_map(Fields::iter)
    }
}
