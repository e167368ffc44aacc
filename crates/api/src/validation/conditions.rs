//! `metav1.Condition` lists.

use super::{Cursor, label_name, required_one_of};
use crate::field::{ErrorList, FieldError};

const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const REASON_MAX: usize = 1024;
const MESSAGE_MAX: usize = 32 * 1024;

/// Checks the list `conditions` of a status.
pub fn conditions(status: &Cursor<'_>, out: &mut ErrorList) {
    let mut seen = Vec::new();
    for at in status.items("conditions") {
        let kind = at.text("type");
        if seen.contains(&kind) {
            out.push(FieldError::duplicate(&at.path, kind));
        } else {
            seen.push(kind);
        }
        condition(&at, out);
    }
}

fn condition(at: &Cursor<'_>, out: &mut ErrorList) {
    if at.text("type").is_empty() {
        out.push(FieldError::required(&at.at("type"), "is required"));
    } else {
        label_name(at.text("type"), &at.at("type"), out);
    }
    required_one_of(at, "status", &STATUSES, out);
    let generation = at.number("observedGeneration");
    if generation < 0 {
        out.push(FieldError::invalid(
            &at.at("observedGeneration"),
            generation,
            "must be greater than or equal to zero",
        ));
    }
    if !at.has("lastTransitionTime") {
        out.push(FieldError::required(&at.at("lastTransitionTime"), ""));
    }
    reason(at, out);
    if at.text("message").len() > MESSAGE_MAX {
        out.push(FieldError::too_long(&at.at("message"), MESSAGE_MAX));
    }
}

fn reason(at: &Cursor<'_>, out: &mut ErrorList) {
    let (reason, path) = (at.text("reason"), at.at("reason"));
    if reason.is_empty() {
        out.push(FieldError::required(&path, "is required"));
        return;
    }
    // A letter first, no comma or colon last.
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte);
    let good = reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && !reason.ends_with([',', ':'])
        && reason.bytes().all(inner);
    if !good {
        out.push(FieldError::invalid(
            &path,
            reason,
            "a condition reason must start with alphabetic character, optionally followed by a \
             string of alphanumeric characters or '_,:', and must end with an alphanumeric \
             character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB', \
              or 'ReasonA:ReasonB', regex used for validation is \
             '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
        ));
    }
    if reason.len() > REASON_MAX {
        out.push(FieldError::too_long(&path, REASON_MAX));
    }
}
