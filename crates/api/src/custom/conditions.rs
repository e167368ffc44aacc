//! `status.conditions` of a definition.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object;

/// The condition of a type.
#[must_use]
pub fn condition<'v>(definition: &'v Value, kind: &str) -> Option<&'v Value> {
    object::list(definition, &["status", "conditions"])
        .iter()
        .find(|condition| object::text(condition, &["type"]) == kind)
}

/// Is a condition there and true?
#[must_use]
pub fn is_true(definition: &Value, kind: &str) -> bool {
    condition(definition, kind).is_some_and(|found| object::text(found, &["status"]) == "True")
}

/// Sets a condition; its time moves only when its status changes. Answers whether anything but
/// the time is new.
pub fn set(
    definition: &mut Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let now = crate::clock::rfc3339(now);
    let wanted = json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now});
    let slot = object::fields(object::child(definition, "status"))
        .entry("conditions")
        .or_insert_with(|| json!([]));
    if !slot.is_array() {
        *slot = json!([]);
    }
    let Value::Array(all) = slot else {
        return false;
    };
    let Some(found) = all
        .iter_mut()
        .find(|condition| object::text(condition, &["type"]) == kind)
    else {
        all.push(wanted);
        return true;
    };
    let same_status = object::text(found, &["status"]) == status;
    let same = same_status
        && object::text(found, &["reason"]) == reason
        && object::text(found, &["message"]) == message;
    let fields = object::fields(found);
    fields.insert("status".to_owned(), status.into());
    fields.insert("reason".to_owned(), reason.into());
    fields.insert("message".to_owned(), message.into());
    if !same_status {
        fields.insert("lastTransitionTime".to_owned(), now.into());
    }
    !same
}
