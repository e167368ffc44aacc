//! Validation of projected volumes: what their sources say, and that no two write the same file.

use std::collections::BTreeSet;

use super::volumes::{downward_file, key_to_path, local_path, mode};
use crate::field::{ErrorList, FieldError};
use crate::kinds::certificates::{
    bundle_name, is_kubernetes_signer, validate_signer_name, validate_user_annotations,
};
use crate::validation::{self, Cursor, label_selector};

const KEY_TYPES: [&str; 6] = [
    "RSA3072",
    "RSA4096",
    "ECDSAP256",
    "ECDSAP384",
    "ECDSAP521",
    "ED25519",
];
const SECONDS_MIN: i64 = 3_600;
const SECONDS_MAX: i64 = 91 * 24 * 3_600;
const SECONDS_MAX_KUBERNETES: i64 = 24 * 3_600;

/// Checks a `projected` source.
pub(super) fn validate(source: &Cursor<'_>, out: &mut ErrorList) {
    mode(source, "defaultMode", out);
    let mut paths = BTreeSet::new();
    for projection in source.items("sources") {
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let Some(files) = projection.get(kind) else {
                continue;
            };
            count += 1;
            validation::required(&files, "name", out);
            for item in files.items("items") {
                key_to_path(&item, out);
                taken(&item, files.text("name"), source, &mut paths, out);
            }
        }
        if let Some(files) = projection.get("downwardAPI") {
            count += 1;
            for item in files.items("items") {
                downward_file(&Cursor::new(item.value, files.path.clone()), out);
                taken(&item, item.text("path"), source, &mut paths, out);
            }
        }
        if let Some(token) = projection.get("serviceAccountToken") {
            count += 1;
            service_account_token(source, &token, out);
        }
        if let Some(bundle) = projection.get("clusterTrustBundle") {
            count += 1;
            trust_bundle(&bundle, out);
            // Even a path that is missing is taken.
            if !paths.insert(bundle.text("path")) {
                out.push(FieldError::invalid(
                    &source.path,
                    bundle.text("path"),
                    "conflicting duplicate paths",
                ));
            }
        }
        if let Some(certificate) = projection.get("podCertificate") {
            count += 1;
            pod_certificate(source, &certificate, &mut paths, out);
        }
        if count > 1 {
            out.push(FieldError::forbidden(
                &projection.path,
                "may not specify more than 1 volume type per source",
            ));
        }
    }
}

fn taken<'a>(
    item: &Cursor<'a>,
    shown: &str,
    source: &Cursor<'_>,
    paths: &mut BTreeSet<&'a str>,
    out: &mut ErrorList,
) {
    let path = item.text("path");
    if !path.is_empty() && !paths.insert(path) {
        out.push(FieldError::invalid(
            &source.path,
            shown,
            "conflicting duplicate paths",
        ));
    }
}

fn service_account_token(source: &Cursor<'_>, token: &Cursor<'_>, out: &mut ErrorList) {
    let seconds = token.number("expirationSeconds");
    let wrong = if seconds < 600 {
        Some("may not specify a duration less than 10 minutes")
    } else if seconds > 1 << 32 {
        Some("may not specify a duration larger than 2^32 seconds")
    } else {
        None
    };
    if let Some(wrong) = wrong {
        out.push(FieldError::invalid(
            &token.at("expirationSeconds"),
            seconds,
            wrong,
        ));
    }
    // The reference names the volume's path here.
    if token.text("path").is_empty() {
        out.push(FieldError::required(&source.at("path"), ""));
    } else {
        local_path(token.text("path"), &source.at("path"), out);
    }
}

fn trust_bundle(bundle: &Cursor<'_>, out: &mut ErrorList) {
    match (bundle.has("name"), bundle.has("signerName")) {
        (true, true) => out.push(FieldError::invalid(
            &bundle.path,
            bundle.value.clone(),
            "only one of name and signerName may be used",
        )),
        (true, false) => named_bundle(bundle, out),
        (false, true) => {
            let (signer, path) = (bundle.text("signerName"), bundle.at("signerName"));
            if signer.is_empty() {
                out.push(FieldError::required(&path, "must be a valid signer name"));
            }
            validate_signer_name(signer, &path, out);
            label_selector(&bundle.child("labelSelector"), out);
        }
        (false, false) => out.push(FieldError::required(
            &bundle.path,
            "either name or signerName must be specified",
        )),
    }
    validation::required(bundle, "path", out);
    user(bundle, out);
    local_path(bundle.text("path"), &bundle.at("path"), out);
}

fn named_bundle(bundle: &Cursor<'_>, out: &mut ErrorList) {
    let (name, path) = (bundle.text("name"), bundle.at("name"));
    if name.is_empty() {
        out.push(FieldError::required(&path, "must be a valid object name"));
    }
    let signer = name
        .rsplit_once(':')
        .map(|(signer, _)| signer.replace(':', "/"));
    for wrong in bundle_name(&signer.unwrap_or_default(), name, false) {
        let wrong = format!("not a valid clustertrustbundlename: {wrong}");
        out.push(FieldError::invalid(&path, name, &wrong));
    }
    if let Some(selector) = bundle.get("labelSelector") {
        out.push(FieldError::invalid(
            &selector.path,
            selector.value.clone(),
            "labelSelector must be unset if name is specified",
        ));
    }
}

fn pod_certificate<'a>(
    source: &Cursor<'_>,
    certificate: &Cursor<'a>,
    paths: &mut BTreeSet<&'a str>,
    out: &mut ErrorList,
) {
    let signer = certificate.text("signerName");
    validate_signer_name(signer, &certificate.at("signerName"), out);
    validate_user_annotations(
        certificate.raw("userAnnotations"),
        &certificate.at("userAnnotations"),
        out,
    );
    user(certificate, out);
    let kind = certificate.text("keyType");
    if !KEY_TYPES.contains(&kind) {
        let path = certificate.at("keyType");
        out.push(FieldError::not_supported(&path, kind, &KEY_TYPES));
    }
    if let Some(seconds) = certificate.integer("maxExpirationSeconds") {
        let path = certificate.at("maxExpirationSeconds");
        if seconds < SECONDS_MIN {
            let wrong = format!("if provided, maxExpirationSeconds must be >= {SECONDS_MIN}");
            out.push(FieldError::invalid(&path, seconds, &wrong));
        }
        let most = if is_kubernetes_signer(signer) {
            SECONDS_MAX_KUBERNETES
        } else {
            SECONDS_MAX
        };
        if seconds > most {
            let wrong = format!("if provided, maxExpirationSeconds must be <= {most}");
            out.push(FieldError::invalid(&path, seconds, &wrong));
        }
    }
    let mut any = false;
    for name in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = certificate.text(name);
        if path.is_empty() {
            continue;
        }
        any = true;
        local_path(path, &certificate.at(name), out);
        if !paths.insert(path) {
            out.push(FieldError::invalid(
                &source.path,
                path,
                "conflicting duplicate paths",
            ));
        }
    }
    if !any {
        out.push(FieldError::required(
            &certificate.path,
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        ));
    }
}

fn user(source: &Cursor<'_>, out: &mut ErrorList) {
    if let Some(user) = source
        .integer("user")
        .filter(|user| !(0..=i64::from(i32::MAX)).contains(user))
    {
        let wrong = validation::text::inclusive_range(0, i64::from(i32::MAX));
        out.push(FieldError::invalid(&source.at("user"), user, &wrong));
    }
}
