//! When a job counts as failed or as succeeded: `podFailurePolicy`, `successPolicy`,
//! `podReplacementPolicy`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::indexes;
use crate::field::{ErrorList, FieldError};
use crate::validation::{Cursor, nonnegative, qualified_name};

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const RULES_MAX: usize = 20;
const PATTERNS_MAX: usize = 20;
const CODES_MAX: usize = 255;
const SUCCEEDED_INDEXES_MAX: usize = 64 * 1024;

/// `valid values: ["a" "b"]`, as Go prints a list of quoted texts.
fn valid_values(allowed: &[&str]) -> String {
    let quoted: Vec<String> = allowed
        .iter()
        .map(|item| crate::field::quoted(item))
        .collect();
    format!("valid values: [{}]", quoted.join(" "))
}

fn required_one_of(at: &Cursor<'_>, name: &str, allowed: &[&str], out: &mut ErrorList) {
    match at.text(name) {
        "" => out.push(FieldError::required(&at.at(name), &valid_values(allowed))),
        found if !allowed.contains(&found) => {
            out.push(FieldError::not_supported(&at.at(name), found, allowed));
        }
        _ => {}
    }
}

/// Checks `podFailurePolicy`.
pub(super) fn failure(spec: &Cursor<'_>, out: &mut ErrorList) {
    let at = spec.child("podFailurePolicy");
    let rules = at.list("rules").len();
    if rules > RULES_MAX {
        out.push(FieldError::too_many(&at.at("rules"), rules, RULES_MAX));
    }
    let pod = spec.child("template").child("spec");
    let containers: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pod.items(list))
        .map(|container| container.text("name"))
        .collect();
    for rule in at.items("rules") {
        failure_rule(spec, &rule, &containers, out);
    }
}

fn failure_rule(
    spec: &Cursor<'_>,
    rule: &Cursor<'_>,
    containers: &BTreeSet<&str>,
    out: &mut ErrorList,
) {
    if rule.text("action") == "FailIndex" {
        if !spec.has("backoffLimitPerIndex") {
            out.push(FieldError::invalid(
                &rule.at("action"),
                "FailIndex",
                "requires the backoffLimitPerIndex to be set",
            ));
        }
    } else {
        required_one_of(rule, "action", &ACTIONS, out);
    }
    let codes = rule.get("onExitCodes");
    if let Some(codes) = &codes {
        exit_codes(codes, containers, out);
    }
    let patterns = rule.list("onPodConditions").len();
    if patterns > PATTERNS_MAX {
        out.push(FieldError::too_many(
            &rule.at("onPodConditions"),
            patterns,
            PATTERNS_MAX,
        ));
    }
    for pattern in rule.items("onPodConditions") {
        qualified_name(pattern.text("type"), &pattern.at("type"), out);
        required_one_of(&pattern, "status", &STATUSES, out);
    }
    let wrong = match (codes.is_some(), patterns > 0) {
        (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    out.push(FieldError::invalid_omitted(&rule.path, wrong));
}

fn exit_codes(at: &Cursor<'_>, containers: &BTreeSet<&str>, out: &mut ErrorList) {
    required_one_of(at, "operator", &OPERATORS, out);
    if at.has("containerName") && !containers.contains(at.text("containerName")) {
        out.push(FieldError::invalid(
            &at.at("containerName"),
            at.text("containerName"),
            "must be one of the container or initContainer names in the pod template",
        ));
    }
    let values: Vec<i64> = at
        .list("values")
        .iter()
        .map(|value| value.as_i64().unwrap_or_default())
        .collect();
    if values.is_empty() {
        let shown = if at.has("values") { "[]" } else { "null" };
        out.push(FieldError::invalid_shown(
            &at.at("values"),
            shown,
            "at least one value is required",
        ));
    } else if values.len() > CODES_MAX {
        out.push(FieldError::too_many(
            &at.at("values"),
            values.len(),
            CODES_MAX,
        ));
    }
    for (index, value) in values.iter().enumerate() {
        let path = at.at("values").index(index);
        if at.text("operator") == "In" && *value == 0 {
            out.push(FieldError::invalid(
                &path,
                0,
                "must not be 0 for the In operator",
            ));
        }
        if values[..index].contains(value) {
            out.push(FieldError::duplicate(&path, *value));
        }
    }
    if !values.is_sorted() {
        out.push(FieldError::invalid(
            &at.at("values"),
            Value::from(values),
            "must be ordered",
        ));
    }
}

/// Checks `successPolicy` of an indexed job.
pub(super) fn success(spec: &Cursor<'_>, out: &mut ErrorList) {
    let at = spec.child("successPolicy");
    let rules = at.list("rules").len();
    if rules == 0 {
        out.push(FieldError::required(
            &at.at("rules"),
            "at least one rules must be specified when the successPolicy is specified",
        ));
    }
    if rules > RULES_MAX {
        out.push(FieldError::too_many(&at.at("rules"), rules, RULES_MAX));
    }
    // Without completions the job is refused already; the reference would stop here.
    let completions = spec.number("completions");
    for rule in at.items("rules") {
        success_rule(&rule, completions, out);
    }
}

fn success_rule(rule: &Cursor<'_>, completions: i64, out: &mut ErrorList) {
    let indexes_set = rule.has("succeededIndexes");
    if !rule.has("succeededCount") && !indexes_set {
        out.push(FieldError::required(
            &rule.path,
            "at least one of succeededCount or succeededIndexes must be specified",
        ));
    }
    let mut total = 0;
    if indexes_set {
        let text = rule.text("succeededIndexes");
        if text.len() > SUCCEEDED_INDEXES_MAX {
            out.push(FieldError::too_long(
                &rule.at("succeededIndexes"),
                SUCCEEDED_INDEXES_MAX,
            ));
        }
        match indexes::count(text, completions) {
            Ok(count) => total = count,
            Err(wrong) => out.push(FieldError::invalid(
                &rule.at("succeededIndexes"),
                text,
                &format!("error parsing succeededIndexes: {wrong}"),
            )),
        }
    }
    let Some(count) = rule.integer("succeededCount") else {
        return;
    };
    nonnegative(rule, "succeededCount", out);
    let path = rule.at("succeededCount");
    if count > completions {
        out.push(FieldError::invalid(
            &path,
            count,
            &format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            ),
        ));
    }
    if indexes_set && count > total {
        out.push(FieldError::invalid(
            &path,
            count,
            &format!(
                "must be less than or equal to {total} (the number of indexes in the specified \
                 succeededIndexes field)"
            ),
        ));
    }
}

/// Checks `podReplacementPolicy`.
pub(super) fn replacement(spec: &Cursor<'_>, out: &mut ErrorList) {
    let allowed: &[&str] = if spec.has("podFailurePolicy") {
        &["Failed"]
    } else {
        &["Failed", "TerminatingOrFailed"]
    };
    crate::validation::one_of(spec, "podReplacementPolicy", allowed, out);
}
