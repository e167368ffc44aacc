//! Persistent volume claims, and the templates of claims in stateful sets and pods.

use serde_json::{Value, json};

use super::{CLASS_ANNOTATION, CLASS_DEPRECATED, VOLUME_MODES, access_modes, class_name, positive};
use crate::field::{ErrorList, FieldError, Path};
use crate::kinds::pod;
use crate::names;
use crate::object::{self, child, default_field, fields};
use crate::quantity::Quantity;
use crate::row::Strategy;
use crate::validation::{self, Cursor, label_selector, required};

const RESIZE_STATUSES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// What persistent volume claims do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct PersistentVolumeClaims;

/// Sets the defaults of a claim or of a template of claims.
pub(in crate::kinds) fn defaults(claim: &mut Value) {
    default_field(child(claim, "status"), "phase", "Pending");
    let spec = child(claim, "spec");
    default_field(spec, "volumeMode", "Filesystem");
    let resources = child(spec, "resources");
    pod::round_up(resources, "limits");
    pod::round_up(resources, "requests");
}

fn amount(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}

fn requested(spec: &Cursor<'_>) -> Option<Quantity> {
    amount(spec.child("resources").child("requests").raw("storage"))
}

/// Old clients know only `dataSource`: whatever it can't express goes, and the two fields say the
/// same.
fn data_sources(spec: &mut Value, old: Option<&Value>) {
    let set = |spec: &Value, name: &str| spec.get(name).is_some_and(Value::is_object);
    // Sources in other namespaces are behind a gate that is off.
    let elsewhere = !object::text(spec, &["dataSourceRef", "namespace"]).is_empty();
    if elsewhere && !old.is_some_and(|old| set(old, "dataSourceRef")) {
        fields(spec).remove("dataSourceRef");
    }
    let in_use = old.is_some_and(|old| set(old, "dataSource") || set(old, "dataSourceRef"));
    if !in_use && !set(spec, "dataSourceRef") && set(spec, "dataSource") {
        let known = matches!(
            (
                object::text(spec, &["dataSource", "kind"]),
                object::text(spec, &["dataSource", "apiGroup"])
            ),
            ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
        );
        if !known {
            fields(spec).remove("dataSource");
        }
    }
    let mut copy = |from: &str, to: &str| {
        if set(spec, from) && !set(spec, to) {
            let mut other = spec[from].clone();
            fields(&mut other).remove("namespace");
            fields(spec).insert(to.to_owned(), other);
        }
    };
    copy("dataSource", "dataSourceRef");
    if object::text(spec, &["dataSourceRef", "namespace"]).is_empty() {
        copy_ref(spec);
    }
}

fn copy_ref(spec: &mut Value) {
    let source = spec.get("dataSource").is_some_and(Value::is_object);
    if let Some(mut other) = spec.get("dataSourceRef").filter(|_| !source).cloned() {
        fields(&mut other).remove("namespace");
        fields(spec).insert("dataSource".to_owned(), other);
    }
}

impl Strategy for PersistentVolumeClaims {
    fn defaults(&self, object: &mut Value) {
        defaults(object);
        let status = child(object, "status");
        pod::round_up(status, "capacity");
        pod::round_up(status, "allocatedResources");
    }

    fn prepare_create(&self, object: &mut Value) {
        fields(object).insert("status".to_owned(), json!({"phase": "Pending"}));
        data_sources(child(object, "spec"), None);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
        data_sources(child(new, "spec"), old.get("spec"));
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        if object::at(old, &["status", "healthStatus"]).is_none() {
            fields(child(new, "status")).remove("healthStatus");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        validate_spec(&Cursor::root(object).child("spec"), &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        spec_change(new, old, &mut out);
        let (spec, before) = (
            Cursor::root(new).child("spec"),
            Cursor::root(old).child("spec"),
        );
        if let (Some(size), Some(old_size)) = (requested(&spec), requested(&before))
            && size < old_size
        {
            // Down to what there is: an expansion that failed can be taken back.
            let has = object::at(new, &["status", "capacity", "storage"]).and_then(amount);
            if size <= has.unwrap_or_default() {
                out.push(FieldError::forbidden(
                    &spec.child("resources").child("requests").at("storage"),
                    "field can not be less than status.capacity",
                ));
            }
        }
        validation::immutable(
            spec.raw("volumeMode"),
            before.raw("volumeMode"),
            &Path::new("volumeMode"),
            &mut out,
        );
        attributes_class(&spec, &before, old, &mut out);
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("status");
        for name in ["capacity", "allocatedResources"] {
            for (resource, value) in at.entries(name) {
                let Some(amount) = amount(value) else {
                    continue;
                };
                let path = at.at(name).key(resource);
                if name == "capacity" {
                    if amount.is_negative() {
                        out.push(FieldError::invalid(
                            &path,
                            amount.units(),
                            "must be a valid resource quantity",
                        ));
                    }
                } else if resource_key(resource, &at.at(name), &mut out) {
                    pod::validate_amount("storage", &amount, &path, &mut out);
                }
            }
        }
        let path = at.at("allocatedResourceStatuses");
        for (resource, status) in at.entries("allocatedResourceStatuses") {
            resource_key(resource, &path, &mut out);
            if !RESIZE_STATUSES.contains(&status.as_str().unwrap_or_default()) {
                out.push(FieldError::not_supported(
                    &path,
                    resource.as_str(),
                    &RESIZE_STATUSES,
                ));
            }
        }
        out
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let annotations = Cursor::root(new).child("metadata").child("annotations");
        if annotations.has(CLASS_ANNOTATION) {
            out.push(format!(
                "{}: {CLASS_DEPRECATED}",
                annotations.path.key(CLASS_ANNOTATION)
            ));
        }
        spec_warnings(&Cursor::root(new).child("spec"), &mut out);
        out
    }
}

/// Only storage is known among the plain names.
fn resource_key(name: &str, path: &Path, out: &mut ErrorList) -> bool {
    let wrong = names::qualified_name(name);
    for wrong in &wrong {
        out.push(FieldError::invalid(path, name, wrong));
    }
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if wrong.is_empty() && native && name != "storage" {
        out.push(FieldError::not_supported(path, name, &["storage"]));
        return false;
    }
    wrong.is_empty()
}

/// Warnings about amounts that are no whole bytes.
pub(in crate::kinds) fn spec_warnings(spec: &Cursor<'_>, out: &mut Vec<String>) {
    let resources = spec.child("resources");
    for list in ["requests", "limits"] {
        let at = resources.child(list);
        if let Some(found) = amount(at.raw("storage")).filter(|found| found.milli() % 1000 != 0) {
            out.push(format!(
                "{}: fractional byte value {:?} is invalid, must be an integer",
                at.path.key("storage"),
                found.to_string()
            ));
        }
    }
}

/// Checks the spec of a claim or of a template of claims.
pub(in crate::kinds) fn validate_spec(spec: &Cursor<'_>, out: &mut ErrorList) {
    if spec.list("accessModes").is_empty() {
        out.push(FieldError::required(
            &spec.at("accessModes"),
            "at least 1 access mode is required",
        ));
    }
    label_selector(&spec.child("selector"), out);
    if !spec.list("accessModes").is_empty() {
        access_modes(spec, "", out);
    }
    let path = spec.at("resources").key("storage");
    match requested(spec) {
        None => out.push(FieldError::required(&path, "")),
        Some(size) => {
            if positive(&size, &path, out) {
                pod::validate_amount("storage", &size, &path, out);
            }
        }
    }
    class_name(spec, "storageClassName", out);
    validation::one_of(spec, "volumeMode", &VOLUME_MODES, out);
    for name in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.get(name) {
            data_source(&source, out);
        }
    }
    both_sources(spec, out);
    class_name(spec, "volumeAttributesClassName", out);
}

fn data_source(at: &Cursor<'_>, out: &mut ErrorList) {
    required(at, "name", out);
    required(at, "kind", out);
    let group = at.text("apiGroup");
    if group.is_empty() {
        if at.text("kind") != "PersistentVolumeClaim" {
            out.push(FieldError::invalid(
                &at.path,
                at.text("kind"),
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ));
        }
    } else {
        validation::dns_subdomain(group, &at.at("apiGroup"), out);
    }
    if !at.text("namespace").is_empty() {
        validation::dns_label(at.text("namespace"), &at.at("namespace"), out);
    }
}

fn both_sources(spec: &Cursor<'_>, out: &mut ErrorList) {
    if !spec.has("dataSource") || !spec.has("dataSourceRef") {
        return;
    }
    let (old, new) = (spec.child("dataSource"), spec.child("dataSourceRef"));
    let mut wrong = |detail: &str| {
        // The reference shows the path as the value.
        out.push(FieldError::invalid_shown(&spec.path, "{}", detail));
    };
    if !new.text("namespace").is_empty() {
        wrong("may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|name| old.raw(name) != new.raw(name))
    {
        wrong("must match dataSourceRef");
    }
}

/// A claim's spec never changes, but for its size and attributes once it is bound, its volume
/// once, and a class where there was none.
fn spec_change(new: &Value, old: &Value, out: &mut ErrorList) {
    let class = |object: &Value| object::at(object, &["spec", "storageClassName"]).cloned();
    let noted = |object: &Value| object::annotation(object, CLASS_ANNOTATION).map(str::to_owned);
    let (mut now, mut before) = (
        new.get("spec").cloned().unwrap_or_default(),
        old.get("spec").cloned().unwrap_or_default(),
    );
    data_sources_like(&mut before);
    if object::text(&before, &["volumeName"]).is_empty() {
        let volume = now.get("volumeName").cloned();
        object::set_or_remove(fields(&mut before), "volumeName", volume);
    }
    let (class_new, class_old) = (class(new), class(old));
    let named = class_new.as_ref().and_then(Value::as_str);
    let upgraded = class_old.is_none()
        && noted(old).is_some_and(|noted_old| {
            named == Some(noted_old.as_str())
                && noted(new).is_none_or(|noted_new| noted_new == noted_old)
        });
    if upgraded {
        fields(&mut now).remove("storageClassName");
    } else {
        if noted(new).unwrap_or_default() != noted(old).unwrap_or_default() {
            out.push(FieldError::invalid(
                &Path::new("metadata")
                    .child("annotations")
                    .child(CLASS_ANNOTATION),
                noted(new).unwrap_or_default(),
                validation::IMMUTABLE,
            ));
        }
        let from_nothing = class_old.is_none()
            && named.is_some_and(|name| noted(old).is_none_or(|noted| noted == name));
        if from_nothing {
            fields(&mut now).remove("storageClassName");
        }
    }
    if object::text(new, &["status", "phase"]) == "Bound" {
        let size = object::at(&before, &["resources", "requests", "storage"]).cloned();
        let resources = child(&mut now, "resources");
        if resources.get("requests").is_some() {
            object::set_or_remove(fields(child(resources, "requests")), "storage", size);
        }
        let attributes = before.get("volumeAttributesClassName").cloned();
        object::set_or_remove(fields(&mut now), "volumeAttributesClassName", attributes);
    }
    if now != before {
        out.push(FieldError::forbidden(
            &Path::new("spec"),
            "spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for bound claims",
        ));
    }
}

/// Older objects are compared as if they were written today.
fn data_sources_like(spec: &mut Value) {
    let old = spec.clone();
    data_sources(spec, Some(&old));
}

fn attributes_class(spec: &Cursor<'_>, before: &Cursor<'_>, old: &Value, out: &mut ErrorList) {
    const NAME: &str = "volumeAttributesClassName";
    let applied = object::at(old, &["status", "currentVolumeAttributesClassName"]).is_some();
    if spec.raw(NAME) == before.raw(NAME) || !applied {
        return;
    }
    let told = if !spec.has(NAME) {
        "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil"
    } else if spec.text(NAME).is_empty() {
        "update to empty string is forbidden when status.currentVolumeAttributesClassName is not \
         nil"
    } else {
        return;
    };
    out.push(FieldError::forbidden(&spec.at(NAME), told));
}
