//! Claims of devices and templates of claims.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{at_most, configuration, distinct, selectors};
use crate::field::{ErrorList, FieldError};
use crate::kinds::pod;
use crate::kinds::storage::csi_driver;
use crate::object::{self, child, default_field, fields, list_mut};
use crate::row::Strategy;
use crate::validation::{self, Cursor, is_new, required};

const REQUESTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const CONSTRAINTS_MAX: usize = 32;
const CONFIG_MAX: usize = 32;
const RESERVED_MAX: usize = 256;
const RESULTS_MAX: usize = 32;
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

/// The names of requests, each with those of its alternatives.
type Requests<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn requests<'a>(devices: &Cursor<'a>) -> Requests<'a> {
    devices
        .items("requests")
        .map(|request| {
            let alternatives = request.items("firstAvailable").map(|at| at.text("name"));
            (request.text("name"), alternatives.collect())
        })
        .collect()
}

fn reference(name: &Cursor<'_>, known: &Requests<'_>, out: &mut ErrorList) {
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

fn references(at: &Cursor<'_>, known: &Requests<'_>, out: &mut ErrorList) {
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
    let given = ["matchAttribute", "distinctAttribute"]
        .into_iter()
        .find(|name| constraint.has(name));
    let Some(name) = given else {
        out.push(FieldError::required(
            &constraint.path,
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple \
             fields are set",
        ));
        return;
    };
    let (text, path) = (constraint.text(name), constraint.at(name));
    if text.is_empty() {
        out.push(FieldError::required(&path, ""));
    } else if !text.contains('/') {
        out.push(FieldError::invalid(&path, text, "must include a domain"));
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

fn toleration(at: &Cursor<'_>, out: &mut ErrorList) {
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
            if key.is_empty() {
                out.push(FieldError::required(
                    &at.at("key"),
                    "required for operator `Equal`",
                ));
            }
            let rule = crate::names::label_value;
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
        fields(object).insert("status".to_owned(), json!({}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::set_or_remove(fields(new), "status", old.get("status").cloned());
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
        validation::immutable(at.raw("spec"), before.raw("spec"), &at.at("spec"), &mut out);
        out
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        status(new, old, &mut out);
        out
    }
}

/// Devices that are not allocated any more lose their status.
fn drop_deallocated(new: &mut Value, old: &Value) {
    let allocated = |object: &Value| -> BTreeSet<[String; 3]> {
        object::list(object, &["status", "allocation", "devices", "results"])
            .iter()
            .map(|at| ["driver", "pool", "device"].map(|name| object::text(at, &[name]).to_owned()))
            .collect()
    };
    let gone: BTreeSet<[String; 3]> = allocated(old)
        .difference(&allocated(new))
        .cloned()
        .collect();
    if gone.is_empty() {
        return;
    }
    let status = fields(child(new, "status"));
    if let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) {
        devices.retain(|at| {
            let key = ["driver", "pool", "device"].map(|name| object::text(at, &[name]).to_owned());
            !gone.contains(&key)
        });
        if devices.is_empty() {
            status.remove("devices");
        }
    }
}

fn status(new: &Value, old: &Value, out: &mut ErrorList) {
    let (at, before) = (
        Cursor::root(new).child("status"),
        Cursor::root(old).child("status"),
    );
    at_most(&at, "reservedFor", RESERVED_MAX, out);
    for consumer in at.items("reservedFor") {
        for name in ["resource", "name", "uid"] {
            required(&consumer, name, out);
        }
    }
    distinct(at.items("reservedFor"), |at| at.text("uid").to_owned(), out);
    if !at.list("reservedFor").is_empty() {
        if !at.has("allocation") {
            out.push(FieldError::forbidden(
                &at.at("reservedFor"),
                "may not be specified when `allocated` is not set",
            ));
        } else if object::deletion_timestamp(new).is_some()
            && !at
                .list("reservedFor")
                .iter()
                .all(|consumer| before.list("reservedFor").contains(consumer))
        {
            out.push(FieldError::forbidden(
                &at.at("reservedFor"),
                "new entries may not be added while `deallocationRequested` or \
                 `deletionTimestamp` are set",
            ));
        }
    }
    match (at.get("allocation"), before.has("allocation")) {
        (Some(allocation), true) => validation::immutable(
            allocation.value,
            before.raw("allocation"),
            &allocation.path,
            out,
        ),
        (Some(allocation), false) => {
            let devices = Cursor::root(new).child("spec").child("devices");
            self::allocation(&allocation, &requests(&devices), out);
        }
        (None, _) => {}
    }
}

fn allocation(at: &Cursor<'_>, known: &Requests<'_>, out: &mut ErrorList) {
    let devices = at.child("devices");
    at_most(&devices, "results", RESULTS_MAX, out);
    for result in devices.items("results") {
        reference(&result.child("request"), known, out);
        csi_driver(result.text("driver"), &result.at("driver"), out);
        pool_name(&result, "pool", out);
        validation::dns_label(result.text("device"), &result.at("device"), out);
        for toleration in result.items("tolerations") {
            self::toleration(&toleration, out);
        }
    }
    at_most(&devices, "config", 2 * CONFIG_MAX, out);
    for config in devices.items("config") {
        validation::required_one_of(&config, "source", &["FromClaim", "FromClass"], out);
        references(&config, known, out);
        configuration(&config, out);
    }
    if let Some(selector) = at.get("nodeSelector") {
        pod::validate_node_selector(&selector, out);
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

impl Strategy for ResourceClaimTemplates {
    fn defaults(&self, object: &mut Value) {
        spec_defaults(child(child(object, "spec"), "spec"));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let template = Cursor::root(object).child("spec");
        let meta = template.child("metadata");
        validation::labels(meta.raw("labels"), &meta.at("labels"), &mut out);
        validation::annotations(meta.raw("annotations"), &meta.at("annotations"), &mut out);
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
