//! Which names a definition gets, and what its conditions say: a plan, made without looking
//! anywhere.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{conditions, spec};
use crate::field::Path;
use crate::object::{self, list, text};
use crate::structural::check;

/// Names that others in the same group have been given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Claimed {
    /// Adds the accepted names of another definition.
    pub fn add(&mut self, definition: &Value) {
        let accepted = definition.pointer("/status/acceptedNames");
        let Some(accepted) = accepted else { return };
        for name in ["plural", "singular"] {
            self.resources.insert(text(accepted, &[name]).to_owned());
        }
        for name in list(accepted, &["shortNames"]) {
            self.resources
                .insert(name.as_str().unwrap_or_default().to_owned());
        }
        for name in ["kind", "listKind"] {
            self.kinds.insert(text(accepted, &[name]).to_owned());
        }
    }
}

/// The definition with the status that it should have; `None` when it has it.
#[must_use]
pub fn plan(definition: &Value, claimed: &Claimed, now: Timestamp) -> Option<Value> {
    let mut new = definition.clone();
    let mut changed = accept(&mut new, claimed, now);
    changed |= structural(&mut new, now);
    if let Some((status, reason, message)) = spec::approval(definition) {
        let kind = "KubernetesAPIApprovalPolicyConformant";
        changed |= conditions::set(&mut new, kind, status, reason, &message, now);
    }
    changed.then_some(new)
}

fn accept(new: &mut Value, claimed: &Claimed, now: Timestamp) -> bool {
    let empty = Value::Null;
    let wanted = new.pointer("/spec/names").unwrap_or(&empty).clone();
    let before = new
        .pointer("/status/acceptedNames")
        .unwrap_or(&empty)
        .clone();
    let mut accepted = before.clone();
    let mut refused: Option<(&str, String)> = None;
    let taken = |name: &str| format!("{name:?} is already in use");
    for (name, reason) in [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
    ] {
        let asked = text(&wanted, &[name]);
        if asked != text(&before, &[name]) && claimed.resources.contains(asked) {
            refused = Some((reason, taken(asked)));
        } else {
            set(&mut accepted, name, asked);
        }
    }
    let short = list(&wanted, &["shortNames"]);
    if short != list(&before, &["shortNames"]) {
        let own = list(&before, &["shortNames"]);
        let conflicts: Vec<String> = short
            .iter()
            .filter(|name| !own.contains(name))
            .filter_map(Value::as_str)
            .filter(|name| claimed.resources.contains(*name))
            .map(taken)
            .collect();
        match conflicts.as_slice() {
            [] => copy(&mut accepted, &wanted, "shortNames"),
            [one] => refused = Some(("ShortNamesConflict", one.clone())),
            many => refused = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
        }
    }
    for (name, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        let asked = text(&wanted, &[name]);
        if asked != text(&before, &[name]) && claimed.kinds.contains(asked) {
            refused = Some((reason, taken(asked)));
        } else {
            set(&mut accepted, name, asked);
        }
    }
    copy(&mut accepted, &wanted, "categories");
    let mut changed = accepted != before;
    if changed {
        object::fields(object::child(new, "status")).insert("acceptedNames".to_owned(), accepted);
    }
    let established = conditions::is_true(new, "Established");
    changed |= match &refused {
        None => conditions::set(
            new,
            "NamesAccepted",
            "True",
            "NoConflicts",
            "no conflicts found",
            now,
        ),
        Some((reason, message)) => {
            conditions::set(new, "NamesAccepted", "False", reason, message, now)
        }
    };
    if established {
        return changed;
    }
    changed
        | if refused.is_none() {
            conditions::set(
                new,
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted",
                now,
            )
        } else {
            conditions::set(
                new,
                "Established",
                "False",
                "NotAccepted",
                "not all names are accepted",
                now,
            )
        }
}

fn set(names: &mut Value, name: &str, value: &str) {
    if !(value.is_empty() && names.get(name).is_none()) {
        object::fields(names).insert(name.to_owned(), value.into());
    }
}

fn copy(names: &mut Value, from: &Value, name: &str) {
    object::set_or_remove(object::fields(names), name, from.get(name).cloned());
}

/// The condition that says what keeps schemas from being structural. New definitions never have
/// it; those that were stored by another server may.
fn structural(new: &mut Value, now: Timestamp) -> bool {
    let mut wrong = Vec::new();
    for (index, version) in list(new, &["spec", "versions"]).iter().enumerate() {
        let Some(schema) = version.pointer("/schema/openAPIV3Schema") else {
            continue;
        };
        let at = Path::new("spec")
            .child("versions")
            .index(index)
            .child("schema")
            .child("openAPIV3Schema");
        match check::violations(&at, schema) {
            Ok(found) => wrong.extend(found.iter().map(ToString::to_string)),
            Err(error) => wrong.push(error),
        }
    }
    let kind = "NonStructuralSchema";
    if !wrong.is_empty() {
        let message = match wrong.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        return conditions::set(new, kind, "True", "Violations", &message, now);
    }
    let Some(Value::Array(all)) = new.pointer_mut("/status/conditions") else {
        return false;
    };
    let before = all.len();
    all.retain(|condition| text(condition, &["type"]) != kind);
    all.len() != before
}
