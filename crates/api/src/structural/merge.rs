//! The type by which apply merges objects of a custom kind.

use std::collections::BTreeMap;

use super::{Additional, ListKind, Structural, Type};
use crate::schema::{Field, ListType, PatchFacts, Schema, Ty, TypeDef};

/// The type of `metadata`.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Makes a schema of its own for a custom kind; `builtin` lends the type of metadata.
#[must_use]
pub fn merge_type(root: &Structural, builtin: &Schema) -> (Schema, Ty) {
    let mut build = Build {
        schema: Schema::default(),
        builtin,
    };
    let metadata = build.borrow(OBJECT_META);
    let mut definition = build.object(root);
    for (name, ty) in [
        ("apiVersion", Ty::String),
        ("kind", Ty::String),
        ("metadata", metadata),
    ] {
        definition.fields.insert(name.into(), plain(ty));
    }
    let ty = build.add(definition);
    (build.schema, ty)
}

struct Build<'b> {
    schema: Schema,
    builtin: &'b Schema,
}

fn plain(ty: Ty) -> Field {
    Field {
        ty,
        list: ListType::Atomic,
        patch: PatchFacts::default(),
        atomic: None,
        off: false,
        gate: None,
        schema_or_bool: false,
        values: Box::default(),
        default: None,
        always: false,
        pointer: false,
    }
}

impl Build<'_> {
    fn add(&mut self, mut definition: TypeDef) -> Ty {
        // Names that no published type has: Go's habits do not hold for these types.
        definition.name = format!("custom.{}", self.schema.types.len());
        self.schema.add(definition)
    }

    /// Copies a built-in type with all it refers to.
    fn borrow(&mut self, name: &str) -> Ty {
        if let Some(known) = self.schema.named(name) {
            return known;
        }
        let Some(found) = self.builtin.named(name) else {
            return Ty::Any;
        };
        let Some(definition) = self.builtin.definition(&found).cloned() else {
            return Ty::Any;
        };
        // A place first: types may refer to themselves.
        self.schema.add(TypeDef {
            name: name.to_owned(),
            ..TypeDef::default()
        });
        let fields: BTreeMap<Box<str>, Field> = definition
            .fields
            .into_iter()
            .map(|(name, field)| {
                let ty = self.translated(&field.ty);
                (name, Field { ty, ..field })
            })
            .collect();
        self.schema.add(TypeDef {
            fields,
            name: definition.name,
            atomic: definition.atomic,
            open: definition.open,
            held: definition.held,
            // Custom objects are not filled.
            holders: Vec::new(),
            ..TypeDef::default()
        })
    }

    fn translated(&mut self, ty: &Ty) -> Ty {
        match ty {
            Ty::Struct(index) => {
                let name = self.builtin.get(*index).name.clone();
                self.borrow(&name)
            }
            Ty::List(item) => Ty::List(Box::new(self.translated(item))),
            Ty::Map(item) => Ty::Map(Box::new(self.translated(item))),
            other => other.clone(),
        }
    }

    fn object(&mut self, schema: &Structural) -> TypeDef {
        let mut fields: BTreeMap<Box<str>, Field> = schema
            .properties
            .iter()
            .map(|(name, property)| (name.clone(), self.field(property)))
            .collect();
        if schema.embedded {
            let metadata = self.borrow(OBJECT_META);
            for (name, ty) in [
                ("apiVersion", Ty::String),
                ("kind", Ty::String),
                ("metadata", metadata),
            ] {
                fields.entry(name.into()).or_insert_with(|| plain(ty));
            }
        }
        TypeDef {
            name: String::new(),
            fields,
            atomic: schema.atomic_map,
            open: schema.preserve,
            ..TypeDef::default()
        }
    }

    fn field(&mut self, schema: &Structural) -> Field {
        Field {
            list: match schema.list {
                ListKind::Atomic => ListType::Atomic,
                ListKind::Set => ListType::Set,
                ListKind::Map => ListType::Map(schema.list_keys.to_vec()),
            },
            atomic: schema.atomic_map.then_some(true),
            default: schema.default.as_deref().cloned(),
            ..plain(self.ty(schema))
        }
    }

    fn ty(&mut self, schema: &Structural) -> Ty {
        if schema.int_or_string {
            return Ty::IntOrString;
        }
        match schema.ty {
            Type::None => Ty::Any,
            Type::String => Ty::String,
            Type::Integer => Ty::Int64,
            Type::Number => Ty::Number,
            Type::Boolean => Ty::Bool,
            Type::Array => Ty::List(Box::new(
                schema
                    .items
                    .as_ref()
                    .map_or(Ty::Any, |items| self.ty(items)),
            )),
            Type::Object => match &schema.additional {
                Additional::Schema(inner) => Ty::Map(Box::new(self.ty(inner))),
                _ if schema.properties.is_empty() && !schema.embedded => Ty::Any,
                _ => {
                    let definition = self.object(schema);
                    self.add(definition)
                }
            },
        }
    }
}
