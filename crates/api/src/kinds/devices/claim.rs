//! Claims of devices and templates of claims.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::slice::identifier;
use super::status::{drop_deallocated, status};
use super::{at_most, configuration, distinct, drop_gated, selectors};
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::object::{self, child, default_field, fields, list_mut};
use crate::row::Strategy;
use crate::validation::{self, Cursor, is_new};

const REQUESTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const CONSTRAINTS_MAX: usize = 32;
pub(super) const CONFIG_MAX: usize = 32;
const POOL_NAME_MAX: usize = 253;
const REFERENCE: &str = "must be the name of a request in the claim or the name of a request and \
                         a subrequest separated by '/'";

/// What resource claims do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceClaims;

/// What templates of resource claims do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceClaimTemplates;

fn request_defaults(request: &mut Value) {
    default_field(request, "allocationMode", "ExactCount");
    let counted = object::text(request, &["allocationMode"]) == "ExactCount";
    if counted && object::integer(request, &["count"]).unwrap_or(0) == 0 {
        fields(request).insert("count".to_owned(), 1.into());
    }
    for toleration in list_mut(request, "tolerations") {
        if object::text(toleration, &["operator"]).is_empty() {
            fields(toleration).insert("operator".to_owned(), "Equal".into());
        }
    }
}

fn spec_defaults(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else {
        return;
    };
    for request in list_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|at| at.is_object()) {
            request_defaults(exactly);
        }
        list_mut(request, "firstAvailable").for_each(request_defaults);
    }
}

/// Takes off what belongs to gates that are closed (`DRADerivedAttributes`).
fn drop_closed(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else {
        return;
    };
    for request in list_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly") {
            drop_gated(exactly, &["derivedAttributes"]);
        }
        for part in list_mut(request, "firstAvailable") {
            drop_gated(part, &["derivedAttributes"]);
        }
    }
}

/// The names of requests, each with those of its alternatives.
pub(super) type Requests<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

pub(super) fn requests<'a>(devices: &Cursor<'a>) -> Requests<'a> {
    devices
        .items("requests")
        .map(|request| {
            let alternatives = request.items("firstAvailable").map(|at| at.text("name"));
            (request.text("name"), alternatives.collect())
        })
        .collect()
}

pub(super) fn reference(name: &Cursor<'_>, known: &Requests<'_>, out: &mut ErrorList) {
    let text = name.value.as_str().unwrap_or_default();
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() <= 2 {
        for part in &parts {
            validation::dns_label(part, &name.path, out);
        }
    }
    let found = match parts[..] {
        [request] => known.contains_key(request),
        [request, part] => known.get(request).is_some_and(|parts| parts.contains(part)),
        _ => false,
    };
    if !found {
        out.push(FieldError::invalid(&name.path, text, REFERENCE));
    }
}

pub(super) fn references(at: &Cursor<'_>, known: &Requests<'_>, out: &mut ErrorList) {
    at_most(at, "requests", REQUESTS_MAX, out);
    at.items("requests")
        .for_each(|name| reference(&name, known, out));
    let text = |item: &Cursor<'_>| item.value.as_str().unwrap_or_default().to_owned();
    distinct(at.items("requests"), text, out);
}

fn device_claim(devices: &Cursor<'_>, out: &mut ErrorList) {
    let known = requests(devices);
    at_most(devices, "requests", REQUESTS_MAX, out);
    for at in devices.items("requests") {
        request(&at, out);
    }
    distinct(
        devices.items("requests"),
        |at| at.text("name").to_owned(),
        out,
    );
    at_most(devices, "constraints", CONSTRAINTS_MAX, out);
    for constraint in devices.items("constraints") {
        references(&constraint, &known, out);
        attribute(&constraint, out);
    }
    at_most(devices, "config", CONFIG_MAX, out);
    for config in devices.items("config") {
        references(&config, &known, out);
        configuration(&config, out);
    }
}

fn attribute(constraint: &Cursor<'_>, out: &mut ErrorList) {
    let names = ["matchAttribute", "distinctAttribute"];
    let mut given = names.into_iter().filter(|name| constraint.has(name));
    let Some(first) = given.next() else {
        out.push(FieldError::required(
            &constraint.path,
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple \
             fields are set",
        ));
        return;
    };
    for name in std::iter::once(first).chain(given) {
        attribute_name(constraint.text(name), &constraint.at(name), out);
    }
}

/// Checks the full name of an attribute. One of more than two parts is not looked at, as in the
/// reference.
fn attribute_name(name: &str, path: &Path, out: &mut ErrorList) {
    let (domain, id) = match *name.split('/').collect::<Vec<_>>() {
        [id] => (None, id),
        [domain, id] => (Some(domain), id),
        _ => return,
    };
    match domain {
        Some("") => out.push(FieldError::invalid(path, "", "prefix must not be empty")),
        Some(domain) => {
            for wrong in names::dns1123_subdomain(domain) {
                let wrong = format!("prefix: {wrong}");
                out.push(FieldError::invalid(path, domain, &wrong));
            }
        }
        None => {}
    }
    match id {
        "" if domain.is_some() => {
            out.push(FieldError::invalid(path, "", "name must not be empty"));
        }
        _ => identifier(id, path, out),
    }
    if domain.is_none() {
        out.push(FieldError::invalid(
            path,
            name,
            "a fully qualified name must be a domain and a name separated by a slash",
        ));
    }
}

fn request(at: &Cursor<'_>, out: &mut ErrorList) {
    validation::dns_label(at.text("name"), &at.at("name"), out);
    let alternatives = at.list("firstAvailable").len();
    match (at.get("exactly"), alternatives > 0) {
        (None, false) => out.push(FieldError::required(
            &at.path,
            "exactly one of `exactly` or `firstAvailable` is required",
        )),
        (Some(_), true) => out.push(FieldError::invalid(
            &at.path,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        )),
        (Some(exactly), false) => device_request(&exactly, out),
        (None, true) => {
            at_most(at, "firstAvailable", ALTERNATIVES_MAX, out);
            for part in at.items("firstAvailable") {
                validation::dns_label(part.text("name"), &part.at("name"), out);
                device_request(&part, out);
            }
            let name = |part: &Cursor<'_>| part.text("name").to_owned();
            distinct(at.items("firstAvailable"), name, out);
        }
    }
}

fn device_request(at: &Cursor<'_>, out: &mut ErrorList) {
    let class = at.text("deviceClassName");
    if class.is_empty() {
        out.push(FieldError::required(&at.at("deviceClassName"), ""));
    } else {
        validation::dns_subdomain(class, &at.at("deviceClassName"), out);
    }
    selectors(at, out);
    let count = at.number("count");
    match at.text("allocationMode") {
        "All" if count != 0 => out.push(FieldError::invalid(
            &at.at("count"),
            count,
            "must not be specified when allocationMode is 'All'",
        )),
        "ExactCount" if count <= 0 => out.push(FieldError::invalid(
            &at.at("count"),
            count,
            "must be greater than zero",
        )),
        "All" | "ExactCount" => {}
        other => out.push(FieldError::not_supported(
            &at.at("allocationMode"),
            other,
            &["All", "ExactCount"],
        )),
    }
    for toleration in at.items("tolerations") {
        self::toleration(&toleration, out);
    }
}

pub(super) fn toleration(at: &Cursor<'_>, out: &mut ErrorList) {
    let key = at.text("key");
    if !key.is_empty() {
        validation::label_name(key, &at.at("key"), out);
    }
    match at.text("operator") {
        "Exists" => {
            if !at.text("value").is_empty() {
                out.push(FieldError::invalid(
                    &at.at("value"),
                    at.text("value"),
                    "must be empty for operator `Exists`",
                ));
            }
        }
        "Equal" => {
            let rule = names::label_value;
            validation::named(rule, at.text("value"), &at.at("value"), out);
        }
        "" => out.push(FieldError::required(&at.at("operator"), "")),
        other => out.push(FieldError::not_supported(
            &at.at("operator"),
            other,
            &["Equal", "Exists"],
        )),
    }
    if !matches!(at.text("effect"), "" | "None" | "NoSchedule" | "NoExecute") {
        out.push(FieldError::not_supported(
            &at.at("effect"),
            at.text("effect"),
            &["NoExecute", "NoSchedule", "None"],
        ));
    }
}

impl Strategy for ResourceClaims {
    fn defaults(&self, object: &mut Value) {
        spec_defaults(child(object, "spec"));
    }

    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
        drop_closed(child(object, "spec"));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
        drop_closed(child(new, "spec"));
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object::keep_metadata_of_status(new, old);
        drop_deallocated(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        // The spec never changes, and is looked at when the claim is made only.
        if is_new(object) {
            device_claim(
                &Cursor::root(object).child("spec").child("devices"),
                &mut out,
            );
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        validation::declared_immutable(
            at.raw("spec"),
            before.raw("spec"),
            &at.at("spec"),
            &mut out,
        );
        out
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        status(new, old, &mut out);
        out
    }
}

/// Checks the name of a pool: subdomains, separated by slashes.
pub(super) fn pool_name(at: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    let (text, path) = (at.text(name), at.at(name));
    if text.is_empty() {
        out.push(FieldError::required(&path, ""));
        return;
    }
    if text.len() > POOL_NAME_MAX {
        out.push(FieldError::too_long(&path, POOL_NAME_MAX));
    }
    for part in text.split('/') {
        validation::dns_subdomain(part, &path, out);
    }
}

/// Refuses metadata that a claim gets when it is made.
fn decided_later(meta: &Cursor<'_>, out: &mut ErrorList) {
    const NAMES: [(&str, &str); 13] = [
        ("name", "name"),
        ("generateName", "generateName"),
        ("namespace", "namespace"),
        ("selfLink", "selfLink"),
        // The reference makes the path from Go's name of the field.
        ("uid", "uID"),
        ("resourceVersion", "resourceVersion"),
        ("generation", "generation"),
        ("creationTimestamp", "creationTimestamp"),
        ("deletionTimestamp", "deletionTimestamp"),
        ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
        ("ownerReferences", "ownerReferences"),
        ("finalizers", "finalizers"),
        ("managedFields", "managedFields"),
    ];
    for (name, shown) in NAMES {
        let set = match meta.raw(name) {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Number(number) => name != "generation" || number.as_i64() != Some(0),
            _ => true,
        };
        if set {
            out.push(FieldError::forbidden(&meta.at(shown), "cannot be set"));
        }
    }
}

impl Strategy for ResourceClaimTemplates {
    fn defaults(&self, object: &mut Value) {
        spec_defaults(child(child(object, "spec"), "spec"));
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_closed(child(child(object, "spec"), "spec"));
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        drop_closed(child(child(new, "spec"), "spec"));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let template = Cursor::root(object).child("spec");
        let meta = template.child("metadata");
        validation::annotations(meta.raw("annotations"), &meta.at("annotations"), &mut out);
        validation::labels(meta.raw("labels"), &meta.at("labels"), &mut out);
        decided_later(&meta, &mut out);
        device_claim(&template.child("spec").child("devices"), &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        validation::immutable(at.raw("spec"), before.raw("spec"), &at.at("spec"), &mut out);
        out
    }
}
