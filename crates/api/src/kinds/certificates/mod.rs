//! Certificate signing requests, as `pkg/apis/certificates` of the reference; in modules of their
//! own bundles of trust, and what nodes ask for their pods.
//!
//! Who asks is written in by the door; the conditions of approval are written through the
//! subresource of that name, the certificate through the status.

mod keys;
pub mod pem;
mod pod_requests;
mod trust_bundles;

use serde_json::Value;

pub use pod_requests::PodCertificateRequests;
pub use trust_bundles::{ClusterTrustBundles, bundle_name};

use crate::field::{ErrorList, FieldError, Path};
use crate::object::{self, child, fields, list_mut};
use crate::row::Strategy;
use crate::validation::{Cursor, is_new};

const CONDITIONS: [&str; 3] = ["Approved", "Denied", "Failed"];
const SECONDS_MIN: i64 = 600;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What certificate signing requests do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct CertificateSigningRequests;

/// Which part of a request an update may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Status,
    Approval,
}

impl Strategy for CertificateSigningRequests {
    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
        let spec = fields(child(object, "spec"));
        for name in ["username", "uid", "groups", "extra"] {
            spec.remove(name);
        }
    }

    fn prepare_creator(&self, object: &mut Value, creator: &Value) {
        let spec = fields(child(object, "spec"));
        for name in ["username", "uid", "groups", "extra"] {
            object::set_or_remove(spec, name, creator.get(name).cloned());
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        for name in ["spec", "status"] {
            object::set_or_remove(fields(new), name, old.get(name).cloned());
        }
    }

    fn prepare_status_at(&self, new: &mut Value, old: &Value, now: &str) {
        // Approval is decided elsewhere: its conditions stay what they are.
        for kind in ["Approved", "Denied"] {
            let before: Vec<Value> = of_type(old, kind).cloned().collect();
            let status = child(new, "status");
            let found = list_mut(status, "conditions")
                .filter(|condition| object::text(condition, &["type"]) == kind);
            let found: Vec<&mut Value> = found.collect();
            if found.len() == before.len() {
                found
                    .into_iter()
                    .zip(before)
                    .for_each(|(new, old)| *new = old);
            }
        }
        stamp(new, old, now);
    }

    fn prepare_approval(&self, new: &mut Value, old: &Value, now: &str) {
        stamp(new, old, now);
        let conditions = object::at(new, &["status", "conditions"]).cloned();
        for name in ["spec", "status"] {
            object::set_or_remove(fields(new), name, old.get(name).cloned());
        }
        object::set_or_remove(fields(child(new, "status")), "conditions", conditions);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        request(object, is_new(object), &mut out);
        conditions(object, &mut out);
        out
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        changed(new, old, Part::Status)
    }

    fn validate_approval(&self, new: &Value, old: &Value) -> ErrorList {
        changed(new, old, Part::Approval)
    }
}

fn of_type<'a>(object: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    object::list(object, &["status", "conditions"])
        .iter()
        .filter(move |condition| object::text(condition, &["type"]) == kind)
}

/// Notes when conditions were written and when they became what they are.
fn stamp(new: &mut Value, old: &Value, now: &str) {
    let status = child(new, "status");
    for condition in list_mut(status, "conditions") {
        object::default_field(condition, "lastUpdateTime", now);
        let same = object::list(old, &["status", "conditions"])
            .iter()
            .find(|before| {
                ["type", "status"]
                    .iter()
                    .all(|name| before.get(name) == condition.get(name))
            });
        let since = same
            .map(|before| object::text(before, &["lastTransitionTime"]))
            .filter(|since| !since.is_empty())
            .unwrap_or(now)
            .to_owned();
        object::default_field(condition, "lastTransitionTime", since);
    }
}

/// Checks what was asked for. The request itself never changes, and is read only when it is made.
fn request(object: &Value, new: bool, out: &mut ErrorList) {
    let spec = Cursor::root(object).child("spec");
    if new && let Err(wrong) = pem::signing_request(spec.text("request")) {
        out.push(FieldError::invalid(
            &spec.at("request"),
            spec.raw("request").clone(),
            &wrong.to_string(),
        ));
    }
    if !new {
        return;
    }
    if spec.list("usages").is_empty() {
        out.push(FieldError::required(&spec.at("usages"), ""));
    }
    let mut seen = Vec::new();
    for usage in spec.items("usages") {
        let name = usage.value.as_str().unwrap_or_default();
        if !USAGES.contains(&name) {
            out.push(FieldError::not_supported(&usage.path, name, &USAGES));
        }
        if seen.contains(&name) {
            out.push(FieldError::duplicate(&usage.path, name));
        }
        seen.push(name);
    }
    signer_name(&spec, out);
    if let Some(seconds) = spec
        .integer("expirationSeconds")
        .filter(|seconds| *seconds < SECONDS_MIN)
    {
        out.push(FieldError::invalid(
            &spec.at("expirationSeconds"),
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        ));
    }
}

fn signer_name(spec: &Cursor<'_>, out: &mut ErrorList) {
    let (name, path) = (spec.text("signerName"), spec.at("signerName"));
    if name == LEGACY_SIGNER {
        out.push(FieldError::invalid(
            &path,
            name,
            "the legacy signerName is not allowed via this API version",
        ));
        return;
    }
    validate_signer_name(name, &path, out);
}

/// Is it a signer of the Kubernetes project's own?
#[must_use]
pub fn is_kubernetes_signer(name: &str) -> bool {
    let domain = name.split('/').next().unwrap_or_default();
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}

/// Checks the name of a signer, `example.com/signer-name`.
pub fn validate_signer_name(name: &str, path: &Path, out: &mut ErrorList) {
    const DOMAIN_MAX: usize = 253;
    const NAME_MAX: usize = DOMAIN_MAX + 1 + 63 + 1 + 253;
    if name.is_empty() {
        out.push(FieldError::required(path, ""));
        return;
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, rest] = parts[..] else {
        out.push(FieldError::invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ));
        return;
    };
    if domain.len() > DOMAIN_MAX {
        out.push(FieldError::too_long(path, DOMAIN_MAX));
    }
    let first_wrong = |text: &str, rule: crate::names::NameRule| {
        text.split('.')
            .map(|label| (label.to_owned(), rule(label)))
            .find(|(_, wrong)| !wrong.is_empty())
    };
    let tell = |text: &str, found: Option<(String, Vec<String>)>, out: &mut ErrorList| {
        if let Some((label, wrong)) = found {
            for wrong in wrong {
                let told = format!("validating label {label:?}: {wrong}");
                out.push(FieldError::invalid(path, text, &told));
            }
        }
    };
    tell(
        domain,
        first_wrong(domain, crate::names::dns1123_label),
        out,
    );
    if !domain.contains('.') {
        out.push(FieldError::invalid(
            path,
            domain,
            "should be a domain with at least two segments separated by dots",
        ));
    }
    tell(
        rest,
        first_wrong(rest, crate::names::dns1123_subdomain),
        out,
    );
    if name.len() > NAME_MAX {
        out.push(FieldError::too_long(path, NAME_MAX));
    }
}

/// Checks what people say to signers through pods: annotations whose keys have a domain.
pub fn validate_user_annotations(map: &Value, path: &Path, out: &mut ErrorList) {
    const SIZE_MAX: usize = 256 * 1024;
    let mut size = 0;
    for (key, value) in map.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        let key = key.to_lowercase();
        if key.is_empty() {
            out.push(FieldError::required(path, ""));
            continue;
        }
        let wrong = crate::names::qualified_name(&key);
        if wrong.is_empty() && !key.contains('/') {
            out.push(FieldError::invalid(
                path,
                key.as_str(),
                "must be a domain-prefixed key (such as \"acme.io/foo\")",
            ));
        }
        for wrong in wrong {
            out.push(FieldError::invalid(path, key.as_str(), &wrong));
        }
    }
    if size > SIZE_MAX {
        out.push(FieldError::too_long(path, SIZE_MAX));
    }
}

fn conditions(object: &Value, out: &mut ErrorList) {
    let status = Cursor::root(object).child("status");
    let path = status.at("conditions");
    let mut seen = Vec::new();
    for condition in status.items("conditions") {
        let kind = condition.text("type");
        if kind.is_empty() {
            out.push(FieldError::required(&condition.at("type"), ""));
        }
        let allowed: &[&str] = if CONDITIONS.contains(&kind) {
            &["True"]
        } else {
            &["False", "True", "Unknown"]
        };
        crate::validation::required_one_of(&condition, "status", allowed, out);
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(&other) {
            out.push(FieldError::invalid(
                &path,
                kind,
                "Approved and Denied conditions are mutually exclusive",
            ));
        }
        if seen.contains(&kind) {
            out.push(FieldError::duplicate(&condition.at("type"), kind));
        }
        seen.push(kind);
    }
}

fn changed(new: &Value, old: &Value, part: Part) -> ErrorList {
    let mut out = ErrorList::new();
    conditions(new, &mut out);
    let status = Cursor::root(new).child("status");
    let path = status.at("conditions");
    for kind in CONDITIONS {
        let (now, before): (Vec<_>, Vec<_>) =
            (of_type(new, kind).collect(), of_type(old, kind).collect());
        let told = if now.len() < before.len() {
            "remove"
        } else if part == Part::Approval || kind == "Failed" || now == before {
            continue;
        } else if now.len() > before.len() {
            "add"
        } else {
            "modify"
        };
        out.push(FieldError::forbidden(
            &path,
            &format!("updates may not {told} a condition of type \"{kind}\""),
        ));
    }
    let before = object::text(old, &["status", "certificate"]);
    let certificate = status.text("certificate");
    if certificate != before {
        let path = status.at("certificate");
        if part == Part::Approval {
            out.push(FieldError::forbidden(
                &path,
                "updates may not set certificate content",
            ));
        } else if !before.is_empty() {
            out.push(FieldError::forbidden(
                &path,
                "updates may not modify existing certificate content",
            ));
        } else if let Err(wrong) = pem::certificates(certificate) {
            out.push(FieldError::invalid(
                &path,
                "<certificate data>",
                &wrong.to_string(),
            ));
        }
    }
    out
}
