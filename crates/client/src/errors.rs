//! What an answer of the door means to a loop.
//!
//! Loops branch on meanings (gone, conflict, exists), never on texts.

use kube::Error;

fn status(error: &Error) -> Option<&kube::core::Status> {
    match error {
        Error::Api(status) => Some(status),
        _ => None,
    }
}

/// The object, or its namespace, is not there.
#[must_use]
pub fn is_not_found(error: &Error) -> bool {
    // Of a path that nobody serves yet a server says so in a plain text.
    status(error).is_some_and(|status| status.code == 404 || status.is_not_found())
}

/// Somebody else wrote the object first, or a precondition did not hold.
#[must_use]
pub fn is_conflict(error: &Error) -> bool {
    status(error).is_some_and(kube::core::Status::is_conflict)
}

/// An object of this name is there already.
#[must_use]
pub fn is_already_exists(error: &Error) -> bool {
    status(error).is_some_and(kube::core::Status::is_already_exists)
}

/// The revision or continue token asked for is no longer kept: list again.
#[must_use]
pub fn is_gone(error: &Error) -> bool {
    status(error).is_some_and(|status| {
        status.code == 410 || status.reason == "Expired" || status.reason == "Gone"
    })
}

/// The identity lacks a right, or admission said no.
#[must_use]
pub fn is_forbidden(error: &Error) -> bool {
    status(error).is_some_and(kube::core::Status::is_forbidden)
}

/// The object is not valid; trying again without a change is useless.
#[must_use]
pub fn is_invalid(error: &Error) -> bool {
    status(error).is_some_and(kube::core::Status::is_invalid)
}

/// The verb is not supported by this resource.
#[must_use]
pub fn is_method_not_allowed(error: &Error) -> bool {
    status(error).is_some_and(|status| status.code == 405)
}

/// A create was refused because the namespace is being deleted: stop without noise.
#[must_use]
pub fn is_namespace_terminating(error: &Error) -> bool {
    status(error).is_some_and(|status| {
        status.is_forbidden()
            && status.details.as_ref().is_some_and(|details| {
                details
                    .causes
                    .iter()
                    .any(|cause| cause.reason == "NamespaceTerminating")
            })
    })
}

/// The text a person should see for an error: the door's own message where there is one.
#[must_use]
pub fn message(error: &Error) -> String {
    match status(error) {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        _ => error.to_string(),
    }
}
