//! Metadata of every kind, and its changes.

use serde_json::Value;

use super::{Cursor, IMMUTABLE, annotations, labels};
use crate::field::{ErrorList, FieldError, Path, quoted};
use crate::names::{self, NameRule};
use crate::row::ResourceDef;

/// Finalizers without a domain that are known.
const PLAIN_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
const FIELD_MANAGER_MAX: usize = 128;
const SUBRESOURCE_MAX: usize = 256;

/// What is wrong with the metadata of a new object, whose name has been generated already.
#[must_use]
pub fn validate_metadata(row: &ResourceDef, object: &Value) -> ErrorList {
    by_rule(row, row.name_rule, object)
}

/// Checks metadata, the name by a rule.
fn by_rule(row: &ResourceDef, rule: NameRule, object: &Value) -> ErrorList {
    let mut out = ErrorList::new();
    let meta = Cursor::root(object).child("metadata");
    let generate = meta.text("generateName");
    if !generate.is_empty() {
        let sample = masked_prefix(generate);
        for wrong in rule(&sample) {
            out.push(FieldError::invalid(
                &meta.at("generateName"),
                generate,
                &wrong,
            ));
        }
    }
    let name = meta.text("name");
    if name.is_empty() {
        out.push(FieldError::required(
            &meta.at("name"),
            "name or generateName is required",
        ));
    } else {
        super::named(rule, name, &meta.at("name"), &mut out);
    }
    let namespace = meta.text("namespace");
    if row.namespaced() {
        if namespace.is_empty() {
            out.push(FieldError::required(&meta.at("namespace"), ""));
        } else {
            super::dns_label(namespace, &meta.at("namespace"), &mut out);
        }
    } else if !namespace.is_empty() {
        out.push(FieldError::forbidden(
            &meta.at("namespace"),
            "not allowed on this type",
        ));
    }
    super::nonnegative(&meta, "generation", &mut out);
    labels(meta.raw("labels"), &meta.at("labels"), &mut out);
    annotations(meta.raw("annotations"), &meta.at("annotations"), &mut out);
    owner_references(&meta, &mut out);
    finalizers(&meta, &mut out);
    managed_fields(&meta, &mut out);
    known_finalizers(row, &meta, &mut out);
    out
}

/// What is wrong with changed metadata: with what it is now and with what changed. Of all kinds
/// names must be segments of a path; some are held to their own rule again.
#[must_use]
pub fn validate_metadata_update(row: &ResourceDef, new: &Value, old: &Value) -> ErrorList {
    let rule = if row.rechecked {
        row.name_rule
    } else {
        names::path_segment
    };
    let mut out = by_rule(row, rule, new);
    let meta = Cursor::root(new).child("metadata");
    let before = Cursor::root(old).child("metadata");
    if before.has("deletionTimestamp") {
        no_new_finalizers(&meta, &before, &mut out);
    }
    if meta.text("resourceVersion").is_empty() {
        out.push(FieldError::invalid(
            &meta.at("resourceVersion"),
            "",
            "must be specified for an update",
        ));
    }
    if meta.number("generation") < before.number("generation") {
        out.push(FieldError::invalid(
            &meta.at("generation"),
            meta.number("generation"),
            "must not be decremented",
        ));
    }
    for name in ["name", "namespace", "uid"] {
        if meta.text(name) != before.text(name) {
            out.push(FieldError::invalid(
                &meta.at(name),
                meta.text(name),
                IMMUTABLE,
            ));
        }
    }
    for name in [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        super::immutable(meta.raw(name), before.raw(name), &meta.at(name), &mut out);
    }
    out
}

/// A prefix that ends in a dash gets something after it; the rule sees a name without the dash.
#[must_use]
pub fn masked_prefix(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut kept = rest.to_owned();
            kept.pop();
            kept.push('a');
            kept
        }
        _ => prefix.to_owned(),
    }
}

fn owner_references(meta: &Cursor<'_>, out: &mut ErrorList) {
    let mut controller: Option<String> = None;
    for owner in meta.items("ownerReferences") {
        owner_reference(&owner, out);
        if !owner.is_true("controller") {
            continue;
        }
        let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
        match &controller {
            Some(first) => out.push(FieldError::invalid(
                &meta.at("ownerReferences"),
                meta.raw("ownerReferences").clone(),
                &format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {first} and {this}"
                ),
            )),
            None => controller = Some(this),
        }
    }
}

fn owner_reference(owner: &Cursor<'_>, out: &mut ErrorList) {
    let api_version = owner.text("apiVersion");
    let parts: Vec<&str> = api_version.split('/').collect();
    if api_version.is_empty() {
        out.push(FieldError::required(
            &owner.at("apiVersion"),
            "must not be empty",
        ));
    } else if parts.len() > 2 || parts.last().is_some_and(|version| version.is_empty()) {
        out.push(FieldError::invalid(
            &owner.at("apiVersion"),
            api_version,
            "must be <group>/<version> or <version>",
        ));
    }
    for name in ["kind", "name", "uid"] {
        if owner.text(name).is_empty() {
            out.push(FieldError::required(&owner.at(name), "must not be empty"));
        }
    }
    if api_version == "v1" && owner.text("kind") == "Event" {
        out.push(FieldError::invalid(
            &owner.path,
            owner.value.clone(),
            "/v1, Kind=Event is disallowed from being an owner",
        ));
    }
}

fn finalizers(meta: &Cursor<'_>, out: &mut ErrorList) {
    let path = meta.at("finalizers");
    for name in meta.texts("finalizers") {
        super::qualified_name(name, &path, out);
    }
    let set = |wanted: &str| meta.texts("finalizers").any(|name| name == wanted);
    if set("orphan") && set("foregroundDeletion") {
        out.push(FieldError::invalid(
            &path,
            meta.raw("finalizers").clone(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
}

/// Most kinds refuse finalizers that are neither known nor qualified.
fn known_finalizers(row: &ResourceDef, meta: &Cursor<'_>, out: &mut ErrorList) {
    if row.plain_finalizers {
        return;
    }
    for finalizer in meta.items("finalizers") {
        plain_finalizer(
            finalizer.value.as_str().unwrap_or_default(),
            &finalizer.path,
            out,
        );
    }
}

/// Refuses a finalizer that is neither known nor qualified.
pub(crate) fn plain_finalizer(name: &str, path: &Path, out: &mut ErrorList) {
    if !name.contains('/') && !PLAIN_FINALIZERS.contains(&name) {
        out.push(FieldError::invalid(
            path,
            name,
            "name is neither a standard finalizer name nor is it fully qualified",
        ));
    }
}

fn no_new_finalizers(meta: &Cursor<'_>, before: &Cursor<'_>, out: &mut ErrorList) {
    let mut added: Vec<&str> = meta
        .texts("finalizers")
        .filter(|name| !before.texts("finalizers").any(|old| old == *name))
        .collect();
    if added.is_empty() {
        return;
    }
    added.sort_unstable();
    added.dedup();
    let listed: Vec<String> = added.into_iter().map(quoted).collect();
    out.push(FieldError::forbidden(
        &meta.at("finalizers"),
        &format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers \
             []string{{{}}}",
            listed.join(", ")
        ),
    ));
}

fn managed_fields(meta: &Cursor<'_>, out: &mut ErrorList) {
    for entry in meta.items("managedFields") {
        match entry.text("operation") {
            "" => out.push(FieldError::required(
                &entry.at("operation"),
                "must not be empty",
            )),
            "Apply" | "Update" => {}
            other => out.push(FieldError::not_supported(
                &entry.at("operation"),
                other,
                &["Apply", "Update"],
            )),
        }
        if !matches!(entry.text("fieldsType"), "" | "FieldsV1") {
            out.push(FieldError::invalid(
                &entry.at("fieldsType"),
                entry.text("fieldsType"),
                "must be `FieldsV1`",
            ));
        }
        let manager = entry.text("manager");
        if manager.len() > FIELD_MANAGER_MAX {
            out.push(FieldError::too_long(
                &entry.at("manager"),
                FIELD_MANAGER_MAX,
            ));
        }
        for (index, c) in manager.chars().enumerate() {
            if c.is_control() {
                out.push(FieldError::invalid(
                    &entry.at("manager"),
                    manager,
                    &format!("invalid character {c:?} (at position {index})"),
                ));
            }
        }
        if entry.text("subresource").len() > SUBRESOURCE_MAX {
            out.push(FieldError::too_long(
                &entry.at("subresource"),
                SUBRESOURCE_MAX,
            ));
        }
    }
}
