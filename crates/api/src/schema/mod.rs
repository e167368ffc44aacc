//! The shape of every kind, in one compact form that decoding, patching, applying and OpenAPI
//! share.
//!
//! Built-in shapes come from `k8s-openapi`'s schemas joined with [`facts`], the small table of
//! what those lack (merge keys, list types, defaults, which fields Go holds by pointer). Custom
//! resources bring their own [`Schema`]; nothing downstream can tell the difference.

mod admit;
mod facts;
mod fill;
mod go_base64;
mod load;
mod off;

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

pub use admit::{Admission, FieldValidation};
pub use load::SchemaSource;

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ty {
    /// `true` or `false`.
    Bool,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating-point number.
    Number,
    /// Text.
    String,
    /// Base64 text.
    Bytes,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// `resource.Quantity`.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// Any JSON.
    Any,
    /// A struct; the index into [`Schema::types`].
    Struct(usize),
    /// A list.
    List(Box<Ty>),
    /// A map from text.
    Map(Box<Ty>),
}

/// How a list merges in a structured merge (server-side apply).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ListType {
    /// As one value.
    #[default]
    Atomic,
    /// By value.
    Set,
    /// By the values of these keys.
    Map(Vec<Box<str>>),
}

/// How a field merges in a strategic merge patch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatchFacts {
    /// `patchStrategy: merge`: a list merges, by `key` or by value.
    pub merge: bool,
    /// `patchStrategy: retainKeys`.
    pub retain_keys: bool,
    /// `patchStrategy: replace`: a map is one value.
    pub replace: bool,
    /// `patchMergeKey`.
    pub key: Option<Box<str>>,
}

/// A field of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its type.
    pub ty: Ty,
    /// Structured merge of a list.
    pub list: ListType,
    /// Strategic merge.
    pub patch: PatchFacts,
    /// Is a map or struct owned as one value here? As its type says when this does not.
    pub atomic: Option<bool>,
    /// Of a feature that is off here: it is dropped as the reference drops it, with a warning.
    pub off: bool,
    /// The feature gate that it is behind.
    pub gate: Option<Box<str>>,
    /// It is a schema or a boolean, which no one type says.
    pub schema_or_bool: bool,
    /// The values that it may have, or that what it holds may have; none when there is no such list.
    pub values: Box<[Box<str>]>,
    /// Declared default (only simple ones; the rest is code in the strategy).
    pub default: Option<Value>,
    /// Written even when empty.
    pub always: bool,
    /// Held by pointer in Go: an explicit zero is kept.
    pub pointer: bool,
}

/// A struct.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeDef {
    /// `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    /// Its fields by name.
    pub fields: BTreeMap<Box<str>, Field>,
    /// Owned as one value in a structured merge.
    pub atomic: bool,
    /// Fields that it does not declare are kept, and may be anything.
    pub open: bool,
    /// Fields that are written even when nobody gave them, and what is written then: `{}` stands
    /// for a struct that is filled in its turn.
    pub held: Vec<(Box<str>, Value)>,
    /// Fields with structs below them that hold something, and the types of these fields.
    pub holders: Vec<(Box<str>, Ty)>,
    /// Fields that are off.
    pub off: Vec<Box<str>>,
    /// Fields with structs below them of which fields are off, and the types of these fields.
    pub over_off: Vec<(Box<str>, Ty)>,
}

impl TypeDef {
    /// `PodSpec`.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// A set of types that refer to each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    /// All structs.
    pub types: Vec<TypeDef>,
    by_name: HashMap<String, usize>,
}

impl Schema {
    /// The struct at an index.
    #[must_use]
    pub fn get(&self, index: usize) -> &TypeDef {
        &self.types[index]
    }

    /// The type with a full name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Ty> {
        self.by_name.get(name).map(|index| Ty::Struct(*index))
    }

    /// The struct behind a type, when it is one.
    #[must_use]
    pub fn definition(&self, ty: &Ty) -> Option<&TypeDef> {
        match ty {
            Ty::Struct(index) => self.types.get(*index),
            _ => None,
        }
    }

    /// The field of a struct type.
    #[must_use]
    pub fn field(&self, ty: &Ty, name: &str) -> Option<&Field> {
        self.definition(ty)?.fields.get(name)
    }

    /// Adds a struct; answers its type. A struct of the same name is replaced.
    pub fn add(&mut self, definition: TypeDef) -> Ty {
        if let Some(index) = self.by_name.get(&definition.name) {
            self.types[*index] = definition;
            return Ty::Struct(*index);
        }
        let index = self.types.len();
        self.by_name.insert(definition.name.clone(), index);
        self.types.push(definition);
        Ty::Struct(index)
    }
}
