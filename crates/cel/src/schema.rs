//! What is known of the data behind a variable: types for the checker, sizes for the estimator,
//! and how JSON becomes values.
//!
//! Built from OpenAPI as custom resources declare it, or by hand.

mod openapi;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;

use crate::errors::EvalError;
use crate::time::{Duration, Timestamp};
use crate::types::{ObjectType, Type};
use crate::value::{Key, List, ListKind, Value};

pub use openapi::escape;

/// A schema. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schema(Arc<Node>);

#[derive(Debug)]
struct Node {
    shape: Shape,
    /// The largest `size()`, in bytes for text.
    max_elements: u64,
    /// The shortest JSON, in bytes.
    min_size: u64,
}

#[derive(Debug)]
enum Shape {
    Simple(Type),
    List {
        item: Schema,
        kind: ListKind,
    },
    Map {
        value: Schema,
    },
    Object {
        ty: Arc<ObjectType>,
        fields: BTreeMap<String, Field>,
    },
}

#[derive(Debug, Clone)]
struct Field {
    /// The name in JSON.
    json: String,
    schema: Schema,
}

/// Where nothing bounds a size.
const UNBOUNDED: u64 = i64::MAX as u64;

impl Schema {
    fn new(shape: Shape, max_elements: u64, min_size: u64) -> Self {
        Self(Arc::new(Node {
            shape,
            max_elements,
            min_size,
        }))
    }

    /// Anything.
    pub fn dynamic() -> Self {
        Self::simple(Type::Dyn)
    }

    /// A type without parts.
    pub fn simple(ty: Type) -> Self {
        let min = match ty {
            Type::Bool => 4,
            Type::Int | Type::Uint | Type::Double => 1,
            Type::String | Type::Bytes => 2,
            Type::Timestamp => 21,
            Type::Duration => 3,
            _ => 1,
        };
        Self::new(Shape::Simple(ty), UNBOUNDED, min)
    }

    /// A list.
    pub fn list(item: Self) -> Self {
        Self::new(
            Shape::List {
                item,
                kind: ListKind::Atomic,
            },
            UNBOUNDED,
            2,
        )
    }

    /// A map with text as keys.
    pub fn map(value: Self) -> Self {
        Self::new(Shape::Map { value }, UNBOUNDED, 2)
    }

    /// An object with fields. Names are the expression's; use [`escape`] for names of JSON that
    /// are no identifiers.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let fields = fields
            .into_iter()
            .map(|(name, schema)| (name.clone(), Field { json: name, schema }));
        Self::object_of(name, fields.collect(), 2)
    }

    fn object_of(name: &str, fields: BTreeMap<String, Field>, min_size: u64) -> Self {
        let types = fields
            .iter()
            .map(|(name, field)| (name.clone(), field.schema.ty()))
            .collect();
        let ty = Arc::new(ObjectType {
            name: name.into(),
            fields: types,
        });
        Self::new(Shape::Object { ty, fields }, UNBOUNDED, min_size)
    }

    /// The same with a bound on its size.
    #[must_use]
    pub fn with_max(&self, max_elements: u64) -> Self {
        let shape = match &self.0.shape {
            Shape::Simple(ty) => Shape::Simple(ty.clone()),
            Shape::List { item, kind } => Shape::List {
                item: item.clone(),
                kind: kind.clone(),
            },
            Shape::Map { value } => Shape::Map {
                value: value.clone(),
            },
            Shape::Object { ty, fields } => Shape::Object {
                ty: ty.clone(),
                fields: fields.clone(),
            },
        };
        Self::new(shape, max_elements, self.0.min_size)
    }

    /// The type that the checker sees.
    pub fn ty(&self) -> Type {
        match &self.0.shape {
            Shape::Simple(ty) => ty.clone(),
            Shape::List { item, .. } => Type::list(item.ty()),
            Shape::Map { value } => Type::map(Type::String, value.ty()),
            Shape::Object { ty, .. } => Type::Object(ty.clone()),
        }
    }

    /// The largest size: elements of a list or map, bytes of text.
    pub fn max_elements(&self) -> u64 {
        self.0.max_elements
    }

    /// The shortest JSON of a value, in bytes: how often a value can be in a request follows.
    pub fn min_size(&self) -> u64 {
        self.0.min_size
    }

    /// The schema of a field, by the expression's name for it.
    pub fn field(&self, name: &str) -> Option<Self> {
        match &self.0.shape {
            Shape::Object { fields, .. } => fields.get(name).map(|f| f.schema.clone()),
            _ => None,
        }
    }

    /// The schema of the elements of a list or the values of a map.
    pub fn items(&self) -> Option<Self> {
        match &self.0.shape {
            Shape::List { item, .. } => Some(item.clone()),
            Shape::Map { value } => Some(value.clone()),
            _ => None,
        }
    }

    /// The schema of the keys of a map.
    pub(crate) fn keys(&self) -> Option<Self> {
        matches!(self.0.shape, Shape::Map { .. }).then(|| Self::simple(Type::String))
    }

    /// Reads an OpenAPI v3 schema as JSON, as a custom resource definition has it. `name` is the
    /// object's name in messages; `resource` says that it is the root of a resource, which has
    /// `apiVersion`, `kind` and `metadata` whether declared or not. `None` where expressions can't
    /// see the data.
    pub fn from_openapi(schema: &serde_json::Value, name: &str, resource: bool) -> Option<Self> {
        openapi::schema(schema, name, resource)
    }

    /// JSON as a value: text with a format becomes what it means, lists keep what identifies their
    /// elements, fields get their names.
    pub fn value(&self, json: &serde_json::Value) -> Result<Value, EvalError> {
        use serde_json::Value as Json;
        let wrong = |what: &str| Err(EvalError::new(format!("invalid data, expected {what}")));
        Ok(match (&self.0.shape, json) {
            (_, Json::Null) => Value::Null,
            (Shape::Simple(Type::Dyn), json) => Value::from_json(json),
            (Shape::Simple(ty), Json::String(text)) => return simple_text(ty, text),
            (Shape::Simple(Type::Double), Json::Number(n)) => {
                Value::Double(n.as_f64().unwrap_or(f64::NAN))
            }
            (Shape::Simple(Type::Int), Json::Number(n)) => match n.as_i64() {
                Some(n) => Value::Int(n),
                None => return wrong("int, got float64"),
            },
            (Shape::Simple(Type::Bool), Json::Bool(b)) => Value::Bool(*b),
            (Shape::Simple(ty), _) => return wrong(&ty.to_string()),
            (Shape::List { item, kind }, Json::Array(items)) => {
                let items = items
                    .iter()
                    .map(|json| item.value(json))
                    .collect::<Result<_, _>>()?;
                Value::List(Arc::new(List {
                    items,
                    kind: kind.clone(),
                }))
            }
            (Shape::List { .. }, _) => {
                return wrong("an array for the provided schema with type=array");
            }
            (Shape::Map { value }, Json::Object(map)) => {
                let mut entries = BTreeMap::new();
                for (key, json) in map {
                    entries.insert(Key::String(key.as_str().into()), value.value(json)?);
                }
                Value::Map(Arc::new(entries))
            }
            (Shape::Object { fields, .. }, Json::Object(map)) => {
                let mut entries = BTreeMap::new();
                for (name, field) in fields {
                    if let Some(json) = map.get(&field.json) {
                        entries
                            .insert(Key::String(name.as_str().into()), field.schema.value(json)?);
                    }
                }
                Value::Map(Arc::new(entries))
            }
            (Shape::Map { .. } | Shape::Object { .. }, _) => {
                return wrong("a map for the provided schema with type=object");
            }
        })
    }
}

fn simple_text(ty: &Type, text: &str) -> Result<Value, EvalError> {
    let bad = |what: &str| EvalError::new(format!("Invalid {what} {text}"));
    Ok(match ty {
        Type::Timestamp => {
            let time = Timestamp::parse(text).or_else(|| Timestamp::parse_date(text));
            Value::Timestamp(time.ok_or_else(|| bad("date-time formatted string"))?)
        }
        Type::Duration => Value::Duration(Duration::parse(text).ok_or_else(|| bad("duration"))?),
        Type::Bytes => {
            let octets = base64::engine::general_purpose::STANDARD.decode(text);
            Value::Bytes(octets.map_err(|_| bad("byte formatted string"))?.into())
        }
        Type::String => Value::from(text),
        _ => {
            return Err(EvalError::new(format!(
                "invalid data, expected {ty}, got string"
            )));
        }
    })
}
