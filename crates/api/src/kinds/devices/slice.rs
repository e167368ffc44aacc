//! Slices: the devices that drivers have.

use serde_json::Value;

use super::capacity::{binding, capacity, consumed_counters, shared_counters};
use super::claim::pool_name;
use super::{at_most, distinct, drop_gated};
use crate::field::{ErrorList, FieldError};
use crate::kinds::pod;
use crate::kinds::storage::csi_driver;
use crate::row::Strategy;
use crate::validation::{self, Cursor};

const DEVICES_MAX: usize = 128;
/// Devices that are tainted or share counters take more to reckon with.
const ADVANCED_DEVICES_MAX: usize = 64;
const PROPERTIES_MAX: usize = 32;
const TAINTS_MAX: usize = 16;
const TEXT_MAX: usize = 64;
const DOMAIN_MAX: usize = 63;
const ID_MAX: usize = 32;
const WHERE: [&str; 4] = [
    "nodeName",
    "nodeSelector",
    "allNodes",
    "perDeviceNodeSelection",
];
const ONE_PLACE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
                         `perDeviceNodeSelection` is required";

/// What resource slices do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceSlices;

/// Takes off what belongs to gates that are closed, unless it was there before: lists as attributes,
/// what devices take of the node's own resources, groups of devices that go together, and node
/// operations that a driver does not need.
fn drop_closed(new: &mut Value, old: Option<&Value>) {
    const LISTS: [&str; 4] = ["ints", "bools", "strings", "versions"];
    let devices = |object: &Value| -> Vec<Value> {
        crate::object::list(object, &["spec", "devices"]).to_vec()
    };
    let before = old.map(devices).unwrap_or_default();
    let attributes = |device: &Value| -> Vec<Value> {
        let map = device.get("attributes").and_then(Value::as_object);
        map.into_iter()
            .flat_map(|map| map.values().cloned())
            .collect()
    };
    let has_lists = before.iter().flat_map(attributes).any(|value| {
        LISTS
            .iter()
            .any(|name| value.get(*name).is_some_and(|it| !it.is_null()))
    });
    let some = |value: &Value, name: &str| value.get(name).is_some_and(|it| !it.is_null());
    let has_node = before.iter().any(|it| some(it, "nodeAllocatableResources"));
    let groups = |device: &Value| -> bool {
        let sets = crate::object::list(device, &["consumesCounters"]);
        sets.iter().any(|set| some(set, "compatibilityGroups"))
    };
    let has_groups = before.iter().any(groups);
    let skips = old.and_then(|old| old.get("spec"));
    if !skips.is_some_and(|spec| some(spec, "skipNodeOperations"))
        && let Some(spec) = new.get_mut("spec")
    {
        drop_gated(spec, &["skipNodeOperations"]);
    }
    let now_there = new
        .pointer_mut("/spec/devices")
        .and_then(Value::as_array_mut);
    for device in now_there.into_iter().flatten() {
        if !has_node {
            drop_gated(device, &["nodeAllocatableResources"]);
        }
        if !has_groups {
            let sets = device
                .get_mut("consumesCounters")
                .and_then(Value::as_array_mut);
            for set in sets.into_iter().flatten() {
                drop_gated(set, &["compatibilityGroups"]);
            }
        }
        if !has_lists {
            let map = device.get_mut("attributes").and_then(Value::as_object_mut);
            for (_, value) in map.into_iter().flatten() {
                drop_gated(value, &LISTS);
            }
        }
    }
}

impl Strategy for ResourceSlices {
    fn prepare_create(&self, object: &mut Value) {
        drop_closed(object, None);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        drop_closed(new, Some(old));
    }

    fn prepare_at(&self, new: &mut Value, old: Option<&Value>, now: &str) {
        let devices = |object: &Value| -> Vec<Value> {
            crate::object::list(object, &["spec", "devices"]).to_vec()
        };
        let before = old.map(devices).unwrap_or_default();
        let now_there = new
            .pointer_mut("/spec/devices")
            .and_then(Value::as_array_mut);
        for device in now_there.into_iter().flatten() {
            let mut known = before
                .iter()
                .filter(|known| known["name"] == device["name"]);
            let known = known.next().cloned().unwrap_or_default();
            let taints = device.get_mut("taints").and_then(Value::as_array_mut);
            for taint in taints.into_iter().flatten() {
                let mut same = crate::object::list(&known, &["taints"])
                    .iter()
                    .filter(|it| it["key"] == taint["key"] && it["value"] == taint["value"]);
                super::taint_rule::since(taint, same.next(), now);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        slice(&Cursor::root(object).child("spec"), None, &mut out);
        out
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (spec, before) = (
            Cursor::root(new).child("spec"),
            Cursor::root(old).child("spec"),
        );
        slice(&spec, Some(&before), &mut out);
        let (pool, pool_before) = (spec.child("pool"), before.child("pool"));
        validation::immutable(
            pool.raw("name"),
            pool_before.raw("name"),
            &pool.at("name"),
            &mut out,
        );
        for name in ["driver", "nodeName"] {
            validation::immutable(spec.raw(name), before.raw(name), &spec.at(name), &mut out);
        }
        out
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let driver = crate::object::text(new, &["spec", "driver"]);
        if driver == driver.to_lowercase() {
            return Vec::new();
        }
        vec![format!(
            "spec.driver: driver names should be lowercase; {driver:?} contains uppercase \
             characters"
        )]
    }
}

/// Checks a slice. What a device had before is not looked at again, where the reference says so.
fn slice(spec: &Cursor<'_>, before: Option<&Cursor<'_>>, out: &mut ErrorList) {
    csi_driver(spec.text("driver"), &spec.at("driver"), out);
    pool(&spec.child("pool"), out);
    place(spec, out);
    if spec.has("sharedCounters") && spec.has("devices") {
        out.push(FieldError::invalid(
            &spec.path,
            "",
            "only one of `sharedCounters` or `devices` is allowed",
        ));
    }
    let advanced = spec.items("devices").any(|device| {
        !device.list("taints").is_empty() || !device.list("consumesCounters").is_empty()
    });
    let most = if advanced {
        ADVANCED_DEVICES_MAX
    } else {
        DEVICES_MAX
    };
    at_most(spec, "devices", most, out);
    let per_device = spec.is_true("perDeviceNodeSelection");
    for device in spec.items("devices") {
        let known = before.and_then(|before| {
            before
                .items("devices")
                .find(|known| known.text("name") == device.text("name"))
        });
        self::device(&device, known.as_ref(), per_device, out);
    }
    let name = |at: &Cursor<'_>| at.text("name").to_owned();
    distinct(spec.items("devices"), name, out);
    shared_counters(spec, out);
}

fn pool(at: &Cursor<'_>, out: &mut ErrorList) {
    pool_name(at, "name", out);
    let slices = at.number("resourceSliceCount");
    if slices <= 0 {
        out.push(FieldError::invalid(
            &at.at("resourceSliceCount"),
            slices,
            "must be greater than zero",
        ));
    }
    let generation = at.number("generation");
    if generation < 0 {
        out.push(FieldError::invalid(
            &at.at("generation"),
            generation,
            "must be greater than or equal to zero",
        ));
    }
}

/// Checks where the devices are: exactly one way says it.
fn place(spec: &Cursor<'_>, out: &mut ErrorList) {
    if spec.has("nodeName") {
        let name = spec.text("nodeName");
        if name.is_empty() {
            out.push(FieldError::invalid(
                &spec.at("nodeName"),
                name,
                "must be either unset or set to a non-empty string",
            ));
        } else {
            validation::dns_subdomain(name, &spec.at("nodeName"), out);
        }
    }
    if let Some(selector) = spec.get("nodeSelector") {
        pod::validate_node_selector(&selector, out);
        if selector.list("nodeSelectorTerms").len() != 1 {
            out.push(FieldError::invalid(
                &selector.at("nodeSelectorTerms"),
                selector.raw("nodeSelectorTerms").clone(),
                "must have exactly one node selector term",
            ));
        }
    }
    for name in ["allNodes", "perDeviceNodeSelection"] {
        if spec.flag(name) == Some(false) {
            out.push(FieldError::invalid(
                &spec.at(name),
                false,
                "must be either unset or set to true",
            ));
        }
    }
    let set: Vec<String> = WHERE
        .iter()
        .filter(|name| match spec.raw(name) {
            Value::String(text) => !text.is_empty(),
            Value::Bool(set) => *set,
            other => !other.is_null(),
        })
        .map(|name| format!("`{name}`"))
        .collect();
    match set.len() {
        0 => out.push(FieldError::required(&spec.path, ONE_PLACE)),
        1 => {}
        _ => out.push(FieldError::invalid(
            &spec.path,
            format!("{{{}}}", set.join(", ")),
            &format!("{ONE_PLACE}, but multiple fields are set"),
        )),
    }
}

fn device(at: &Cursor<'_>, before: Option<&Cursor<'_>>, per_device: bool, out: &mut ErrorList) {
    let changed = |name: &str| before.is_none_or(|before| before.raw(name) != at.raw(name));
    validation::dns_label(at.text("name"), &at.at("name"), out);
    let count = at.entries("attributes").count() + at.entries("capacity").count();
    if count > PROPERTIES_MAX {
        out.push(FieldError::invalid(
            &at.path,
            count,
            &format!(
                "the total number of attributes and capacities must not exceed {PROPERTIES_MAX}"
            ),
        ));
    }
    for list in ["attributes", "capacity"] {
        if list == "capacity" && !changed(list) {
            continue;
        }
        for (name, value) in at.entries(list) {
            let path = at.at(list).key(name);
            qualified(name, &path, out);
            let value = Cursor::new(value, path);
            if list == "attributes" {
                attribute(&value, out);
            } else {
                capacity(&value, at.is_true("allowMultipleAllocations"), out);
            }
        }
    }
    if changed("taints") {
        at_most(at, "taints", TAINTS_MAX, out);
        for taint in at.items("taints") {
            super::taint(&taint, out);
        }
    }
    consumed_counters(at, out);
    device_place(at, per_device, out);
    binding(at, out);
}

/// Checks where a device is, which it says itself if its slice leaves that to the devices.
fn device_place(at: &Cursor<'_>, per_device: bool, out: &mut ErrorList) {
    let given: Vec<&str> = ["nodeName", "nodeSelector", "allNodes"]
        .into_iter()
        .filter(|name| at.has(name))
        .collect();
    if !per_device {
        if !given.is_empty() {
            out.push(FieldError::invalid(
                &at.path,
                Value::Null,
                "`nodeName`, `nodeSelector` and `allNodes` can only be set if \
                 `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
            ));
        }
        return;
    }
    let mut set = Vec::new();
    for name in given {
        match name {
            "nodeName" if at.text(name).is_empty() => {
                out.push(FieldError::invalid(&at.at(name), "", "must not be empty"));
                continue;
            }
            "nodeName" => validation::dns_subdomain(at.text(name), &at.at(name), out),
            "nodeSelector" => pod::validate_node_selector(&at.child(name), out),
            _ if !at.is_true(name) => {
                let text = "must be either unset or set to true";
                out.push(FieldError::invalid(&at.at(name), false, text));
                continue;
            }
            _ => {}
        }
        set.push(format!("`{name}`"));
    }
    let text = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match set.len() {
        0 => out.push(FieldError::required(&at.path, text)),
        1 => {}
        _ => {
            let set = format!("{{{}}}", set.join(", "));
            out.push(FieldError::invalid(&at.path, set, text));
        }
    }
}

/// Checks an attribute: one value, of one type.
fn attribute(at: &Cursor<'_>, out: &mut ErrorList) {
    const TYPES: [&str; 8] = [
        "int", "bool", "string", "version", "ints", "bools", "strings", "versions",
    ];
    let version = at.text("version");
    if at.has("version") && !is_version(version) {
        out.push(FieldError::invalid(
            &at.at("version"),
            version,
            "must be a string compatible with semver.org spec 2.0.0",
        ));
    }
    let set: Vec<&str> = TYPES.into_iter().filter(|name| at.has(name)).collect();
    let all = TYPES.map(|name| format!("`{name}`")).join(", ");
    match set.len() {
        0 => out.push(FieldError::invalid(
            &at.path,
            "",
            &format!("must specify one of: {all}"),
        )),
        1 => {}
        _ => out.push(FieldError::invalid(
            &at.path,
            format!("{{{}}}", set.join(", ")),
            &format!("must specify exactly one of: {all}"),
        )),
    }
    for name in ["string", "version"] {
        if at.text(name).len() > TEXT_MAX {
            out.push(FieldError::too_long(&at.at(name), TEXT_MAX));
        }
    }
}

/// Is this a semantic version (semver.org 2.0.0)?
fn is_version(text: &str) -> bool {
    let (rest, build) = match text.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (text, None),
    };
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (rest, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let word = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !part.is_empty() && part.bytes().all(allowed)
    };
    let plain = |part: &str| part == "0" || !part.starts_with('0');
    core.split('.').count() == 3
        && core
            .split('.')
            .all(|part| word(part) && digits(part) && plain(part))
        && pre.is_none_or(|pre| {
            pre.split('.')
                .all(|part| word(part) && (!digits(part) || plain(part)))
        })
        && build.is_none_or(|build| build.split('.').all(word))
}

/// Checks a name that may have a domain.
fn qualified(name: &str, path: &crate::field::Path, out: &mut ErrorList) {
    let (domain, id) = match name.split_once('/') {
        Some((domain, id)) => (Some(domain), id),
        None => (None, name),
    };
    if let Some(domain) = domain {
        if domain.is_empty() {
            out.push(FieldError::required(path, "the domain must not be empty"));
        } else {
            if domain.len() > DOMAIN_MAX {
                out.push(FieldError::too_long(path, DOMAIN_MAX));
            }
            validation::dns_subdomain(domain, path, out);
        }
    }
    if id.is_empty() {
        out.push(FieldError::required(path, "the name must not be empty"));
    } else {
        identifier(id, path, out);
    }
}

/// Checks the name of an attribute without its domain: an identifier of C.
pub(super) fn identifier(id: &str, path: &crate::field::Path, out: &mut ErrorList) {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let good = id.starts_with(letter) && id.chars().all(|c| letter(c) || c.is_ascii_digit());
    if id.len() > ID_MAX {
        out.push(FieldError::too_long(path, ID_MAX));
    }
    if !good {
        out.push(FieldError::invalid(
            path,
            id,
            "a valid C identifier must start with alphabetic character or '_', followed by a \
             string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or \
             'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn versions_are_those_of_semver() {
        for good in [
            "1.2.3",
            "0.0.0",
            "1.2.3-a+b",
            "1.2.3-0a",
            "1.2.3+01",
            "1.2.3--",
        ] {
            assert!(is_version(good), "{good}");
        }
        for bad in [
            "", "x", "1.2", "01.2.3", "1.2.3-01", "v1.2.3", "1.2.3-", "1.2.3+", "1.2.3.4",
        ] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
