//! What a request's query asks for beside the object: the options of writes and of lists, checked
//! as the reference checks them.

use evenkeel_api::field::{ErrorList, FieldError, Path};
use evenkeel_api::schema::FieldValidation;
use evenkeel_api::{Status, field};
use http::Method;
use serde_json::Value;

use crate::http::Query;

/// The longest name of a field manager, in bytes.
const MANAGER_MAX: usize = 128;

/// Is a patch one that is applied, or another one?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patching {
    Applied,
    Other,
}

/// 422 for options that are not of their kind.
pub(super) fn refuse(kind: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("meta.k8s.io", kind, "", errors))
}

/// Checks the options of a create, update or patch.
pub(super) fn check_write(
    method: &Method,
    query: &Query,
    patching: Option<Patching>,
) -> Result<(), Status> {
    let kind = match *method {
        Method::PUT => "UpdateOptions",
        Method::PATCH => "PatchOptions",
        _ => "CreateOptions",
    };
    let mut errors = ErrorList::new();
    let manager = query.get("fieldManager");
    match patching {
        Some(Patching::Applied) if manager.is_empty() => errors.push(FieldError::required(
            &Path::new("fieldManager"),
            "is required for apply patch",
        )),
        Some(Patching::Other) if query.has("force") => errors.push(FieldError::forbidden(
            &Path::new("force"),
            "may not be specified for non-apply patch",
        )),
        _ => {}
    }
    field_manager(manager, &mut errors);
    let dry_run: Vec<&str> = query.all("dryRun").collect();
    self::dry_run(&dry_run, &mut errors);
    let validation = query.get("fieldValidation");
    if FieldValidation::parse(validation).is_none() {
        errors.push(FieldError::not_supported(
            &Path::new("fieldValidation"),
            validation,
            &["", "Ignore", "Strict", "Warn"],
        ));
    }
    refuse(kind, &errors)
}

fn field_manager(manager: &str, errors: &mut ErrorList) {
    let path = Path::new("fieldManager");
    if manager.len() > MANAGER_MAX {
        errors.push(FieldError::too_long(&path, MANAGER_MAX));
    }
    for (at, letter) in manager.char_indices() {
        let shown = letter == ' ' || !(letter.is_control() || letter.is_whitespace());
        if !shown {
            errors.push(FieldError::invalid(
                &path,
                manager,
                &format!(
                    "invalid character U+{:04X} (at position {at})",
                    u32::from(letter)
                ),
            ));
        }
    }
}

/// `dryRun` holds nothing but `All`.
pub(super) fn dry_run(values: &[&str], errors: &mut ErrorList) {
    if values.iter().all(|value| *value == "All") {
        return;
    }
    let shown: Vec<String> = values.iter().map(|value| field::quoted(value)).collect();
    errors.push(FieldError::not_supported_shown(
        &Path::new("dryRun"),
        &format!("[{}]", shown.join(",")),
        &["All"],
    ));
}

/// A number of the query, if it is there.
///
/// # Errors
/// 400 in the words of Go's parser.
pub(super) fn number(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    if !query.has(name) {
        return Ok(None);
    }
    let text = query.get(name);
    text.parse()
        .map(Some)
        .map_err(|error: std::num::ParseIntError| {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let why = match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Status::bad_request(format!(
                "strconv.ParseInt: parsing {}: {why}",
                field::quoted(text)
            ))
        })
}

/// Checks the options of a list, watch or deletion of a collection.
pub(super) fn check_list(query: &Query, watch: bool) -> Result<(), Status> {
    number(query, "limit")?;
    number(query, "timeoutSeconds")?;
    let mut errors = ErrorList::new();
    let path = Path::new("resourceVersionMatch");
    let how = query.get("resourceVersionMatch");
    let initial = query.has("sendInitialEvents");
    let mut forbid = |why: &str| errors.push(FieldError::forbidden(&path, why));
    if watch && initial && how != "NotOlderThan" {
        forbid("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if !how.is_empty() {
        let asked = query.get("resourceVersion");
        let goes_on = !query.get("continue").is_empty();
        let on_continue = "resourceVersionMatch is forbidden when continue is provided";
        let known: &[&str] = if watch {
            &["NotOlderThan"]
        } else {
            &["Exact", "NotOlderThan", ""]
        };
        if watch && !initial {
            forbid(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
        if !watch && asked.is_empty() {
            forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !watch && goes_on {
            forbid(on_continue);
        }
        if !known.contains(&how) {
            errors.push(FieldError::not_supported(&path, how, known));
        }
        if watch && goes_on {
            errors.push(FieldError::forbidden(&path, on_continue));
        }
        if !watch && how == "Exact" && asked == "0" {
            errors.push(FieldError::forbidden(
                &path,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if !watch && initial {
        errors.push(FieldError::forbidden(
            &Path::new("sendInitialEvents"),
            "sendInitialEvents is forbidden for list",
        ));
    }
    refuse("ListOptions", &errors)
}

/// A version of an object as the store compares it: none, and 0, are no version.
///
/// # Errors
/// 500, as in the reference, for what is no number.
pub(super) fn revision(object: &Value) -> Result<u64, Status> {
    match evenkeel_api::object::resource_version(object) {
        "" => Ok(0),
        text => text.parse().map_err(|_| {
            let shown = field::quoted(text);
            let why = format!("strconv.ParseUint: parsing {shown}: invalid syntax");
            Status::failure(500, "", why)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outcome: Result<(), Status>) -> (u16, String) {
        match outcome {
            Ok(()) => (200, String::new()),
            Err(status) => (status.code, status.message),
        }
    }

    #[test]
    fn write_options_are_checked_together() {
        let check = |method: &Method, query: &str, patching| {
            told(check_write(method, &Query::parse(query), patching))
        };
        let fine = (200, String::new());
        let all = "dryRun=All&fieldManager=a%20b&fieldValidation=Strict";
        assert_eq!(check(&Method::POST, all, None), fine);
        assert_eq!(check(&Method::PUT, "fieldValidation=", None), fine);
        let (code, message) = check(&Method::POST, "dryRun=Foo&fieldValidation=Foo", None);
        assert_eq!(code, 422);
        assert_eq!(
            message,
            "CreateOptions.meta.k8s.io \"\" is invalid: [dryRun: Unsupported value: [\"Foo\"]: \
             supported values: \"All\", fieldValidation: Unsupported value: \"Foo\": supported \
             values: \"\", \"Ignore\", \"Strict\", \"Warn\"]"
        );
        let (_, message) = check(&Method::PUT, "fieldManager=a%0Ab", None);
        assert_eq!(
            message,
            "UpdateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\nb\": \
             invalid character U+000A (at position 1)"
        );
        let (_, message) = check(&Method::PATCH, "", Some(Patching::Applied));
        assert_eq!(
            message,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required \
             for apply patch"
        );
        let (code, _) = check(&Method::PATCH, "force=true", Some(Patching::Other));
        assert_eq!(code, 422);
        assert_eq!(
            check(
                &Method::PATCH,
                "force=true&fieldManager=x",
                Some(Patching::Applied)
            ),
            fine
        );
    }

    #[test]
    fn list_options_are_checked_together() {
        let check = |query: &str, watch| told(check_list(&Query::parse(query), watch));
        let fine = (200, String::new());
        assert_eq!(
            check("limit=5&timeoutSeconds=1&resourceVersion=5", false),
            fine
        );
        let (code, message) = check("limit=x", false);
        assert_eq!(
            (code, message.as_str()),
            (400, "strconv.ParseInt: parsing \"x\": invalid syntax")
        );
        let (_, message) = check("limit=99999999999999999999", false);
        assert_eq!(
            message,
            "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"
        );
        let (code, message) = check("sendInitialEvents=true", false);
        assert_eq!(code, 422);
        assert_eq!(
            message,
            "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: \
             sendInitialEvents is forbidden for list"
        );
        let watched = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(check(watched, true), fine);
        assert_eq!(check("sendInitialEvents=true", true).0, 422);
        assert_eq!(
            check("resourceVersionMatch=NotOlderThan&resourceVersion=5", true).0,
            422
        );
        assert_eq!(
            check("resourceVersionMatch=Foo&resourceVersion=5", false).0,
            422
        );
        assert_eq!(
            check("resourceVersionMatch=Exact&resourceVersion=5", false),
            fine
        );
    }
}
