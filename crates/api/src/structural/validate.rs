//! Values against a schema, in the reference's words.
//!
//! Follows kube-openapi's `validation/validate` step by step, its oddities included: which errors
//! of an `anyOf` are shown depends on how many checks its branches passed, and people match on
//! the texts. On updates, errors of parts that have not changed are dropped (KEP-4008): a part is
//! compared with the old one where the two can be told to be the same part, which items of lists
//! without keys can't.

use serde_json::Value;

use super::scalar::{choices, format, has_types, number, string, types};
use super::{Additional, ListKind, Structural};
use crate::field::{ErrorList, FieldError, Kind, Path};

/// What is wrong with a value. `old` is what it was before, when the two may be compared.
#[must_use]
pub fn validate(schema: &Structural, path: &Path, value: &Value, old: Option<&Value>) -> ErrorList {
    let found = node(schema, value, old, "");
    found
        .faults
        .into_iter()
        .map(|fault| fault.at(path))
        .collect()
}

/// An error and where it belongs.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// Path from the value that is validated; `None` for errors that name no field.
    pub(super) name: Option<String>,
    pub(super) text: String,
    pub(super) kind: FaultKind,
}

#[derive(Debug, Clone)]
pub(super) enum FaultKind {
    Required,
    Enum(Value, Vec<String>),
    TooLong(i64),
    TooMany(usize, i64),
    Type(Value),
    Invalid(Value),
}

impl Fault {
    fn at(self, path: &Path) -> FieldError {
        let at = match &self.name {
            None => path.clone(),
            Some(name) => match name.trim_start_matches('.') {
                "" => path.clone(),
                name => path.child(name),
            },
        };
        match self.kind {
            FaultKind::Required => FieldError::required(&at, ""),
            FaultKind::Enum(value, allowed) => {
                let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
                FieldError::not_supported(&at, value, &allowed)
            }
            FaultKind::TooLong(most) => {
                FieldError::too_long(&at, usize::try_from(most).unwrap_or_default())
            }
            FaultKind::TooMany(found, most) => {
                FieldError::too_many(&at, found, usize::try_from(most).unwrap_or_default())
            }
            FaultKind::Type(value) => FieldError::type_invalid(&at, value, &self.text),
            FaultKind::Invalid(value) => FieldError::invalid(&at, value, &self.text),
        }
    }
}

/// What a check found, and how much of it held.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) faults: Vec<Fault>,
    pub(super) matches: usize,
}

impl Found {
    fn ok(&self) -> bool {
        self.faults.is_empty()
    }

    fn merge(&mut self, other: Self) {
        for fault in other.faults {
            self.push(fault);
        }
        self.matches += other.matches;
    }

    pub(super) fn push(&mut self, fault: Fault) {
        if !self.faults.iter().any(|known| known.text == fault.text) {
            self.faults.push(fault);
        }
    }

    pub(super) fn invalid(&mut self, name: &str, value: impl Into<Value>, text: String) {
        self.push(Fault {
            name: Some(name.to_owned()),
            text,
            kind: FaultKind::Invalid(value.into()),
        });
    }

    pub(super) fn loose(&mut self, text: String) {
        self.push(Fault {
            name: None,
            text,
            kind: FaultKind::Invalid("".into()),
        });
    }
}

/// A value that stands for itself: its errors are dropped when it has not changed.
fn node(schema: &Structural, value: &Value, old: Option<&Value>, path: &str) -> Found {
    let found = inside(schema, value, old, path);
    if !found.ok() && old == Some(value) {
        return Found {
            faults: Vec::new(),
            matches: found.matches,
        };
    }
    found
}

/// A value under one schema.
fn inside(schema: &Structural, value: &Value, old: Option<&Value>, path: &str) -> Found {
    let mut result = Found::default();
    if value.is_null() {
        result.merge(types(schema, value, path));
        result.merge(choices(schema, value, path));
        return result;
    }
    let checks = schema.checks.as_deref();
    let mut step = |found: Found| {
        result.merge(found);
        result.matches += 1;
    };
    if has_types(schema) {
        step(types(schema, value, path));
    }
    step(junctors(schema, value, old, path));
    match value {
        Value::String(text) => {
            step(string(checks, text, path));
            if checks.is_some_and(|checks| checks.format.is_some()) {
                step(format(checks, text, path));
            }
        }
        Value::Number(_) => step(number(schema, value, path)),
        Value::Array(items) => step(list(schema, items, old, path)),
        _ => {}
    }
    step(choices(schema, value, path));
    if let Value::Object(fields) = value {
        step(object(schema, fields, old, path));
    }
    result.matches += 1;
    result
}

/// The old item that an item of a list is the successor of; only keyed lists tell.
fn old_item<'v>(schema: &Structural, old: Option<&'v Value>, item: &Value) -> Option<&'v Value> {
    if schema.list != ListKind::Map {
        return None;
    }
    let key = schema.key_of(item);
    old?.as_array()?
        .iter()
        .find(|candidate| schema.key_of(candidate) == key)
}

fn list(schema: &Structural, items: &[Value], old: Option<&Value>, path: &str) -> Found {
    let mut found = Found::default();
    if let Some(inner) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            let at = format!("{path}[{index}]");
            found.merge(node(inner, item, old_item(schema, old, item), &at));
        }
    }
    if let Some(checks) = schema.checks.as_deref() {
        let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(least) = checks.min_items.filter(|least| size < *least) {
            let wrong = format!("{path} in body should have at least {least} items");
            found.invalid(path, size, wrong);
        }
        if let Some(most) = checks.max_items.filter(|most| size > *most) {
            found.push(Fault {
                name: Some(path.to_owned()),
                text: format!("{path} in body should have at most {most} items"),
                kind: FaultKind::TooMany(items.len(), most),
            });
        }
    }
    found.matches += 1;
    found
}

fn object(
    schema: &Structural,
    fields: &serde_json::Map<String, Value>,
    old: Option<&Value>,
    path: &str,
) -> Found {
    let mut found = Found::default();
    let checks = schema.checks.as_deref();
    let size = i64::try_from(fields.len()).unwrap_or(i64::MAX);
    if let Some(least) = checks
        .and_then(|checks| checks.min_properties)
        .filter(|least| size < *least)
    {
        let wrong = format!("{path} in body should have at least {least} properties");
        found.invalid(path, size, wrong);
    }
    if let Some(most) = checks
        .and_then(|checks| checks.max_properties)
        .filter(|most| size > *most)
    {
        found.push(Fault {
            name: Some(path.to_owned()),
            text: format!("{path} in body should have at most {most} properties"),
            kind: FaultKind::TooMany(fields.len(), most),
        });
    }
    let old = old.filter(|_| !schema.atomic_map);
    let old_field = |name: &str| old.and_then(|old| old.get(name));
    for (name, value) in fields {
        if schema.property(name).is_some() {
            continue;
        }
        match &schema.additional {
            Additional::Bool(false) => {
                let wrong = format!("{path}.{name} in body is a forbidden property");
                found.invalid(path, name.as_str(), wrong);
            }
            Additional::Schema(inner) => {
                let at = format!("{path}.{name}");
                found.merge(node(inner, value, old_field(name), &at));
            }
            Additional::Bool(true) | Additional::None => {}
        }
    }
    for (name, inner) in &schema.properties {
        let Some(value) = fields.get(&**name) else {
            continue;
        };
        let at = if path.is_empty() {
            name.to_string()
        } else {
            format!("{path}.{name}")
        };
        // The type of the object itself is the same in every version, so a change can't be seen.
        let old = old_field(name)
            .filter(|_| !(path.is_empty() && matches!(&**name, "apiVersion" | "kind")));
        found.merge(node(inner, value, old, &at));
    }
    for name in checks.into_iter().flat_map(|checks| checks.required.iter()) {
        if !fields.contains_key(&**name) {
            let at = format!("{path}.{name}");
            found.push(Fault {
                text: format!("{at} in body is required"),
                name: Some(at),
                kind: FaultKind::Required,
            });
        }
    }
    found
}

/// `anyOf`, `oneOf`, `allOf` and `not`.
fn junctors(schema: &Structural, value: &Value, old: Option<&Value>, path: &str) -> Found {
    let mut main = Found::default();
    let Some(checks) = schema.checks.as_deref() else {
        main.matches += 1;
        return main;
    };
    let quoted = crate::field::quoted(path);
    if !checks.any_of.is_empty() {
        let mut best: Option<Found> = None;
        let mut held = None;
        for branch in &checks.any_of {
            let result = inside(branch, value, old, path);
            if result.ok() {
                held = Some(result);
                break;
            }
            if best
                .as_ref()
                .is_none_or(|best| result.matches > best.matches)
            {
                best = Some(result);
            }
        }
        if held.is_none() {
            main.loose(format!(
                "{quoted} must validate at least one schema (anyOf)"
            ));
        }
        if let Some(found) = held.or(best) {
            main.merge(found);
        }
    }
    if !checks.one_of.is_empty() {
        let mut best: Option<Found> = None;
        let mut first = None;
        let mut held = 0;
        for branch in &checks.one_of {
            let result = inside(branch, value, old, path);
            if result.ok() {
                held += 1;
                best = None;
                first.get_or_insert(result);
            } else if held == 0
                && best
                    .as_ref()
                    .is_none_or(|best| result.matches > best.matches)
            {
                best = Some(result);
            }
        }
        if held == 1 {
            main.merge(first.unwrap_or_default());
        } else {
            let more = if held == 0 {
                "Found none valid".to_owned()
            } else {
                format!("Found {held} valid alternatives")
            };
            main.loose(format!(
                "{quoted} must validate one and only one schema (oneOf). {more}"
            ));
            main.merge(best.unwrap_or_default());
        }
    }
    if !checks.all_of.is_empty() {
        let mut held = 0;
        for branch in &checks.all_of {
            let result = inside(branch, value, old, path);
            held += usize::from(result.ok());
            main.merge(result);
        }
        if held != checks.all_of.len() {
            let more = if held == 0 { ". None validated" } else { "" };
            main.loose(format!(
                "{quoted} must validate all the schemas (allOf){more}"
            ));
        }
    }
    if let Some(not) = &checks.not
        && inside(not, value, old, path).ok()
    {
        main.loose(format!("{quoted} must not validate the schema (not)"));
    }
    main.matches += 1;
    main
}

/// Do errors stand in the way of rules in CEL?
#[must_use]
pub(crate) fn blocks_rules(errors: &ErrorList) -> bool {
    errors.iter().any(|error| {
        matches!(
            error.kind,
            Kind::NotSupported | Kind::Required | Kind::TooLong | Kind::TooMany | Kind::TypeInvalid
        )
    })
}
