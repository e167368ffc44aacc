//! Limit ranges of the core group.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::pod;
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::object::{self, child, fields, list_mut};
use crate::quantity::Quantity;
use crate::row::Strategy;
use crate::validation::Cursor;

const LISTS: [&str; 5] = [
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];
const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

/// What limit ranges do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct LimitRanges;

impl Strategy for LimitRanges {
    fn defaults(&self, object: &mut Value) {
        for item in list_mut(child(object, "spec"), "limits") {
            for list in LISTS {
                pod::round_up(item, list);
            }
            if object::text(item, &["type"]) == "Container" {
                container_defaults(item);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let mut types = BTreeSet::new();
        for item in Cursor::root(object).child("spec").items("limits") {
            let kind = item.text("type");
            type_name(kind, &item.at("type"), &mut out);
            if !types.insert(kind) {
                out.push(FieldError::duplicate(&item.at("type"), kind));
            }
            limits(&item, kind, &mut out);
        }
        out
    }
}

/// Limits of containers follow from each other: the default from the maximum, the default request
/// from the default or the minimum.
fn container_defaults(item: &mut Value) {
    for (from, to) in [
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ] {
        let given = item.get(from).and_then(Value::as_object).cloned();
        let wanted = child(item, to);
        for (name, amount) in given.into_iter().flatten() {
            fields(wanted).entry(name).or_insert(amount);
        }
    }
    // What stayed empty is not written.
    for list in ["default", "defaultRequest"] {
        if item.get(list) == Some(&json!({})) {
            fields(item).remove(list);
        }
    }
}

fn type_name(kind: &str, path: &Path, out: &mut ErrorList) {
    let wrong = names::qualified_name(kind);
    for wrong in &wrong {
        out.push(FieldError::invalid(path, kind, wrong));
    }
    if wrong.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
        out.push(FieldError::invalid(
            path,
            kind,
            "must be a standard limit type or fully qualified",
        ));
    }
}

fn limits(item: &Cursor<'_>, kind: &str, out: &mut ErrorList) {
    let mut amounts: BTreeMap<&str, BTreeMap<&str, Quantity>> = BTreeMap::new();
    for list in LISTS {
        if kind == "Pod" && matches!(list, "default" | "defaultRequest") {
            if item.entries(list).next().is_some() {
                out.push(FieldError::forbidden(
                    &item.at(list),
                    "may not be specified when `type` is 'Pod'",
                ));
            }
            continue;
        }
        for (name, value) in item.entries(list) {
            let path = item.at(list).key(name);
            if matches!(kind, "Pod" | "Container") {
                pod::container_resource_name(name, &path, out);
            } else {
                pod::resource_name(name, &path, out);
            }
            let amount = value.as_str().and_then(|text| text.parse().ok());
            if let Some(amount) = amount {
                amounts.entry(name).or_default().insert(list, amount);
            }
        }
    }
    if kind == "PersistentVolumeClaim"
        && !item.child("min").has("storage")
        && !item.child("max").has("storage")
    {
        out.push(FieldError::required(
            &item.at("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        ));
    }
    for (name, amounts) in &amounts {
        agree(item, name, amounts, out);
    }
}

/// Checks the limits of one resource against each other.
fn agree(item: &Cursor<'_>, name: &str, of: &BTreeMap<&str, Quantity>, out: &mut ErrorList) {
    let get = |list: &str| of.get(list);
    let mut above =
        |at: &str, shown: &Quantity, left: (&str, &Quantity), right: (&str, &Quantity)| {
            if left.1 > right.1 {
                out.push(FieldError::invalid(
                    &item.at(at).key(name),
                    shown.to_string(),
                    &format!(
                        "{} value {} is greater than {} value {}",
                        left.0, left.1, right.0, right.1
                    ),
                ));
            }
        };
    let (min, max) = (get("min"), get("max"));
    let (default, request) = (get("default"), get("defaultRequest"));
    if let (Some(min), Some(max)) = (min, max) {
        above("min", min, ("min", min), ("max", max));
    }
    if let (Some(request), Some(min)) = (request, min) {
        above(
            "defaultRequest",
            request,
            ("min", min),
            ("default request", request),
        );
    }
    if let (Some(request), Some(max)) = (request, max) {
        above(
            "defaultRequest",
            request,
            ("default request", request),
            ("max", max),
        );
    }
    if let (Some(request), Some(default)) = (request, default) {
        let limit = ("default limit", default);
        above(
            "defaultRequest",
            request,
            ("default request", request),
            limit,
        );
    }
    // The reference shows the minimum, and the maximum, at the default.
    if let (Some(default), Some(min)) = (default, min) {
        above("default", min, ("min", min), ("default", default));
    }
    if let (Some(default), Some(max)) = (default, max) {
        above("default", max, ("default", default), ("max", max));
    }
    if let Some(most) = get("maxLimitRequestRatio") {
        ratio(item, name, most, min, max, out);
    }
    if let (Some(default), Some(request)) = (default, request)
        && !pod::overcommits(name)
        && default != request
    {
        out.push(FieldError::invalid(
            &item.at("defaultRequest").key(name),
            request.to_string(),
            &format!(
                "default value {default} must equal to defaultRequest value {request} in {name}"
            ),
        ));
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the ratio is a floating-point number in the reference too"
)]
fn ratio(
    item: &Cursor<'_>,
    name: &str,
    most: &Quantity,
    min: Option<&Quantity>,
    max: Option<&Quantity>,
    out: &mut ErrorList,
) {
    let path = item.at("maxLimitRequestRatio").key(name);
    let mut wrong = |detail: String| {
        out.push(FieldError::invalid(&path, most.to_string(), &detail));
    };
    if most.milli() < 1000 {
        wrong(format!("ratio {most} is less than 1"));
    }
    if let (Some(min), Some(max)) = (min, max) {
        let limit = max.milli() as f64 / min.milli() as f64;
        if most.milli() as f64 / 1000.0 > limit {
            wrong(format!("ratio {most} is greater than max/min = {limit:.6}"));
        }
    }
}
