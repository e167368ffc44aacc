//! Structural schemas: the shape that a CustomResourceDefinition gives to its objects.
//!
//! [`Structural`] is the compiled form of `openAPIV3Schema`, without the texts: what pruning,
//! defaulting and validation need and nothing else. The rules are those of
//! `k8s.io/apiextensions-apiserver/pkg/apiserver/schema` and of kube-openapi's validator. The
//! schema itself is checked by [`check`]; OpenAPI documents are written from the JSON, not from
//! here.

pub mod check;
mod default;
mod embedded;
mod formats;
mod lists;
mod merge;
mod numbers;
mod path;
mod prune;
mod read;
mod rules;
mod scalar;
mod validate;

use serde_json::Value;

pub use formats::{Pattern, is_known as is_known_format};
pub use merge::merge_type;
pub use path::field_at;
pub use rules::Rules;
pub(crate) use validate::blocks_rules;
pub use validate::validate;

/// The declared type of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Type {
    /// None is declared.
    #[default]
    None,
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

impl Type {
    /// As in schemas.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListKind {
    /// One value; what lists are unless they say otherwise.
    #[default]
    Atomic,
    /// Every item once.
    Set,
    /// Items by their keys.
    Map,
}

/// `additionalProperties`.
#[derive(Debug, Clone, Default)]
pub enum Additional {
    /// Not given.
    #[default]
    None,
    /// `true` or `false`.
    Bool(bool),
    /// What every other property is.
    Schema(Box<Structural>),
}

impl Additional {
    /// Given at all?
    #[must_use]
    pub fn is_given(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// The schema of entries, when there is one.
    #[must_use]
    pub fn schema(&self) -> Option<&Structural> {
        match self {
            Self::Schema(schema) => Some(schema),
            _ => None,
        }
    }
}

/// A rule of `x-kubernetes-validations`, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The expression.
    pub rule: Box<str>,
    /// What is said when it does not hold.
    pub message: Box<str>,
    /// An expression for that text.
    pub message_expression: Box<str>,
    /// `FieldValueInvalid` and the like; empty for the default.
    pub reason: Box<str>,
    /// Where the error is shown, relative to the value.
    pub field_path: Box<str>,
    /// `oldSelf` is optional, and the rule also runs on creation.
    pub optional_old_self: bool,
}

/// A schema, compiled.
#[derive(Debug, Clone, Default)]
pub struct Structural {
    /// Declared type.
    pub ty: Type,
    /// Null is a value.
    pub nullable: bool,
    /// Unknown fields are kept.
    pub preserve: bool,
    /// The value is an object with `apiVersion`, `kind` and `metadata` of its own.
    pub embedded: bool,
    /// An integer or text.
    pub int_or_string: bool,
    /// The map is owned as one value.
    pub atomic_map: bool,
    /// How a list is identified.
    pub list: ListKind,
    /// The keys of a list of kind map.
    pub list_keys: Box<[Box<str>]>,
    /// What stands for a missing value.
    pub default: Option<Box<Value>>,
    /// Of a list.
    pub items: Option<Box<Structural>>,
    /// Of an object, sorted by name.
    pub properties: Box<[(Box<str>, Structural)]>,
    /// Of a map.
    pub additional: Additional,
    /// What values must fulfil.
    pub checks: Option<Box<Checks>>,
    /// Rules in CEL.
    pub rules: Box<[Rule]>,
}

/// What a value must fulfil beyond its shape.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// `format`, only when it is one that is checked.
    pub format: Option<Box<str>>,
    /// `maximum`
    pub maximum: Option<f64>,
    /// `exclusiveMaximum`
    pub exclusive_maximum: bool,
    /// `minimum`
    pub minimum: Option<f64>,
    /// `exclusiveMinimum`
    pub exclusive_minimum: bool,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `maxLength`, in characters.
    pub max_length: Option<i64>,
    /// `minLength`, in characters.
    pub min_length: Option<i64>,
    /// `pattern`
    pub pattern: Option<Pattern>,
    /// `maxItems`
    pub max_items: Option<i64>,
    /// `minItems`
    pub min_items: Option<i64>,
    /// `maxProperties`
    pub max_properties: Option<i64>,
    /// `minProperties`
    pub min_properties: Option<i64>,
    /// `enum`; empty when not given.
    pub one_of_values: Box<[Value]>,
    /// `required`
    pub required: Box<[Box<str>]>,
    /// `allOf`
    pub all_of: Box<[Structural]>,
    /// `anyOf`
    pub any_of: Box<[Structural]>,
    /// `oneOf`
    pub one_of: Box<[Structural]>,
    /// `not`
    pub not: Option<Box<Structural>>,
}

impl Structural {
    /// The schema of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Self> {
        self.properties
            .binary_search_by(|(found, _)| (**found).cmp(name))
            .ok()
            .map(|index| &self.properties[index].1)
    }

    /// The schema of a field: a property, or what all other fields are.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.property(name).or_else(|| self.additional.schema())
    }

    /// Is there a rule anywhere in it?
    #[must_use]
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
            || self.items.as_ref().is_some_and(|items| items.has_rules())
            || self.additional.schema().is_some_and(Self::has_rules)
            || self.properties.iter().any(|(_, schema)| schema.has_rules())
    }
}

#[cfg(test)]
mod tests;
