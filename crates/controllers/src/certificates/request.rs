//! What a certificate request asks for, and the reference's rules for those of node agents
//! (`pkg/apis/certificates/helpers.go`). Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

/// Signer of certificates with which clients come to the API server.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signer of those of node agents.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signer of those that node agents serve with.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// The group of node agents.
pub const NODES: &str = "system:nodes";
/// Before the name of a node in that of its agent's user.
pub const NODE_USER: &str = "system:node:";

/// What stands in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Common name.
    pub common_name: String,
    /// Organizations.
    pub organizations: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Are there e-mail addresses?
    pub emails: bool,
    /// Are there URIs?
    pub uris: bool,
    /// Is there any other kind of name?
    pub others: bool,
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Reads a request in PEM.
///
/// # Errors
/// It is none.
pub fn read(pem: &[u8]) -> Result<Asked, String> {
    const WRONG: &str = "PEM block type must be CERTIFICATE REQUEST";
    let (_, block) = parse_x509_pem(pem).map_err(|_| WRONG.to_owned())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(WRONG.to_owned());
    }
    let (_, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
    let subject = &request.certification_request_info.subject;
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value
            .as_str()
            .map(str::to_owned)
            .map_err(|error| error.to_string())
    };
    let mut asked = Asked {
        // The last one counts, as it does for whoever reads the certificate.
        common_name: subject
            .iter_common_name()
            .last()
            .map_or(Ok(String::new()), text)?,
        organizations: subject
            .iter_organization()
            .map(text)
            .collect::<Result<_, _>>()?,
        ..Asked::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => asked.dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(address) => asked.addresses.push(address),
                    None => asked.others = true,
                },
                GeneralName::RFC822Name(_) => asked.emails = true,
                GeneralName::URI(_) => asked.uris = true,
                _ => asked.others = true,
            }
        }
    }
    Ok(asked)
}

fn exactly(usages: &[String], wanted: &str) -> Result<(), String> {
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let required = BTreeSet::from(["digital signature", "key encipherment", wanted]);
    // Key encipherment is of use with RSA keys only.
    let without = BTreeSet::from(["digital signature", wanted]);
    if usages == required || usages == without {
        return Ok(());
    }
    let list: Vec<&str> = required.into_iter().collect();
    Err(format!("usages did not match [{}]", list.join(" ")))
}

/// Is it a request of a node agent's for a client certificate?
///
/// # Errors
/// Why it is none.
pub fn kubelet_client(asked: &Asked, usages: &[String]) -> Result<(), String> {
    let wrong = if asked.organizations != [NODES] {
        "subject organization is not system:nodes"
    } else if !asked.dns.is_empty() {
        "DNS subjectAltNames are not allowed"
    } else if asked.emails {
        "Email subjectAltNames are not allowed"
    } else if !asked.addresses.is_empty() {
        "IP subjectAltNames are not allowed"
    } else if asked.uris {
        "URI subjectAltNames are not allowed"
    } else if !asked.common_name.starts_with(NODE_USER) {
        "subject common name does not begin with system:node:"
    } else {
        return exactly(usages, "client auth");
    };
    Err(wrong.to_owned())
}

/// Is it a request of a node agent's for a serving certificate?
///
/// # Errors
/// Why it is none.
pub fn kubelet_serving(asked: &Asked, usages: &[String]) -> Result<(), String> {
    let wrong = if asked.organizations != [NODES] {
        "subject organization is not system:nodes"
    } else if asked.dns.is_empty() && asked.addresses.is_empty() {
        "DNS or IP subjectAltName is required"
    } else if asked.emails {
        "Email subjectAltNames are not allowed"
    } else if asked.uris {
        "URI subjectAltNames are not allowed"
    } else {
        exactly(usages, "server auth")?;
        if asked.common_name.starts_with(NODE_USER) {
            return Ok(());
        }
        "subject common name does not begin with system:node:"
    };
    Err(wrong.to_owned())
}

/// Is it a request for a client's certificate?
///
/// # Errors
/// Why it is none.
pub fn client(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(usage) = usages
        .iter()
        .find(|usage| !allowed.contains(&usage.as_str()))
    {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    if usages.iter().any(|usage| usage == "client auth") {
        return Ok(());
    }
    Err("missing required usage for client certificate: client auth".to_owned())
}

/// The usages of a request object.
#[must_use]
pub fn usages(request: &CertificateSigningRequest) -> &[String] {
    request.spec.usages.as_deref().unwrap_or_default()
}

/// Has it a condition of this type?
#[must_use]
pub fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let status = request.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|it| it.type_ == kind && it.status == "True")
}

/// Has it been answered with a certificate?
#[must_use]
pub fn is_issued(request: &CertificateSigningRequest) -> bool {
    let certificate = request
        .status
        .as_ref()
        .and_then(|it| it.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}
