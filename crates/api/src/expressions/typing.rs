//! Types of built-in kinds for expressions, and what a policy says under them.
//!
//! Policies see objects of any type when they are carried out. Here they are compiled once more
//! against the types that their rules name, so that misspelt fields are told to the author.

use std::collections::BTreeMap;

use evenkeel_cel::{Schema as Cel, Type};
use serde_json::Value;

use super::{Declarations, Expressions, Output};
use crate::object;
use crate::row::{ResourceDef, Rows};
use crate::schema::{Schema, Ty};

/// Types that a policy is compiled against at most.
const MAX_TYPES: usize = 10;
/// Types that contain themselves are followed so far.
const MAX_DEPTH: usize = 12;

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

/// The kinds that a policy's rules name; rules with a star name none.
fn kinds<'r>(rows: &'r Rows, spec: &Value) -> Vec<&'r ResourceDef> {
    let mut found = BTreeMap::new();
    for rule in object::list(spec, &["matchConstraints", "resourceRules"]) {
        for group in texts(rule, "apiGroups") {
            for version in texts(rule, "apiVersions") {
                for plural in texts(rule, "resources") {
                    if let Some(row) = rows.by_path(group, version, plural) {
                        found.insert(kind_text(row), &**row);
                    }
                }
            }
        }
    }
    found.into_values().take(MAX_TYPES).collect()
}

fn kind_text(row: &ResourceDef) -> String {
    let api_version = row.gvk.api_version();
    // Go prints the group even when it is empty.
    let slash = if row.gvk.group.is_empty() { "/" } else { "" };
    format!("{slash}{api_version}, Kind={}", row.gvk.kind)
}

/// What is wrong with the expressions of a validating policy under the types that it is about.
#[must_use]
pub fn type_check(rows: &Rows, policy: &Value) -> Vec<Finding> {
    let spec = &policy["spec"];
    let declarations = Declarations {
        params: spec["paramKind"].is_object(),
        authorizer: true,
        patches: false,
    };
    let schema = rows.schema();
    let params = object::text(spec, &["paramKind", "apiVersion"]);
    let (group, version) = params.split_once('/').unwrap_or(("", params));
    let params = rows
        .by_kind(group, version, object::text(spec, &["paramKind", "kind"]))
        .map_or_else(Cel::dynamic, |row| schema_of(schema, &rows.ty(row)));
    let environments: Vec<(String, Expressions)> = kinds(rows, spec)
        .into_iter()
        .map(|row| {
            let object = schema_of(schema, &rows.ty(row));
            let mut expressions = Expressions::typed(declarations, &object, &params);
            for variable in object::list(spec, &["variables"]) {
                let source = object::text(variable, &["expression"]);
                let ty = expressions
                    .compile(source, Output::Any)
                    .map_or(Type::Dyn, |program| program.output().clone());
                expressions.declare(object::text(variable, &["name"]), ty);
            }
            (kind_text(row), expressions)
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
