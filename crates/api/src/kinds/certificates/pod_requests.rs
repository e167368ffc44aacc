//! What a node asks for a pod of its own: a certificate by a signer that the pod names.
//!
//! Nothing in a request changes after it was made; its status is written once, by the signer, and
//! is held to what the certificate says.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::keys::{self, Sort};
use super::{is_kubernetes_signer, pem, validate_signer_name, validate_user_annotations};
use crate::field::{ErrorList, FieldError};
use crate::names;
use crate::object::{self, child, default_field};
use crate::row::Strategy;
use crate::validation::{Cursor, conditions, immutable, is_new, named};

const SECONDS_DEFAULT: i64 = 86_400;
const SECONDS_MIN: i64 = 3_600;
const SECONDS_MAX: i64 = 91 * 24 * 3_600;
/// The Kubernetes project's own signers sign for a day at most.
const SECONDS_MAX_KUBERNETES: i64 = 24 * 3_600;
const UID_MAX: usize = 128;
const REQUEST_MAX: usize = 10 * 1024;
const CHAIN_MAX: usize = 100 * 1024;
const TERMINAL: [&str; 3] = ["Issued", "Denied", "Failed"];
/// How far the clock of a signer may be from this one.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
const MARGIN: SignedDuration = SignedDuration::from_mins(10);
const LIFETIME_MIN: SignedDuration = SignedDuration::from_hours(1);

/// What requests for pods' certificates do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodCertificateRequests;

impl Strategy for PodCertificateRequests {
    fn defaults(&self, object: &mut Value) {
        default_field(
            child(object, "spec"),
            "maxExpirationSeconds",
            SECONDS_DEFAULT,
        );
    }

    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object::keep_metadata_of_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        if is_new(object) {
            asked(&Cursor::root(object).child("spec"), &mut out);
        }
        out
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(new).child("spec");
        let before = Cursor::root(old).child("spec");
        immutable(spec.value, before.value, &spec.path, &mut out);
        out
    }

    fn validate_status_at(&self, new: &Value, old: &Value, now: Timestamp) -> ErrorList {
        let mut out = ErrorList::new();
        answered(new, old, now, &mut out);
        out
    }
}

/// Checks what is asked for.
fn asked(spec: &Cursor<'_>, out: &mut ErrorList) {
    let signer = spec.text("signerName");
    validate_signer_name(signer, &spec.at("signerName"), out);
    validate_user_annotations(
        spec.raw("unverifiedUserAnnotations"),
        &spec.at("unverifiedUserAnnotations"),
        out,
    );
    for (name, uid) in [
        ("podName", "podUID"),
        ("serviceAccountName", "serviceAccountUID"),
        ("nodeName", "nodeUID"),
    ] {
        named(
            names::dns1123_subdomain,
            spec.text(name),
            &spec.at(name),
            out,
        );
        if spec.text(uid).is_empty() {
            out.push(FieldError::invalid(&spec.at(uid), "", "must not be empty"));
        }
        if spec.text(uid).len() > UID_MAX {
            out.push(FieldError::too_long(&spec.at(uid), UID_MAX));
        }
    }
    let path = spec.at("maxExpirationSeconds");
    let Some(seconds) = spec.integer("maxExpirationSeconds") else {
        out.push(FieldError::required(&path, "must be set"));
        return;
    };
    let most = if is_kubernetes_signer(signer) {
        SECONDS_MAX_KUBERNETES
    } else {
        SECONDS_MAX
    };
    if !(SECONDS_MIN..=most).contains(&seconds) {
        let wrong = format!("must be in the range [{SECONDS_MIN}, {most}]");
        out.push(FieldError::invalid(&path, seconds, &wrong));
    }
    if spec.text("stubPKCS10Request").is_empty() {
        // The two deprecated fields that this speaks of are not in this version.
        out.push(FieldError::invalid_omitted(
            &spec.path,
            "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set",
        ));
        return;
    }
    request(spec, out);
}

fn request(spec: &Cursor<'_>, out: &mut ErrorList) {
    let path = spec.at("stubPKCS10Request");
    let der = STANDARD
        .decode(spec.text("stubPKCS10Request"))
        .unwrap_or_default();
    if der.len() > REQUEST_MAX {
        out.push(FieldError::too_long(&path, REQUEST_MAX));
        return;
    }
    let parsed = match X509CertificationRequest::from_der(&der) {
        Ok(([], parsed)) => Some(parsed),
        _ => None,
    };
    let sort = parsed
        .as_ref()
        .and_then(|parsed| keys::sort(&parsed.certification_request_info.subject_pki).ok());
    let (Some(parsed), Some(sort)) = (parsed, sort) else {
        out.push(FieldError::invalid_omitted(
            &path,
            "must be a valid PKCS#10 CSR",
        ));
        return;
    };
    let wrong = match sort {
        Sort::Ed25519 | Sort::P256 | Sort::P384 | Sort::P521 | Sort::Rsa(3072 | 4096) => None,
        Sort::Curve(name) => Some(FieldError::invalid(
            &path,
            format!("curve {name}"),
            "elliptic public keys must use curve P256, P384, or P521",
        )),
        Sort::Rsa(bits) => Some(FieldError::invalid(
            &path,
            format!("{bits}-bit modulus"),
            "RSA keys must have modulus size 3072 or 4096",
        )),
        Sort::Unknown => Some(FieldError::invalid_omitted(
            &path,
            "unknown public key type; supported types are Ed25519, ECDSA, and RSA",
        )),
    };
    if let Some(wrong) = wrong {
        out.push(wrong);
        return;
    }
    let info = &parsed.certification_request_info;
    let signed = keys::verify(
        &info.subject_pki,
        &parsed.signature_algorithm,
        info.raw,
        &parsed.signature_value.data,
    );
    if signed.is_err() {
        out.push(FieldError::invalid_omitted(&path, "invalid signature"));
    }
}

fn is(object: &Value, kind: &str) -> bool {
    object::list(object, &["status", "conditions"])
        .iter()
        .any(|condition| {
            object::text(condition, &["type"]) == kind
                && object::text(condition, &["status"]) == "True"
        })
}

/// Checks what a signer answers.
fn answered(new: &Value, old: &Value, now: Timestamp, out: &mut ErrorList) {
    let status = Cursor::root(new).child("status");
    let before = Cursor::root(old).child("status");
    let mut known = 0;
    for (index, condition) in status.items("conditions").enumerate() {
        // The reference joins the index as a name.
        let at = |name: &str| {
            status
                .at("conditions")
                .child(&format!("[{index}]"))
                .child(name)
        };
        let kind = condition.text("type");
        if !TERMINAL.contains(&kind) {
            out.push(FieldError::not_supported(&at("type"), kind, &TERMINAL));
            continue;
        }
        known += 1;
        if known > 1 {
            out.push(FieldError::invalid(
                &at("type"),
                kind,
                "There may be at most one condition with type \"Issued\", \"Denied\", or \
                 \"Failed\"",
            ));
        }
        let said = condition.text("status");
        if said != "True" {
            out.push(FieldError::not_supported(&at("status"), said, &["True"]));
        }
    }
    conditions(&status, out);
    if !out.is_empty() {
        return;
    }
    let fixed = |detail: &str, out: &mut ErrorList| {
        let said = |of: &Cursor<'_>| of.value.as_object().filter(|of| !of.is_empty()).cloned();
        if said(&status) != said(&before) {
            out.push(FieldError::invalid_omitted(&status.path, detail));
        }
    };
    if TERMINAL.iter().any(|kind| is(old, kind)) {
        fixed(
            "immutable after PodCertificateRequest is issued, denied, or failed",
            out,
        );
    } else if is(new, "Denied") || is(new, "Failed") {
        let more = [
            "certificateChain",
            "notBefore",
            "notAfter",
            "beginRefreshAt",
        ];
        if more
            .iter()
            .any(|name| status.has(name) && status.raw(name) != "")
        {
            out.push(FieldError::invalid_omitted(
                &status.path,
                "non-condition status fields must be empty when denying or failing the \
                 PodCertificateRequest",
            ));
        }
    } else if is(new, "Issued") {
        let spec = Cursor::root(old).child("spec");
        if let Err(wrong) = issued(&status, &spec, now) {
            out.extend(wrong);
        }
    } else {
        fixed(
            "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"",
            out,
        );
    }
}

type Judged = Result<(), ErrorList>;

/// Checks a certificate that was issued against what was asked for.
fn issued(status: &Cursor<'_>, spec: &Cursor<'_>, now: Timestamp) -> Judged {
    let path = status.at("certificateChain");
    let chain = status.text("certificateChain");
    let refuse = |detail: &str| Err(vec![FieldError::invalid(&path, chain, detail)]);
    if chain.len() > CHAIN_MAX {
        return Err(vec![FieldError::too_long(&path, CHAIN_MAX)]);
    }
    let blocks = pem::blocks(chain);
    let Some((leaf, others)) = blocks.split_first() else {
        return refuse("issued certificate chain must contain at least one certificate");
    };
    if leaf.label != "CERTIFICATE" {
        return refuse("issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
    }
    let Ok(([], leaf)) = X509Certificate::from_der(&leaf.content) else {
        return refuse("leaf certificate does not parse as valid X.509");
    };
    let mut out = names_of(&leaf, status);
    let der = STANDARD
        .decode(spec.text("stubPKCS10Request"))
        .unwrap_or_default();
    let Ok((_, request)) = X509CertificationRequest::from_der(&der) else {
        out.push(FieldError::invalid_omitted(
            &spec.at("stubPKCS10Request"),
            "must be a valid PKCS#10 CSR",
        ));
        return Err(out);
    };
    if !keys::same(
        leaf.public_key(),
        &request.certification_request_info.subject_pki,
    ) {
        let detail = "leaf certificate was not issued to the requested public key";
        out.push(FieldError::invalid(&path, chain, detail));
        return Err(out);
    }
    for (name, detail) in [
        (
            "notBefore",
            "must be present and consistent with the issued certificate",
        ),
        (
            "notAfter",
            "must be present and consistent with the issued certificate",
        ),
        (
            "beginRefreshAt",
            "must be present and in the range [notbefore+10min, notafter-10min]",
        ),
    ] {
        if !status.has(name) {
            out.push(FieldError::required(&status.at(name), detail));
        }
    }
    if !out.is_empty() {
        return Err(out);
    }
    times(status, spec, &leaf, now)?;
    for other in others {
        if other.label != "CERTIFICATE" {
            // Spelled as the reference spells it.
            return refuse(
                "issued certificate chain must consist entirely of CERTFICATE PEM blocks",
            );
        }
        if !matches!(X509Certificate::from_der(&other.content), Ok(([], _))) {
            return refuse("intermediate certificate does not parse as valid X.509");
        }
    }
    Ok(())
}

/// What is wrong with the names that a certificate is for.
fn names_of(leaf: &X509Certificate<'_>, status: &Cursor<'_>) -> ErrorList {
    let mut out = ErrorList::new();
    let path = status.at("certificateChain");
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|it| &it.value.general_names);
    let mut refuse = |name: &str, detail: &str| out.push(FieldError::invalid(&path, name, detail));
    for name in names {
        match name {
            GeneralName::DNSName(name) => {
                if name.is_empty() {
                    refuse(name, "leaf certificate should not contain empty DNSName");
                }
                if name.contains("..") {
                    refuse(name, "leaf certificate's DNSName should not contain '..'");
                }
                if name.starts_with('.') || name.ends_with('.') {
                    refuse(
                        name,
                        "leaf certificate's DNSName should not start or end with '.'",
                    );
                }
            }
            GeneralName::RFC822Name(address) => {
                let good = address.rsplit_once('@').is_some_and(|(local, domain)| {
                    !local.is_empty()
                        && !domain.is_empty()
                        && !address.contains(char::is_whitespace)
                });
                if !good {
                    refuse(
                        address,
                        "leaf certificate should not contain invalid EmailAddress",
                    );
                }
            }
            _ => {}
        }
    }
    out
}

/// Checks when the certificate holds and is to be replaced.
fn times(
    status: &Cursor<'_>,
    spec: &Cursor<'_>,
    leaf: &X509Certificate<'_>,
    now: Timestamp,
) -> Judged {
    let refuse = |name: &str, detail: &str| {
        let said = status.text(name);
        Err(vec![FieldError::invalid(&status.at(name), said, detail)])
    };
    let said = |name: &str| status.text(name).parse::<Timestamp>().ok();
    let (not_before, not_after) = (said("notBefore"), said("notAfter"));
    let validity = leaf.validity();
    let seconds = |at: Option<Timestamp>| at.map(Timestamp::as_second);
    if seconds(not_before) != Some(validity.not_before.timestamp()) {
        return refuse(
            "notBefore",
            "must be set to the NotBefore time encoded in the leaf certificate",
        );
    }
    let from = not_before.unwrap_or_default();
    if from.duration_since(now).abs() >= SKEW {
        return refuse(
            "notBefore",
            "must be set to within 5 minutes of kube-apiserver's current time",
        );
    }
    if seconds(not_after) != Some(validity.not_after.timestamp()) {
        return refuse(
            "notAfter",
            "must be set to the NotAfter time encoded in the leaf certificate",
        );
    }
    let until = not_after.unwrap_or_default();
    let lifetime = until.duration_since(from);
    let too = |detail: &str| {
        let nanoseconds = i64::try_from(lifetime.as_nanos()).unwrap_or(i64::MAX);
        let path = status.at("certificateChain");
        Err(vec![FieldError::invalid(&path, nanoseconds, detail)])
    };
    if lifetime < LIFETIME_MIN {
        return too("leaf certificate lifetime must be >= 1 hour");
    }
    let most = spec.number("maxExpirationSeconds");
    if lifetime > SignedDuration::from_secs(most) {
        return too(&format!(
            "leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})"
        ));
    }
    let refresh = said("beginRefreshAt").unwrap_or_default();
    if refresh < from + MARGIN {
        return refuse(
            "beginRefreshAt",
            "must be at least 10 minutes after status.notBefore",
        );
    }
    if refresh > until - MARGIN {
        return refuse(
            "beginRefreshAt",
            "must be at least 10 minutes before status.notAfter",
        );
    }
    Ok(())
}
