//! Workloads and pod groups: which pods are placed together or not at all
//! (`scheduling.k8s.io/v1beta1`, KEP-4671), as `pkg/apis/scheduling` of the reference.
//!
//! They are behind the reference's feature gate `GenericWorkload`, which is off by default there as
//! here. What further gates of 1.37 would add to them (composite groups, topology constraints,
//! claims of groups, a preemption policy of their own) is taken off at the door, as there.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError};
use crate::names::{self, NameRule};
use crate::object::{self, default_field};
use crate::row::Strategy;
use crate::validation::{Cursor, IMMUTABLE, conditions, named};

/// The gate that opens these kinds and `spec.schedulingGroup` of pods.
pub const GENERIC_WORKLOAD: &str = "GenericWorkload";

const TEMPLATES_MAX: usize = 8;
const HIGHEST_PRIORITY: i64 = 1_000_000_000;

/// What workloads do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Workloads;

/// What pod groups do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodGroups;

/// Takes off what belongs to gates that are closed, unless it was there before.
fn drop_gated(spec: &mut Value, old: Option<&Value>, names: &[&str]) {
    let Value::Object(spec) = spec else {
        return;
    };
    for name in names {
        match old.and_then(|old| old.get(name)) {
            None => {
                spec.remove(*name);
            }
            // As the object shows that there is nothing.
            Some(Value::Null) => {
                spec.insert((*name).to_owned(), Value::Null);
            }
            Some(_) => {}
        }
    }
}

const OF_TEMPLATES: [&str; 3] = [
    "schedulingConstraints",
    "resourceClaims",
    "preemptionPolicy",
];
const OF_GROUPS: [&str; 4] = [
    "schedulingConstraints",
    "resourceClaims",
    "preemptionPolicy",
    "parentCompositePodGroupName",
];

impl Workloads {
    fn drop_gated(object: &mut Value, old: Option<&Value>) {
        let old = old.and_then(|old| old.get("spec"));
        let Some(spec) = object.get_mut("spec") else {
            return;
        };
        drop_gated(spec, old, &["compositePodGroupTemplates"]);
        let Some(Value::Array(templates)) = spec.get_mut("podGroupTemplates") else {
            return;
        };
        for (index, template) in templates.iter_mut().enumerate() {
            let old = old.and_then(|old| old.get("podGroupTemplates")?.get(index));
            drop_gated(template, old, &OF_TEMPLATES);
        }
    }
}

/// A text that must be there and follow a rule.
fn required_name(at: &Cursor<'_>, name: &str, rule: NameRule, out: &mut ErrorList) {
    match at.text(name) {
        "" => out.push(FieldError::required(&at.at(name), "")),
        text => named(rule, text, &at.at(name), out),
    }
}

fn optional_name(at: &Cursor<'_>, name: &str, rule: NameRule, out: &mut ErrorList) {
    if !at.text(name).is_empty() {
        named(rule, at.text(name), &at.at(name), out);
    }
}

/// Exactly one of two fields. A membership that has not changed is not looked at again.
fn one_member(at: &Cursor<'_>, old: Option<&Value>, names: [&str; 2], out: &mut ErrorList) {
    let set = |value: &Value| names.map(|name| value.get(name).is_some_and(|it| !it.is_null()));
    let now = set(at.value);
    if old.is_some_and(|old| !old.is_null() && set(old) == now) {
        return;
    }
    let all = format!("`{}`, `{}`", names[0], names[1]);
    match now {
        [false, false] => out.push(FieldError::invalid(
            &at.path,
            "",
            &format!("must specify one of: {all}"),
        )),
        [true, true] => out.push(FieldError::invalid(
            &at.path,
            format!("{{{}, {}}}", names[0], names[1]),
            &format!("must specify exactly one of: {all}"),
        )),
        _ => {}
    }
}

/// How many pods of a group have to be placed at once, if it is a gang.
fn policy(at: &Cursor<'_>, old: Option<&Value>, out: &mut ErrorList) {
    one_member(at, old, ["basic", "gang"], out);
    if let Some(old) = old.filter(|old| !old.is_null()) {
        let there = |value: &Value, name: &str| value.get(name).is_some_and(|it| !it.is_null());
        unchanged(at, old, "basic", out);
        match (there(old, "gang"), there(at.value, "gang")) {
            (false, true) => out.push(null_invalid(at, "gang", "field cannot be set once created")),
            (true, false) => {
                out.push(null_invalid(at, "gang", "field cannot be cleared once set"));
            }
            _ => {}
        }
    }
    if let Some(gang) = at.get("gang") {
        match gang.integer("minCount").unwrap_or_default() {
            0 => out.push(FieldError::required(&gang.at("minCount"), "")),
            count if count < 1 => out.push(FieldError::invalid(
                &gang.at("minCount"),
                count,
                "must be greater than or equal to 1",
            )),
            _ => {}
        }
    }
}

fn null_invalid(at: &Cursor<'_>, name: &str, why: &str) -> FieldError {
    FieldError::invalid(&at.at(name), Value::Null, why)
}

/// A field that stays as it was. Missing, null and empty are the same.
fn unchanged(at: &Cursor<'_>, old: &Value, name: &str, out: &mut ErrorList) {
    let there = |value: &Value| match value.get(name) {
        None | Some(Value::Null) => Value::Null,
        Some(Value::String(text)) if text.is_empty() => Value::Null,
        Some(other) => other.clone(),
    };
    if there(at.value) != there(old) {
        out.push(null_invalid(at, name, IMMUTABLE));
    }
}

/// What templates of groups and groups themselves have in common.
fn group(at: &Cursor<'_>, old: Option<&Value>, out: &mut ErrorList) {
    if let Some(old) = old {
        let kept = [
            "disruptionMode",
            "priorityClassName",
            "priority",
            "schedulingConstraints",
            "resourceClaims",
            "preemptionPolicy",
        ];
        for name in kept {
            unchanged(at, old, name, out);
        }
    }
    let before = old.and_then(|old| old.get("schedulingPolicy"));
    policy(&at.child("schedulingPolicy"), before, out);
    if let Some(mode) = at.get("disruptionMode") {
        let before = old.and_then(|old| old.get("disruptionMode"));
        one_member(&mode, before, ["single", "all"], out);
    }
    optional_name(at, "priorityClassName", names::dns1123_subdomain, out);
    if let Some(priority) = at.integer("priority").filter(|it| *it > HIGHEST_PRIORITY) {
        out.push(FieldError::invalid(
            &at.at("priority"),
            priority,
            &format!("must be less than or equal to {HIGHEST_PRIORITY}"),
        ));
    }
}

fn templates(spec: &Cursor<'_>, old: Option<&Value>, out: &mut ErrorList) {
    let name = "podGroupTemplates";
    let before = old.and_then(|old| old.get(name)?.as_array());
    let count = spec.list(name).len();
    if count > TEMPLATES_MAX {
        out.push(FieldError::too_many(&spec.at(name), count, TEMPLATES_MAX));
        return;
    }
    let of = |named: &str| {
        let mut all = before.into_iter().flatten();
        all.find(|template| template["name"].as_str() == Some(named))
    };
    if let Some(before) = before {
        let known: BTreeSet<&str> = spec.items(name).map(|item| item.text("name")).collect();
        for item in spec.items(name) {
            if of(item.text("name")).is_none() {
                out.push(FieldError::forbidden(&item.path, "item may not be added"));
            }
        }
        for gone in before {
            if !known.contains(gone["name"].as_str().unwrap_or_default()) {
                out.push(FieldError::forbidden(
                    &spec.at(name),
                    "item may not be removed",
                ));
            }
        }
    }
    let mut seen = BTreeSet::new();
    let mut priorities: Option<(String, Option<i64>)> = None;
    let mut several = false;
    for item in spec.items(name) {
        let own = item.text("name");
        required_name(&item, "name", names::dns1123_label, out);
        if !seen.insert(own) {
            out.push(FieldError::duplicate(&item.path, json!({"name": own})));
        }
        group(&item, of(own), out);
        let of_item = (
            item.text("priorityClassName").to_owned(),
            item.integer("priority"),
        );
        several |= priorities
            .get_or_insert_with(|| of_item.clone())
            .ne(&&of_item);
    }
    if several {
        out.push(FieldError::invalid(
            &spec.path,
            Value::Null,
            "detected multiple priority configurations",
        ));
    }
}

fn workload(object: &Value, old: Option<&Value>) -> ErrorList {
    let mut out = ErrorList::new();
    let spec = Cursor::root(object).child("spec");
    let old = old.and_then(|old| old.get("spec"));
    let set = |spec: &Value| {
        let lists = ["podGroupTemplates", "compositePodGroupTemplates"];
        let mut lists = lists.iter().filter_map(|name| spec.get(*name)?.as_array());
        lists.any(|list| !list.is_empty())
    };
    if !set(spec.value) && old.is_none_or(set) {
        out.push(FieldError::invalid(
            &spec.path,
            "",
            "must specify one of: `podGroupTemplates`, `compositePodGroupTemplates`",
        ));
    }
    if let Some(old) = old {
        unchanged(&spec, old, "controllerRef", &mut out);
    }
    if let Some(controller) = spec.get("controllerRef") {
        optional_name(&controller, "apiGroup", names::dns1123_subdomain, &mut out);
        required_name(&controller, "kind", names::path_segment, &mut out);
        required_name(&controller, "name", names::path_segment, &mut out);
    }
    templates(&spec, old, &mut out);
    out
}

fn pod_group(object: &Value, old: Option<&Value>) -> ErrorList {
    let mut out = ErrorList::new();
    let spec = Cursor::root(object).child("spec");
    let old = old.and_then(|old| old.get("spec"));
    if let Some(old) = old {
        unchanged(&spec, old, "workloadRef", &mut out);
        unchanged(&spec, old, "parentCompositePodGroupName", &mut out);
    }
    if let Some(workload) = spec.get("workloadRef") {
        required_name(
            &workload,
            "workloadName",
            names::dns1123_subdomain,
            &mut out,
        );
        required_name(&workload, "templateName", names::dns1123_label, &mut out);
    }
    group(&spec, old, &mut out);
    if !spec.has("disruptionMode") {
        out.push(FieldError::required(&spec.at("disruptionMode"), ""));
    }
    out
}

impl Strategy for Workloads {
    fn prepare_create(&self, object: &mut Value) {
        Self::drop_gated(object, None);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        Self::drop_gated(new, Some(old));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        workload(object, None)
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        workload(new, Some(old))
    }
}

impl Strategy for PodGroups {
    fn defaults(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            default_field(spec, "disruptionMode", json!({"single": {}}));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
        if let Some(spec) = object.get_mut("spec") {
            drop_gated(spec, None, &OF_GROUPS);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
        if let Some(spec) = new.get_mut("spec") {
            drop_gated(spec, old.get("spec"), &OF_GROUPS);
        }
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        let claims = object::at(old, &["spec", "resourceClaims"]);
        if claims.is_none()
            && let Some(Value::Object(status)) = new.get_mut("status")
        {
            status.remove("resourceClaimStatuses");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        pod_group(object, None)
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        pod_group(new, Some(old))
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(new);
        let status = root.child("status");
        conditions(&status, &mut out);
        let spec = root.child("spec");
        for item in status.items("resourceClaimStatuses") {
            let name = item.text("name");
            let mut claims = spec.items("resourceClaims");
            if !claims.any(|claim| claim.text("name") == name) {
                out.push(FieldError::invalid(
                    &item.at("name"),
                    name,
                    "must match the name of an entry in `spec.resourceClaims`",
                ));
            }
        }
        out
    }
}
