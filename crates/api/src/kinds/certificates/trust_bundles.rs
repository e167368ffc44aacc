//! Bundles of trust: the certificates that vouch for what a signer signs, for everybody to read.
//!
//! A bundle of a signer carries the signer in its name, so that who may write one decides by it.

use serde_json::Value;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{pem, validate_signer_name};
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::row::Strategy;
use crate::validation::{Cursor, immutable, masked_prefix};

/// The longest bundle, in bytes.
const SIZE_MAX: usize = 1024 * 1024;
/// The reference shows this in place of a bundle.
const OMITTED: &str = "<value omitted>";

/// What bundles of trust do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClusterTrustBundles;

impl Strategy for ClusterTrustBundles {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        bundle(object, true, &mut out);
        out
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (spec, before) = (
            Cursor::root(new).child("spec"),
            Cursor::root(old).child("spec"),
        );
        // What has not changed is not read again: it was good when it came.
        let changed = spec.text("trustBundle") != before.text("trustBundle");
        bundle(new, changed, &mut out);
        immutable(
            &spec.text("signerName").into(),
            &before.text("signerName").into(),
            &spec.at("signerName"),
            &mut out,
        );
        out
    }
}

fn bundle(object: &Value, read: bool, out: &mut ErrorList) {
    let root = Cursor::root(object);
    let (meta, spec) = (root.child("metadata"), root.child("spec"));
    let signer = spec.text("signerName");
    let generate = meta.text("generateName");
    if !generate.is_empty() {
        for wrong in bundle_name(signer, generate, true) {
            out.push(FieldError::invalid(
                &meta.at("generateName"),
                generate,
                &wrong,
            ));
        }
    }
    let name = meta.text("name");
    for wrong in bundle_name(signer, name, false) {
        out.push(FieldError::invalid(&meta.at("name"), name, &wrong));
    }
    if !signer.is_empty() {
        validate_signer_name(signer, &spec.at("signerName"), out);
    }
    if read {
        anchors(spec.text("trustBundle"), &spec.at("trustBundle"), out);
    }
}

/// What is wrong with the name of a bundle of a signer, or of none. A `prefix` is the beginning of
/// a name that is to be generated.
#[must_use]
pub fn bundle_name(signer: &str, name: &str, prefix: bool) -> Vec<String> {
    let rest = if signer.is_empty() {
        if name.contains(':') {
            return vec![
                "ClusterTrustBundle without signer name must not have \":\" in its name".to_owned(),
            ];
        }
        name
    } else {
        let required = format!("{}:", signer.replace('/', ":"));
        match name.strip_prefix(&required) {
            Some(rest) => rest,
            None => {
                return vec![format!(
                    "ClusterTrustBundle for signerName {signer} must be named with prefix \
                     {required}"
                )];
            }
        }
    };
    if prefix {
        names::dns1123_subdomain(&masked_prefix(rest))
    } else {
        names::dns1123_subdomain(rest)
    }
}

/// Checks that a text holds certificates of authorities, each once, and nothing else.
fn anchors(text: &str, path: &Path, out: &mut ErrorList) {
    if text.len() > SIZE_MAX {
        out.push(FieldError::too_long(path, SIZE_MAX));
        return;
    }
    let before = out.len();
    let blocks = pem::blocks(text);
    for (entry, block) in blocks.iter().enumerate() {
        let wrong = if block.label != "CERTIFICATE" {
            format!("entry {entry} has bad block type: {}", block.label)
        } else if block.has_headers {
            format!("entry {entry} has PEM block headers")
        } else {
            match X509Certificate::from_der(&block.content) {
                Ok(([], certificate)) if certificate.is_ca() => continue,
                Ok(([], _)) => format!("entry {entry} does not have the CA bit set"),
                _ => format!("entry {entry} does not parse as X.509"),
            }
        };
        out.push(FieldError::invalid(path, OMITTED, &wrong));
    }
    if out.len() > before {
        return;
    }
    if blocks.is_empty() {
        let wrong = "at least one trust anchor must be provided";
        out.push(FieldError::invalid(path, OMITTED, wrong));
    }
    for (first, block) in blocks.iter().enumerate() {
        let same = |at: &usize| blocks[*at].content == block.content;
        if (0..first).any(|earlier| same(&earlier)) {
            continue;
        }
        let entries: Vec<String> = (first..blocks.len())
            .filter(same)
            .map(|entry| entry.to_string())
            .collect();
        if entries.len() > 1 {
            let wrong = format!("duplicate trust anchor (indices [{}])", entries.join(" "));
            out.push(FieldError::invalid(path, OMITTED, &wrong));
        }
    }
}
