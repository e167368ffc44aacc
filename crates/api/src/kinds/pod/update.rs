//! What of a pod may change, and where.

use serde_json::{Value, json};

use super::scheduling;
use crate::field::{ErrorList, FieldError, quoted};
use crate::object::fields;
use crate::validation::{self, Cursor, text};

const MIRROR: &str = "kubernetes.io/config.mirror";
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,\
     `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What is wrong with an update of a pod at its own path.
pub(super) fn pod(new: &Value, old: &Value, out: &mut ErrorList) {
    mirror(new, old, out);
    let (at, before) = (
        Cursor::root(new).child("spec"),
        Cursor::root(old).child("spec"),
    );
    for list in ["containers", "initContainers"] {
        if at.list(list).len() != before.list(list).len() {
            out.push(FieldError::forbidden(
                &at.at(list),
                "pod updates may not add or remove containers",
            ));
            return;
        }
    }
    if !deadline(&at, &before, out) {
        return;
    }
    added_tolerations(&at, &before, out);
    removed_gates(&at, &before, out);
    if at.value == before.value {
        return;
    }
    let munged = munge(&at, &before, out);
    if munged != *before.value {
        out.push(FieldError::forbidden(
            &at.path,
            &format!(
                "pod updates may not change fields other than {UPDATABLE}\n{}",
                difference("core.PodSpec", before.value, &munged)
            ),
        ));
    }
}

/// Answers whether the rest may be looked at.
fn deadline(at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) -> bool {
    let path = at.at("activeDeadlineSeconds");
    let limit = i64::from(i32::MAX);
    match (
        at.integer("activeDeadlineSeconds"),
        before.integer("activeDeadlineSeconds"),
    ) {
        (Some(new), _) if !(0..=limit).contains(&new) => {
            let wrong = text::inclusive_range(0, limit);
            out.push(FieldError::invalid(&path, new, &wrong));
            false
        }
        (Some(new), Some(old)) if old < new => {
            out.push(FieldError::invalid(
                &path,
                new,
                "must be less than or equal to previous value",
            ));
            false
        }
        (None, Some(_)) => {
            out.push(FieldError::invalid(
                &path,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
            true
        }
        _ => true,
    }
}

fn added_tolerations(at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        fields(&mut toleration).remove("tolerationSeconds");
        toleration
    };
    let kept = before.list("tolerations").iter().all(|old| {
        let old = without_seconds(old);
        at.list("tolerations")
            .iter()
            .any(|new| without_seconds(new) == old)
    });
    if kept {
        // The tolerations themselves are checked with the whole pod as well, as upstream.
        scheduling::tolerations(at, out);
    } else {
        out.push(FieldError::forbidden(
            &at.at("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

fn removed_gates(at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) {
    for gate in at.items("schedulingGates") {
        let name = gate.text("name");
        if !before
            .items("schedulingGates")
            .any(|old| old.text("name") == name)
        {
            out.push(FieldError::forbidden(
                &gate.at("name"),
                &format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            ));
        }
    }
}

/// The new spec with everything that may change put back.
fn munge(at: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) -> Value {
    let mut munged = at.value.clone();
    for list in ["containers", "initContainers"] {
        for (new, old) in super::defaults::list_mut(&mut munged, list).zip(before.list(list)) {
            restore(new, old, "image");
        }
    }
    for name in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        restore(&mut munged, before.value, name);
    }
    if before.number("terminationGracePeriodSeconds") < 0
        && at.number("terminationGracePeriodSeconds") == 1
    {
        restore(&mut munged, before.value, "terminationGracePeriodSeconds");
    }
    if !before.list("schedulingGates").is_empty() {
        gated(at, before, &mut munged, out);
    }
    munged
}

fn restore(new: &mut Value, old: &Value, name: &str) {
    crate::object::set_or_remove(fields(new), name, old.get(name).cloned());
}

/// A pod that is held back may be narrowed to fewer nodes.
fn gated(at: &Cursor<'_>, before: &Cursor<'_>, munged: &mut Value, out: &mut ErrorList) {
    if !validation::labels_match(before.raw("nodeSelector"), at.raw("nodeSelector")) {
        out.push(FieldError::invalid(
            &at.at("nodeSelector"),
            at.raw("nodeSelector").clone(),
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        ));
    }
    restore(munged, before.value, "nodeSelector");
    let (new, old) = (required_terms(at), required_terms(before));
    let list = |at: &Cursor<'_>| at.value.as_array().cloned().unwrap_or_default();
    let (new_terms, old_terms) = (list(&new), list(&old));
    if !old_terms.is_empty() && old_terms.len() != new_terms.len() {
        out.push(FieldError::invalid(
            &new.path,
            new_terms,
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        ));
    } else {
        for (index, (new_term, old_term)) in new_terms.iter().zip(&old_terms).enumerate() {
            if !only_added(new_term, old_term) {
                out.push(FieldError::invalid(
                    &new.path.index(index),
                    new_term.clone(),
                    "only additions are allowed (no mutations or deletions)",
                ));
            }
        }
    }
    let old_affinity = before.child("affinity").raw("nodeAffinity").clone();
    let mut affinity = munged.get("affinity").cloned().unwrap_or(json!({}));
    crate::object::set_or_remove(
        fields(&mut affinity),
        "nodeAffinity",
        (!old_affinity.is_null()).then_some(old_affinity),
    );
    let empty = fields(&mut affinity).is_empty() && !before.has("affinity");
    crate::object::set_or_remove(fields(munged), "affinity", (!empty).then_some(affinity));
}

fn required_terms<'a>(spec: &Cursor<'a>) -> Cursor<'a> {
    spec.child("affinity")
        .child("nodeAffinity")
        .child("requiredDuringSchedulingIgnoredDuringExecution")
        .child("nodeSelectorTerms")
}

fn only_added(new: &Value, old: &Value) -> bool {
    let (new, old) = (Cursor::root(new), Cursor::root(old));
    let lists = ["matchExpressions", "matchFields"];
    if lists.iter().all(|list| old.list(list).is_empty()) {
        return lists.iter().all(|list| new.list(list).is_empty());
    }
    lists
        .iter()
        .all(|list| new.list(list).starts_with(old.list(list)))
}

fn mirror(new: &Value, old: &Value, out: &mut ErrorList) {
    let meta = Cursor::root(new).child("metadata").child("annotations");
    let before = Cursor::root(old).child("metadata").child("annotations");
    let detail = match (before.has(MIRROR), meta.has(MIRROR)) {
        (true, _) if before.raw(MIRROR) != meta.raw(MIRROR) => {
            "may not remove or update mirror pod annotation"
        }
        (false, true) => "may not add mirror pod annotation",
        _ => return,
    };
    out.push(FieldError::forbidden(&meta.path.key(MIRROR), detail));
}

/// What is wrong with an update through `ephemeralcontainers`, whose other changes have been
/// undone by [`super::prepare_ephemeral_containers`].
pub(super) fn ephemeral_containers(new: &Value, old: &Value, out: &mut ErrorList) {
    let (at, before) = (
        Cursor::root(new).child("spec"),
        Cursor::root(old).child("spec"),
    );
    if Cursor::root(old)
        .child("metadata")
        .child("annotations")
        .has(MIRROR)
    {
        out.clear();
        out.push(FieldError::forbidden(
            &crate::field::Path::new("[]"),
            "static pods do not support ephemeral containers",
        ));
        return;
    }
    let path = at.at("ephemeralContainers");
    for old in before.items("ephemeralContainers") {
        let name = old.text("name");
        let quoted = quoted(name);
        match at
            .items("ephemeralContainers")
            .find(|new| new.text("name") == name)
        {
            None => out.push(FieldError::forbidden(
                &path,
                &format!("existing ephemeral containers {quoted} may not be removed\n"),
            )),
            Some(new) if new.value != old.value => out.push(FieldError::forbidden(
                &path,
                &format!(
                    "existing ephemeral containers {quoted} may not be changed\n{}",
                    difference("core.EphemeralContainer", old.value, new.value)
                ),
            )),
            Some(_) => {}
        }
    }
}

/// Lists what differs between two values of a Go type, one line for each side of a field.
fn difference(go_type: &str, old: &Value, new: &Value) -> String {
    let mut lines = vec![format!("  {go_type}{{")];
    walk("", old, new, &mut lines);
    lines.push("  }\n".to_owned());
    lines.join("\n")
}

fn walk(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(old_fields), Value::Object(new_fields)) => {
            let mut names: Vec<&String> = old_fields.keys().chain(new_fields.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let inner = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let side = |fields: &crate::object::Fields| {
                    fields.get(name).cloned().unwrap_or(Value::Null)
                };
                walk(&inner, &side(old_fields), &side(new_fields), lines);
            }
        }
        (Value::Array(old_items), Value::Array(new_items))
            if old_items.len() == new_items.len() =>
        {
            for (index, (old, new)) in old_items.iter().zip(new_items).enumerate() {
                walk(&format!("{path}[{index}]"), old, new, lines);
            }
        }
        _ => {
            if !old.is_null() {
                lines.push(format!("- \t{path}: {old},"));
            }
            if !new.is_null() {
                lines.push(format!("+ \t{path}: {new},"));
            }
        }
    }
}
