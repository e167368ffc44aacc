//! What of a status has to be written: the fields that differ from what the API has.
//!
//! Pure. The patch is a strategic one: conditions merge by type, so those of other owners stay.

use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use serde_json::{Map, Value, json};

use super::conditions::RESIZE;

/// Fields that only the node writes; a patch may clear them.
const OWNED: [&str; 16] = [
    "allocatedResources",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "startTime",
    "resize",
    "resources",
];

/// The patch that leads from `have` to `want`, `None` when nothing differs.
#[must_use]
pub fn diff(uid: &str, have: &PodStatus, want: &PodStatus) -> Option<Value> {
    let before = object(have);
    let after = object(want);
    let mut status = Map::new();
    for field in OWNED {
        let (old, new) = (before.get(field), after.get(field));
        if old == new {
            continue;
        }
        let mut value = new.cloned().unwrap_or(Value::Null);
        // Lists of addresses merge by address; another address takes the place of the old one.
        if matches!(field, "podIPs" | "hostIPs")
            && old.is_some()
            && let Value::Array(list) = &mut value
        {
            list.push(json!({ "$patch": "replace" }));
        }
        status.insert(field.to_owned(), value);
    }
    let mut conditions: Vec<Value> = want
        .conditions
        .iter()
        .flatten()
        .filter(|condition| !same(have, condition))
        .map(|condition| {
            let mut value = serde_json::to_value(condition).unwrap_or_default();
            // What is not there any more is cleared: a merge would keep it.
            if let Value::Object(fields) = &mut value {
                for field in ["reason", "message"] {
                    fields.entry(field).or_insert(Value::Null);
                }
            }
            value
        })
        .collect();
    let over = have.conditions.iter().flatten().filter(|old| {
        let mut wanted = want.conditions.iter().flatten();
        RESIZE.contains(&old.type_.as_str()) && !wanted.any(|it| it.type_ == old.type_)
    });
    conditions.extend(over.map(|old| json!({"type": old.type_, "$patch": "delete"})));
    if !conditions.is_empty() {
        status.insert("conditions".to_owned(), Value::Array(conditions));
    }
    if status.is_empty() {
        return None;
    }
    Some(json!({ "metadata": { "uid": uid }, "status": status }))
}

/// The API's status after `want` was written over `have`.
#[must_use]
pub fn merged(have: &PodStatus, want: &PodStatus) -> PodStatus {
    let mut conditions = have.conditions.clone().unwrap_or_default();
    conditions.retain(|old| !RESIZE.contains(&old.type_.as_str()));
    for condition in want.conditions.iter().flatten() {
        conditions.retain(|old| old.type_ != condition.type_);
        conditions.push(condition.clone());
    }
    PodStatus {
        conditions: Some(conditions),
        ..want.clone()
    }
}

fn same(have: &PodStatus, condition: &PodCondition) -> bool {
    have.conditions.iter().flatten().any(|old| {
        old.type_ == condition.type_
            && old.status == condition.status
            && old.reason == condition.reason
            && old.message == condition.message
            && old.observed_generation == condition.observed_generation
    })
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}
