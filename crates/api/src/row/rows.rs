//! All rows together, and the ways to find one.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::{ResourceDef, Storage, Text};
use crate::schema::{Admission, Schema, SchemaSource, Ty};

/// Rows with the ways to find them.
#[derive(Debug, Clone, Default)]
struct Table {
    rows: Vec<Arc<ResourceDef>>,
    /// By plural and by kind, of whatever group and version: few share one, and a look-up by what
    /// a caller has in hand allocates nothing. Every request makes dozens of them.
    by_plural: HashMap<Text, Vec<usize>>,
    by_kind: HashMap<Text, Vec<usize>>,
}

impl Table {
    fn new(rows: Vec<Arc<ResourceDef>>) -> Self {
        let mut by_plural: HashMap<Text, Vec<usize>> = HashMap::new();
        let mut by_kind: HashMap<Text, Vec<usize>> = HashMap::new();
        for (index, row) in rows.iter().enumerate() {
            if row.storage != Storage::BodyOnly {
                by_plural.entry(row.plural.clone()).or_default().push(index);
            }
            by_kind.entry(row.gvk.kind.clone()).or_default().push(index);
        }
        Self {
            rows,
            by_plural,
            by_kind,
        }
    }

    /// Of several the last one counts.
    fn find(
        &self,
        named: Option<&Vec<usize>>,
        group: &str,
        version: &str,
    ) -> Option<&Arc<ResourceDef>> {
        let mut rows = named?.iter().rev().map(|index| &self.rows[*index]);
        rows.find(|row| row.gvk.group == group && row.gvk.version == version)
    }
}

/// The rows that a door serves, with the schema of the built-in types.
///
/// A set never changes: when definitions of custom kinds come and go, another set takes its
/// place, which shares the built-in part.
#[derive(Debug, Clone)]
pub struct Rows {
    builtin: Arc<Table>,
    custom: Arc<Table>,
    schema: Arc<Schema>,
}

impl Rows {
    /// Joins rows; their schemas are built here, once.
    #[must_use]
    pub fn new(rows: Vec<ResourceDef>) -> Self {
        let sources: Vec<SchemaSource> = rows.iter().filter_map(|row| row.source).collect();
        Self {
            builtin: Arc::new(Table::new(rows.into_iter().map(Arc::new).collect())),
            custom: Arc::default(),
            schema: Arc::new(Schema::from_sources(&sources)),
        }
    }

    /// The rows that are built in, those behind feature gates too.
    #[must_use]
    pub fn builtin() -> Self {
        Self::new(crate::kinds::rows())
    }

    /// The built-in rows as a door serves them with these feature gates open.
    #[must_use]
    pub fn with_gates(open: &[String]) -> Self {
        let mut rows = crate::kinds::rows();
        rows.retain(|row| row.gate.is_none_or(|gate| open.iter().any(|it| it == gate)));
        let mut found = Self::new(rows);
        Arc::make_mut(&mut found.schema).close(open);
        found
    }

    /// The built-in rows with these custom ones.
    #[must_use]
    pub fn with_custom(&self, custom: Vec<Arc<ResourceDef>>) -> Self {
        Self {
            builtin: Arc::clone(&self.builtin),
            custom: Arc::new(Table::new(custom)),
            schema: Arc::clone(&self.schema),
        }
    }

    /// All rows: the built-in ones in the order of definition, then the custom ones.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.builtin.rows.iter().chain(self.custom.rows.iter())
    }

    /// The built-in rows alone.
    pub fn iter_builtin(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.builtin.rows.iter()
    }

    /// The row behind a path. What is built in can't be replaced.
    #[must_use]
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<ResourceDef>> {
        [&self.builtin, &self.custom]
            .into_iter()
            .find_map(|table| table.find(table.by_plural.get(plural), group, version))
    }

    /// The row of a kind.
    #[must_use]
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<ResourceDef>> {
        [&self.builtin, &self.custom]
            .into_iter()
            .find_map(|table| table.find(table.by_kind.get(kind), group, version))
    }

    /// The schema of all built-in types.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The built-in type of a row's objects.
    #[must_use]
    pub fn ty(&self, row: &ResourceDef) -> Ty {
        self.schema.named(&row.type_name).unwrap_or(Ty::Any)
    }

    /// The type of a row's objects, built in or custom, with the schema that it is part of.
    #[must_use]
    pub fn shape<'r>(&'r self, row: &'r ResourceDef) -> (&'r Schema, Ty) {
        match &row.custom {
            Some(custom) => {
                let (schema, ty) = custom.merge();
                (schema, ty.clone())
            }
            None => (&self.schema, self.ty(row)),
        }
    }

    /// Adds what a typed object of the reference has though nobody gave it. Custom objects have
    /// only what they were given.
    pub fn fill(&self, row: &ResourceDef, object: &mut Value) {
        if row.custom.is_none() {
            self.schema.fill(&self.ty(row), object);
        }
    }

    /// Drops what belongs to features that are off, but for what was there before. Answers with a
    /// warning for each field.
    pub fn drop_off(
        &self,
        row: &ResourceDef,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Vec<String> {
        match row.custom {
            Some(_) => Vec::new(),
            None => self.schema.drop_off(&self.ty(row), object, old),
        }
    }

    /// Checks an object against its row's type and brings it into canonical form.
    pub fn admit(&self, row: &ResourceDef, object: &mut Value) -> Admission {
        match &row.custom {
            Some(custom) => custom.admit(object),
            None => self.schema.admit(&self.ty(row), object),
        }
    }
}
