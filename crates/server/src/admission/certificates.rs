//! Who may approve and sign certificate requests and vouch for signers, and for whom none is ever
//! signed.
//!
//! A signer is `DOMAIN/NAME`; the right to it is given on `signers` by its name, or by `DOMAIN/*`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_api::field::{FieldError, Path};
use evenkeel_api::row::Subresource;
use evenkeel_api::{Status, object};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

use super::{Change, Operation, Plugin};
use crate::auth::{Authorizer, Decision, MASTERS};
use crate::http::Attributes;
use crate::registry::Registry;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn is_of(change: &Change<'_>, kind: &str) -> bool {
    change.row.gvk.group == GROUP && change.row.gvk.kind == kind
}

fn concerns(change: &Change<'_>, subresource: Option<Subresource>, operation: Operation) -> bool {
    is_of(change, "CertificateSigningRequest")
        && change.subresource == subresource
        && change.operation == operation
}

/// May somebody do this for a signer, by its name or by its domain?
fn may(authorizer: &dyn Authorizer, change: &Change<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer.to_owned(), format!("{domain}/*")]
        .into_iter()
        .any(|name| {
            let attributes = Attributes {
                verb: verb.to_owned(),
                resource_request: true,
                group: GROUP.to_owned(),
                version: "*".to_owned(),
                resource: "signers".to_owned(),
                name,
                ..Attributes::default()
            };
            let decision = authorizer.authorize(change.identity, &attributes);
            matches!(decision, Decision::Allow(_))
        })
}

/// `CertificateApproval` and `CertificateSigning`: both ask who may do what for a signer. For the
/// requests of pods it is the strategy that asks in the reference, and so the answer is another one.
pub(super) struct Signers(pub(super) Arc<dyn Authorizer>);

impl Signers {
    fn of_pod(&self, change: &Change<'_>, old: &Value, object: &Value) -> Result<(), Status> {
        let signer = object::text(old, &["spec", "signerName"]);
        if change.subresource != Some(Subresource::Status)
            || old.get("status") == object.get("status")
            || may(&*self.0, change, "sign", signer)
        {
            return Ok(());
        }
        let user = &change.identity.user;
        let why = format!("User {user:?} is not permitted to \"sign\" for signer {signer:?}");
        let wrong = FieldError::forbidden(&Path::new("spec").child("signerName"), &why);
        let gvk = &change.row.gvk;
        Err(Status::invalid(
            &gvk.group,
            &gvk.kind,
            object::name(old),
            &[wrong],
        ))
    }
}

impl Plugin for Signers {
    fn validate(&self, _: &Registry, change: &Change<'_>, object: &Value) -> Result<(), Status> {
        let Some(old) = change.old else {
            return Ok(());
        };
        if is_of(change, "PodCertificateRequest") {
            return self.of_pod(change, old, object);
        }
        // What the signer was decides, not what the caller writes now.
        let signer = object::text(old, &["spec", "signerName"]);
        let (verb, does) = if concerns(change, Some(Subresource::Approval), Operation::Update) {
            ("approve", "approve")
        } else if concerns(change, Some(Subresource::Status), Operation::Update) {
            let part = |value: &'_ Value, name: &str| -> Option<Value> {
                object::at(value, &["status", name]).cloned()
            };
            let same = |name: &str| part(old, name) == part(object, name);
            if same("certificate") && same("conditions") {
                return Ok(());
            }
            ("sign", "sign")
        } else {
            return Ok(());
        };
        if may(&*self.0, change, verb, signer) {
            return Ok(());
        }
        let why = format!("user not permitted to {does} requests with signerName \"{signer}\"");
        Err(change.forbidden(object, &why))
    }
}

/// `ClusterTrustBundleAttest`: who may say which certificates vouch for a signer.
pub(super) struct Attest(pub(super) Arc<dyn Authorizer>);

impl Plugin for Attest {
    fn validate(&self, _: &Registry, change: &Change<'_>, object: &Value) -> Result<(), Status> {
        let written = matches!(change.operation, Operation::Create | Operation::Update);
        let signer = object::text(object, &["spec", "signerName"]);
        if !is_of(change, "ClusterTrustBundle") || !written || signer.is_empty() {
            return Ok(());
        }
        // Moving an object in the store and collecting garbage say nothing of the signer.
        let same = |old: &Value| only_owners_differ(object, old);
        if change.old.is_some_and(same) || may(&*self.0, change, "attest", signer) {
            return Ok(());
        }
        let why = format!("user not permitted to attest for signerName {signer:?}");
        Err(change.forbidden(object, &why))
    }
}

/// Are two objects the same but for what the garbage collector writes?
fn only_owners_differ(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        let metadata = object::metadata(&mut object);
        for name in ["ownerReferences", "finalizers", "managedFields"] {
            metadata.remove(name);
        }
        object
    };
    rest(new) == rest(old)
}

/// `CertificateSubjectRestriction`: nobody becomes a master by a certificate that was asked for.
pub(super) struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn validate(&self, _: &Registry, change: &Change<'_>, object: &Value) -> Result<(), Status> {
        if !concerns(change, None, Operation::Create)
            || object::text(object, &["spec", "signerName"]) != CLIENT_SIGNER
        {
            return Ok(());
        }
        let groups = organizations(object::text(object, &["spec", "request"]))
            .map_err(|why| change.forbidden(object, &format!("failed to parse CSR: {why}")))?;
        if groups.iter().any(|group| group == MASTERS) {
            let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
            return Err(change.forbidden(object, &why));
        }
        Ok(())
    }
}

/// The organizations of a certificate request, which is base64 of PEM.
fn organizations(request: &str) -> Result<Vec<String>, String> {
    const WRONG: &str = "PEM block type must be CERTIFICATE REQUEST";
    let pem = STANDARD.decode(request).map_err(|_| WRONG.to_owned())?;
    let (_, block) = parse_x509_pem(&pem).map_err(|_| WRONG.to_owned())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(WRONG.to_owned());
    }
    let (_, parsed) =
        X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
    let subject = &parsed.certification_request_info.subject;
    Ok(subject
        .iter_organization()
        .filter_map(|value| value.as_str().ok().map(str::to_owned))
        .collect())
}
