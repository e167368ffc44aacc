//! Types of kinds for expressions, and what a policy says under them.
//!
//! Policies see objects of any type when they are carried out. Here they are compiled once more
//! against the types that their rules name, so that misspelt fields are told to the author. What is
//! not built in has its type from the OpenAPI document of its group and version: custom kinds, and
//! those of servers behind the door. Whoever checks brings these documents along.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_cel::{Schema as Cel, Type};
use serde_json::{Map, Value, json};

use super::{Declarations, Expressions, Output};
use crate::object;
use crate::row::Rows;
use crate::schema::{Schema, Ty};

/// Types that a policy is compiled against at most.
const MAX_TYPES: usize = 10;
/// Types that contain themselves are followed so far.
const MAX_DEPTH: usize = 12;

/// A group and a version.
pub type GroupVersion = (String, String);

/// OpenAPI v3 documents of groups and versions that are not built in.
pub type Documents = BTreeMap<GroupVersion, Value>;

/// An expression of a policy and what is wrong with it under the types it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where it stands, as `spec.validations[0].expression`.
    pub field: String,
    /// What is wrong, type by type.
    pub warning: String,
}

/// The type of a value as expressions see it.
#[must_use]
pub fn schema_of(schema: &Schema, ty: &Ty) -> Cel {
    convert(schema, ty, 0)
}

fn convert(schema: &Schema, ty: &Ty, depth: usize) -> Cel {
    if depth > MAX_DEPTH {
        return Cel::dynamic();
    }
    match ty {
        Ty::Bool => Cel::simple(Type::Bool),
        Ty::Int32 | Ty::Int64 => Cel::simple(Type::Int),
        Ty::Number => Cel::simple(Type::Double),
        Ty::String => Cel::simple(Type::String),
        Ty::Bytes => Cel::simple(Type::Bytes),
        Ty::Time | Ty::MicroTime => Cel::simple(Type::Timestamp),
        Ty::Quantity | Ty::IntOrString | Ty::Any => Cel::dynamic(),
        Ty::List(item) => Cel::list(convert(schema, item, depth + 1)),
        Ty::Map(item) => Cel::map(convert(schema, item, depth + 1)),
        Ty::Struct(index) => {
            let definition = schema.get(*index);
            let fields = definition
                .fields
                .iter()
                .map(|(name, field)| (name.to_string(), convert(schema, &field.ty, depth + 1)));
            Cel::object(&definition.name, fields)
        }
    }
}

fn texts<'v>(rule: &'v Value, name: &str) -> Vec<&'v str> {
    let found: Vec<&str> = object::list(rule, &[name])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if found.contains(&"*") {
        Vec::new()
    } else {
        found
    }
}

/// The resources that a policy's rules name: group, version and plural. Rules with a star name
/// none.
fn resources(spec: &Value) -> BTreeSet<(&str, &str, &str)> {
    let mut found = BTreeSet::new();
    for rule in object::list(spec, &["matchConstraints", "resourceRules"]) {
        for group in texts(rule, "apiGroups") {
            for version in texts(rule, "apiVersions") {
                for plural in texts(rule, "resources") {
                    found.insert((group, version, plural));
                }
            }
        }
    }
    found
}

/// Group, version and kind of a policy's parameters.
fn parameters(spec: &Value) -> Option<(&str, &str, &str)> {
    let kind = object::text(spec, &["paramKind", "kind"]);
    let api_version = object::text(spec, &["paramKind", "apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    (!kind.is_empty()).then_some((group, version, kind))
}

/// The documents that are needed to check a policy.
#[must_use]
pub fn documents(rows: &Rows, policy: &Value) -> BTreeSet<GroupVersion> {
    let spec = &policy["spec"];
    let key = |group: &str, version: &str| (group.to_owned(), version.to_owned());
    let mut needed: BTreeSet<GroupVersion> = resources(spec)
        .into_iter()
        .filter(|(group, version, plural)| rows.by_path(group, version, plural).is_none())
        .map(|(group, version, _)| key(group, version))
        .collect();
    if let Some((group, version, kind)) = parameters(spec)
        && rows.by_kind(group, version, kind).is_none()
    {
        needed.insert(key(group, version));
    }
    needed
}

/// The types that a policy is about, by how the reference prints their kinds.
fn kinds(rows: &Rows, documents: &Documents, spec: &Value) -> BTreeMap<String, Cel> {
    let schema = rows.schema();
    let mut found = BTreeMap::new();
    for (group, version, plural) in resources(spec) {
        let (kind, ty) = match rows.by_path(group, version, plural) {
            Some(row) => (row.gvk.kind.to_string(), schema_of(schema, &rows.ty(row))),
            None => {
                let key = (group.to_owned(), version.to_owned());
                let Some(document) = documents.get(&key) else {
                    continue;
                };
                let Some(kind) = kind_of(document, group, version, plural) else {
                    continue;
                };
                let Some(ty) = described(document, group, version, &kind) else {
                    continue;
                };
                (kind, ty)
            }
        };
        // Go prints the group even when it is empty.
        found.insert(format!("{group}/{version}, Kind={kind}"), ty);
        if found.len() == MAX_TYPES {
            break;
        }
    }
    found
}

const KIND: &str = "x-kubernetes-group-version-kind";

/// The kind that a document serves under a plural.
fn kind_of(document: &Value, group: &str, version: &str, plural: &str) -> Option<String> {
    let root = format!("/apis/{group}/{version}");
    let paths = [
        format!("{root}/namespaces/{{namespace}}/{plural}"),
        format!("{root}/{plural}"),
    ];
    let item = paths.iter().find_map(|path| document["paths"].get(path))?;
    ["post", "get"]
        .iter()
        .map(|method| object::text(item, &[method, KIND, "kind"]))
        .find(|kind| !kind.is_empty())
        .map(str::to_owned)
}

/// The type that a document has of a kind.
fn described(document: &Value, group: &str, version: &str, kind: &str) -> Option<Cel> {
    let is_it = |found: &Value| {
        let text = |name: &str| object::text(found, &[name]);
        (text("group"), text("version"), text("kind")) == (group, version, kind)
    };
    let all = document.pointer("/components/schemas")?.as_object()?;
    let schema = all
        .values()
        .find(|schema| object::list(schema, &[KIND]).iter().any(is_it))?;
    Cel::from_openapi(&resolved(all, schema, 0), kind, false)
}

/// A schema with what it refers to in its place.
fn resolved(all: &Map<String, Value>, schema: &Value, depth: usize) -> Value {
    let anything = || json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    if depth > MAX_DEPTH {
        return anything();
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return all
            .get(name)
            .map_or_else(anything, |schema| resolved(all, schema, depth + 1));
    }
    // A reference beside a description is written so.
    if let [one] = object::list(schema, &["allOf"])
        && schema.get("type").is_none()
    {
        return resolved(all, one, depth + 1);
    }
    let mut out = schema.clone();
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = out.get_mut(name).filter(|inner| inner.is_object()) {
            *inner = resolved(all, inner, depth + 1);
        }
    }
    if let Some(properties) = out.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            *property = resolved(all, property, depth + 1);
        }
    }
    out
}

/// What is wrong with the expressions of a validating policy under the types that it is about. A
/// kind whose document is not there is not checked.
#[must_use]
pub fn type_check(rows: &Rows, documents: &Documents, policy: &Value) -> Vec<Finding> {
    let spec = &policy["spec"];
    let declarations = Declarations {
        params: spec["paramKind"].is_object(),
        authorizer: true,
        patches: false,
    };
    let schema = rows.schema();
    let params = parameters(spec).and_then(|(group, version, kind)| {
        if let Some(row) = rows.by_kind(group, version, kind) {
            return Some(schema_of(schema, &rows.ty(row)));
        }
        let document = documents.get(&(group.to_owned(), version.to_owned()))?;
        described(document, group, version, kind)
    });
    let params = params.unwrap_or_else(Cel::dynamic);
    let environments: Vec<(String, Expressions)> = kinds(rows, documents, spec)
        .into_iter()
        .map(|(kind, object)| {
            let mut expressions = Expressions::typed(declarations, &object, &params);
            for variable in object::list(spec, &["variables"]) {
                let source = object::text(variable, &["expression"]);
                let ty = expressions
                    .compile(source, Output::Any)
                    .map_or(Type::Dyn, |program| program.output().clone());
                expressions.declare(object::text(variable, &["name"]), ty);
            }
            (kind, expressions)
        })
        .collect();
    let mut findings = Vec::new();
    for (index, rule) in object::list(spec, &["validations"]).iter().enumerate() {
        for name in ["expression", "messageExpression"] {
            let source = object::text(rule, &[name]);
            let found: Vec<String> = environments
                .iter()
                .filter(|_| !source.is_empty())
                .filter_map(|(kind, expressions)| {
                    let wrong = expressions.check(source)?;
                    Some(format!("{kind}: {wrong}\n"))
                })
                .collect();
            if !found.is_empty() {
                findings.push(Finding {
                    field: format!("spec.validations[{index}].{name}"),
                    warning: found.join("\n"),
                });
            }
        }
    }
    findings
}
