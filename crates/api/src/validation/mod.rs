//! What every kind's validation shares: a cursor over a value and its path, rules for texts, and
//! the validation of metadata.
//!
//! Only pure checks of one object (or of a change) live here; what needs other objects, such as
//! quotas or existing names, belongs to admission and the store. The words are those of
//! `k8s.io/apimachinery/pkg/api/validation` 0.37, because clients and people match on them.

mod conditions;
mod cursor;
mod labels;
mod metadata;
mod network;
pub mod text;

pub use conditions::conditions;
pub use cursor::Cursor;
pub use labels::{
    annotations, label_name, label_selector, labels, labels_match, qualified_name, selects,
};
pub(crate) use metadata::plain_finalizer;
pub use metadata::{masked_prefix, validate_metadata, validate_metadata_update};
pub use network::{
    balancer_warnings, cidr, cidr_warning, ip, ip_warning, legacy_cidr, legacy_ip, non_special_ip,
    parse_ip_sloppy,
};

use serde_json::Value;

use crate::field::{ErrorList, FieldError, Path};
use crate::names::{self, NameRule};

/// The reference's words for a value that may not change.
pub const IMMUTABLE: &str = "field is immutable";
/// The reference's words for a number below zero.
pub const NEGATIVE: &str = "must be greater than or equal to 0";

/// Is an object about to be created? A resource version tells one that is there already.
#[must_use]
pub fn is_new(object: &Value) -> bool {
    crate::object::resource_version(object).is_empty()
}

/// Checks that an integer field is not below zero; an unset one is zero.
pub fn nonnegative(at: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    if let Some(value) = at.integer(name).filter(|value| *value < 0) {
        out.push(FieldError::invalid(&at.at(name), value, NEGATIVE));
    }
}

/// Checks that a value is the same as before. Missing and null are the same.
pub fn immutable(new: &Value, old: &Value, path: &Path, out: &mut ErrorList) {
    if new != old {
        out.push(FieldError::invalid(path, new.clone(), IMMUTABLE));
    }
}

/// The same of a text, where one that is missing is empty.
pub fn immutable_text(new: &str, old: &str, path: &Path, out: &mut ErrorList) {
    if new != old {
        out.push(FieldError::invalid(path, new, IMMUTABLE));
    }
}

/// The same by a rule that the reference declares beside the field: it does not show the value.
pub fn declared_immutable(new: &Value, old: &Value, path: &Path, out: &mut ErrorList) {
    if new != old {
        out.push(FieldError::invalid(path, Value::Null, IMMUTABLE).declared());
    }
}

/// Checks a text by a rule.
pub fn named(rule: NameRule, value: &str, path: &Path, out: &mut ErrorList) {
    out.extend(
        rule(value)
            .iter()
            .map(|wrong| FieldError::invalid(path, value, wrong)),
    );
}

/// Checks a path behind a domain, `example.com/controller`.
pub fn domain_prefixed_path(value: &str, path: &Path, out: &mut ErrorList) {
    const ALLOWED: &[u8] = b"/-._~%!$&'()*+,;=:";
    if value.is_empty() {
        out.push(FieldError::required(path, ""));
        return;
    }
    let parts = value
        .split_once('/')
        .filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty());
    let Some((domain, rest)) = parts else {
        out.push(FieldError::invalid(
            path,
            value,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ));
        return;
    };
    dns_subdomain(domain, path, out);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || ALLOWED.contains(&byte);
    if !rest.bytes().all(allowed) {
        out.push(FieldError::invalid(
            path,
            rest,
            "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
        ));
    }
}

/// Checks that a text is an RFC 1123 label.
pub fn dns_label(value: &str, path: &Path, out: &mut ErrorList) {
    named(names::dns1123_label, value, path, out);
}

/// Checks that a text is an RFC 1123 subdomain.
pub fn dns_subdomain(value: &str, path: &Path, out: &mut ErrorList) {
    named(names::dns1123_subdomain, value, path, out);
}

/// Checks that a set text field has one of the allowed values; says which are, in that order.
pub fn one_of(at: &Cursor<'_>, name: &str, allowed: &[&str], out: &mut ErrorList) {
    if let Some(value) = at.get(name).and_then(|found| found.value.as_str())
        && !allowed.contains(&value)
    {
        out.push(FieldError::not_supported(&at.at(name), value, allowed));
    }
}

/// Like [`one_of`], and the field must be set.
pub fn required_one_of(at: &Cursor<'_>, name: &str, allowed: &[&str], out: &mut ErrorList) {
    if at.text(name).is_empty() {
        out.push(FieldError::required(&at.at(name), ""));
    } else {
        one_of(at, name, allowed, out);
    }
}

/// Checks that a text field is set.
pub fn required(at: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    if at.text(name).is_empty() {
        out.push(FieldError::required(&at.at(name), ""));
    }
}

/// Checks a port number.
pub fn port_number(value: i64, path: &Path, out: &mut ErrorList) {
    if !(1..=65535).contains(&value) {
        let wrong = text::inclusive_range(1, 65535);
        out.push(FieldError::invalid(path, value, &wrong));
    }
}

/// Checks a port that is a number or the name of a container's port.
pub fn port_number_or_name(value: &Value, path: &Path, out: &mut ErrorList) {
    match value {
        Value::String(name) => named(text::port_name, name, path, out),
        other => port_number(other.as_i64().unwrap_or_default(), path, out),
    }
}

#[cfg(test)]
mod tests;
