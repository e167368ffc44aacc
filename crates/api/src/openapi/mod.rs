//! OpenAPI documents, built from the rows: v3 by group and version, and v2 (Swagger) as a whole,
//! as JSON and as gnostic's protobuf.
//!
//! A document is written out piece by piece, one path and one type at a time, so that building
//! one costs little more memory than its bytes. Nothing is kept between two builds, and nothing
//! is vendored: shapes and texts come from `k8s-openapi`, merge keys, list types and defaults from
//! the table of facts, paths and verbs from the rows. The same rows give the same bytes.

mod custom;
mod merge;
mod operation;
mod operations;
mod parameters;
mod places;
mod protobuf;
mod schemas;
mod unions;
mod v3;
mod watches;

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::row::{ResourceDef, Rows, Storage, Text};
pub use merge::{Merged, within};
pub use places::Place;
pub use schemas::body_kind;
use schemas::{Definitions, Form};

/// A group and a version that have a document: those with at least one path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// Empty for the core group.
    pub group: Text,
    /// `v1`.
    pub version: Text,
}

impl GroupVersion {
    /// Its key in the index of v3 documents, and its API path: `api/v1` or `apis/apps/v1`.
    #[must_use]
    pub fn path(&self) -> String {
        if self.group.is_empty() {
            format!("api/{}", self.version)
        } else {
            format!("apis/{}/{}", self.group, self.version)
        }
    }

    fn rows<'r>(&self, rows: &'r Rows) -> Vec<&'r ResourceDef> {
        let mut own: Vec<&ResourceDef> = rows
            .iter()
            .map(AsRef::as_ref)
            .filter(|row| row.gvk.group == self.group && row.gvk.version == self.version)
            .filter(|row| row.storage != Storage::BodyOnly)
            .collect();
        own.sort_by(|a, b| a.plural.cmp(&b.plural));
        own
    }
}

/// All groups and versions that have a document, sorted.
#[must_use]
pub fn group_versions(rows: &Rows) -> Vec<GroupVersion> {
    let mut all: Vec<GroupVersion> = rows
        .iter()
        .filter(|row| row.storage != Storage::BodyOnly)
        .map(|row| GroupVersion {
            group: row.gvk.group.clone(),
            version: row.gvk.version.clone(),
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

/// What an OpenAPI 3.0 document is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The kinds of a group and version.
    Kinds(GroupVersion),
    /// A path that belongs to none.
    Place(Place),
}

impl Subject {
    /// Its key in the index of v3 documents.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Kinds(of) => of.path(),
            Self::Place(place) => place.path(),
        }
    }
}

/// What there are OpenAPI 3.0 documents about.
#[must_use]
pub fn subjects(rows: &Rows) -> Vec<Subject> {
    let kinds = group_versions(rows).into_iter().map(Subject::Kinds);
    kinds
        .chain(places::all(rows).into_iter().map(Subject::Place))
        .collect()
}

/// Writes an OpenAPI 3.0 document as JSON.
///
/// # Errors
/// Those of the writer.
pub fn write_v3(rows: &Rows, subject: &Subject, out: &mut impl Write) -> io::Result<()> {
    match subject {
        Subject::Kinds(of) => {
            let own = of.rows(rows);
            let definitions = Definitions::of(rows, &own, &[], Form::V3);
            let info = if schemas::is_builtin(&own) {
                info()
            } else {
                json!({"title": "Kubernetes CRD Swagger", "version": "v0.1.0"})
            };
            write_document(&info, definitions, operations::paths(rows, of, &own), out)
        }
        Subject::Place(place) => {
            let definitions = Definitions::of(rows, &[], std::slice::from_ref(place), Form::V3);
            write_document(&info(), definitions, std::iter::once(place.item()), out)
        }
    }
}

fn write_document(
    info: &Value,
    definitions: Definitions<'_>,
    paths: impl Iterator<Item = (String, Value)>,
    out: &mut impl Write,
) -> io::Result<()> {
    out.write_all(b"{\"components\":{")?;
    let mut definitions = definitions.finish().peekable();
    if definitions.peek().is_some() {
        out.write_all(b"\"schemas\":")?;
        let mut object = Object::open(out)?;
        for (name, definition) in definitions {
            object.entry(&name, &definition)?;
        }
        object.close()?;
        out.write_all(b",")?;
    }
    write!(
        out,
        "\"securitySchemes\":{}}},\"info\":{info},\"openapi\":\"3.0.0\",\"paths\":",
        security_definitions()
    )?;
    let mut object = Object::open(out)?;
    for (path, item) in paths {
        object.entry(&path, &v3::path_item(item))?;
    }
    object.close()?;
    out.write_all(b"}")
}

/// What other servers add to the Swagger 2.0 document of all groups. Their documents are to be
/// cut by [`within`]; the first goes before the others.
#[must_use]
pub fn merge_v2(rows: &Rows, others: Vec<Value>) -> Merged {
    if others.is_empty() {
        return Merged::default();
    }
    let all = all_rows(rows);
    let definitions = Definitions::of(rows, &all, &places::all(rows), Form::V2).finish();
    let definitions = definitions.map(|(name, found)| (name, schemas::to_v2(found)));
    let mut paths = Vec::new();
    each_path(rows, |path, _| {
        paths.push(path.to_owned());
        Ok(())
    })
    .expect("a list takes all");
    Merged::of(others, definitions, paths.into_iter())
}

/// Writes the Swagger 2.0 document of all groups as JSON.
///
/// # Errors
/// Those of the writer.
pub fn write_v2(rows: &Rows, merged: &Merged, out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"{\"definitions\":")?;
    let mut object = Object::open(out)?;
    let definitions = Definitions::of(rows, &all_rows(rows), &places::all(rows), Form::V2);
    for (name, definition) in definitions.finish() {
        match merged.own(&name) {
            Some(changed) => object.entry(&name, changed)?,
            None => object.entry(&name, &schemas::to_v2(definition))?,
        }
    }
    for (name, definition) in merged.definitions() {
        object.entry(name, definition)?;
    }
    object.close()?;
    write!(out, ",\"info\":{},\"paths\":", info())?;
    let mut object = Object::open(out)?;
    each_path(rows, |path, item| object.entry(path, item))?;
    for (path, item) in merged.paths() {
        object.entry(path, item)?;
    }
    object.close()?;
    write!(
        out,
        ",\"security\":[{{\"BearerToken\":[]}}],\"securityDefinitions\":{},\"swagger\":\"2.0\"}}",
        security_definitions()
    )
}

/// The Swagger 2.0 document of all groups as protobuf: an `openapi.v2.Document` of gnostic's
/// `OpenAPIv2.proto`, the form that kubectl before 1.27 reads.
#[must_use]
pub fn v2_protobuf(rows: &Rows, merged: &Merged) -> Vec<u8> {
    let mut document = protobuf::Document::begin(&info());
    each_path(rows, |path, item| {
        document.path(path, item);
        Ok(())
    })
    .expect("a message takes all");
    for (path, item) in merged.paths() {
        document.path(path, item);
    }
    let definitions = Definitions::of(rows, &all_rows(rows), &places::all(rows), Form::V2);
    for (name, definition) in definitions.finish() {
        match merged.own(&name) {
            Some(changed) => document.definition(&name, changed),
            None => document.definition(&name, &schemas::to_v2(definition)),
        }
    }
    for (name, definition) in merged.definitions() {
        document.definition(name, definition);
    }
    document.end(&security_definitions())
}

/// Every path of the Swagger 2.0 document, one after the other.
fn each_path(rows: &Rows, mut take: impl FnMut(&str, &Value) -> io::Result<()>) -> io::Result<()> {
    for subject in subjects(rows) {
        match subject {
            Subject::Kinds(of) => {
                let own = of.rows(rows);
                operations::paths(rows, &of, &own)
                    .try_for_each(|(path, item)| take(&path, &item))?;
            }
            Subject::Place(place) => {
                let (path, item) = place.item();
                take(&path, &item)?;
            }
        }
    }
    Ok(())
}

fn all_rows(rows: &Rows) -> Vec<&ResourceDef> {
    rows.iter().map(AsRef::as_ref).collect()
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "1.37"})
}

fn security_definitions() -> Value {
    json!({"BearerToken": {
        "description": "Bearer Token authentication", "in": "header", "name": "authorization",
        "type": "apiKey",
    }})
}

/// A JSON object that is written entry by entry.
struct Object<'w, W> {
    out: &'w mut W,
    first: bool,
}

impl<'w, W: Write> Object<'w, W> {
    fn open(out: &'w mut W) -> io::Result<Self> {
        out.write_all(b"{")?;
        Ok(Self { out, first: true })
    }

    fn entry(&mut self, name: &str, value: &Value) -> io::Result<()> {
        if !std::mem::take(&mut self.first) {
            self.out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *self.out, name)?;
        self.out.write_all(b":")?;
        serde_json::to_writer(&mut *self.out, value)?;
        Ok(())
    }

    fn close(self) -> io::Result<()> {
        self.out.write_all(b"}")
    }
}

#[cfg(test)]
mod tests;
