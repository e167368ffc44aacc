//! Ingresses and their classes.

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::object::{self, default_field, fields};
use crate::row::Strategy;
use crate::validation::{self, Cursor, is_new, legacy_ip, parse_ip_sloppy, text};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const CONTROLLER_MAX: usize = 250;
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];

/// What ingresses do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ingresses;

/// What ingress classes do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct IngressClasses;

impl Strategy for Ingresses {
    fn prepare_create(&self, object: &mut Value) {
        fields(object).insert("status".to_owned(), json!({"loadBalancer": {}}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        spec(&Cursor::root(object).child("spec"), &mut out);
        if is_new(object)
            && let Some(noted) = object::annotation(object, CLASS_ANNOTATION)
            && let Some(class) = object::at(object, &["spec", "ingressClassName"])
            && class != noted
        {
            out.push(FieldError::invalid(
                &Path::new("annotations").child(CLASS_ANNOTATION),
                noted,
                "must match `ingressClassName` when both are specified",
            ));
        }
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("status").child("loadBalancer");
        for ingress in at.items("ingress") {
            if !ingress.text("ip").is_empty() {
                legacy_ip(ingress.text("ip"), &ingress.at("ip"), &mut out);
            }
            let host = ingress.text("hostname");
            if !host.is_empty() {
                validation::dns_subdomain(host, &ingress.at("hostname"), &mut out);
                no_address(host, &ingress.at("hostname"), &mut out);
            }
        }
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let noted = object::annotation(new, CLASS_ANNOTATION).is_some();
        let named = object::at(new, &["spec", "ingressClassName"]).is_some();
        if old.is_none() && noted && !named {
            return vec![format!(
                "annotation \"{CLASS_ANNOTATION}\" is deprecated, please use \
                 'spec.ingressClassName' instead"
            )];
        }
        Vec::new()
    }

    fn status_warnings(&self, new: &Value) -> Vec<String> {
        validation::balancer_warnings(new)
    }
}

fn no_address(host: &str, path: &Path, out: &mut ErrorList) {
    if parse_ip_sloppy(host).is_some() {
        out.push(FieldError::invalid(
            path,
            host,
            "must be a DNS name, not an IP address",
        ));
    }
}

/// Checks a host that may be a wildcard.
fn host_name(host: &str, path: &Path, out: &mut ErrorList) {
    if host.contains('*') {
        validation::named(names::wildcard_dns1123_subdomain, host, path, out);
    } else {
        validation::dns_subdomain(host, path, out);
    }
}

fn spec(spec: &Cursor<'_>, out: &mut ErrorList) {
    if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
        // The reference shows the rules, of which there are none.
        let shown = if spec.has("rules") { "[]" } else { "null" };
        out.push(FieldError::invalid_shown(
            &spec.path,
            shown,
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if let Some(default) = spec.get("defaultBackend") {
        backend(&default, out);
    }
    for rule in spec.items("rules") {
        let host = rule.text("host");
        if !host.is_empty() {
            no_address(host, &rule.at("host"), out);
            host_name(host, &rule.at("host"), out);
        }
        if let Some(http) = rule.get("http") {
            if http.list("paths").is_empty() {
                out.push(FieldError::required(&http.at("paths"), ""));
            }
            http.items("paths").for_each(|path| http_path(&path, out));
        }
    }
    for tls in spec.items("tls") {
        for host in tls.items("hosts") {
            host_name(host.value.as_str().unwrap_or_default(), &host.path, out);
        }
        let secret = tls.text("secretName");
        if !secret.is_empty() {
            validation::dns_subdomain(secret, &tls.at("secretName"), out);
        }
    }
    if spec.has("ingressClassName") {
        validation::dns_subdomain(
            spec.text("ingressClassName"),
            &spec.at("ingressClassName"),
            out,
        );
    }
}

fn http_path(at: &Cursor<'_>, out: &mut ErrorList) {
    if !at.has("pathType") {
        out.push(FieldError::required(
            &at.at("pathType"),
            "pathType must be specified",
        ));
        return;
    }
    let path = at.text("path");
    let mut wrong = |detail: &str| out.push(FieldError::invalid(&at.at("path"), path, detail));
    match at.text("pathType") {
        "Exact" | "Prefix" => {
            if !path.starts_with('/') {
                wrong("must be an absolute path");
            }
            for part in BAD_PARTS.iter().filter(|part| path.contains(**part)) {
                wrong(&format!("must not contain '{part}'"));
            }
            for end in BAD_ENDS.iter().filter(|end| path.ends_with(**end)) {
                wrong(&format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !path.starts_with('/') {
                wrong("must be an absolute path");
            }
        }
        other => out.push(FieldError::not_supported(
            &at.at("pathType"),
            other,
            &PATH_TYPES,
        )),
    }
    backend(&at.child("backend"), out);
}

fn backend(at: &Cursor<'_>, out: &mut ErrorList) {
    match (at.get("resource"), at.get("service")) {
        (Some(_), Some(_)) => out.push(FieldError::invalid(
            &at.path,
            "",
            "cannot set both resource and service backends",
        )),
        (Some(resource), None) => reference(&resource, out),
        (None, Some(service)) => {
            service_backend(at, &service, out);
        }
        (None, None) => out.push(FieldError::invalid(
            &at.path,
            "",
            "resource or service backend is required",
        )),
    }
}

fn service_backend(at: &Cursor<'_>, service: &Cursor<'_>, out: &mut ErrorList) {
    let name = service.text("name");
    if name.is_empty() {
        out.push(FieldError::required(&service.at("name"), ""));
    } else {
        validation::named(names::dns1123_label, name, &service.at("name"), out);
    }
    let port = service.child("port");
    let (port_name, number) = (port.text("name"), port.number("number"));
    match (!port_name.is_empty(), number != 0) {
        (true, true) => out.push(FieldError::invalid(
            &at.path,
            "",
            "cannot set both port name & port number",
        )),
        (true, false) => validation::named(text::port_name, port_name, &port.at("name"), out),
        (false, true) => validation::port_number(number, &port.at("number"), out),
        (false, false) => out.push(FieldError::required(
            &at.path,
            "port name or number is required",
        )),
    }
}

/// Checks a reference to an object of any kind.
fn reference(at: &Cursor<'_>, out: &mut ErrorList) {
    if at.has("apiGroup") {
        validation::dns_subdomain(at.text("apiGroup"), &at.at("apiGroup"), out);
    }
    for name in ["kind", "name"] {
        if at.text(name).is_empty() {
            out.push(FieldError::required(&at.at(name), ""));
        } else {
            validation::named(names::path_segment, at.text(name), &at.at(name), out);
        }
    }
}

impl Strategy for IngressClasses {
    fn changes_first(&self) -> bool {
        true
    }

    fn defaults(&self, object: &mut Value) {
        let parameters = object
            .get_mut("spec")
            .and_then(|spec| spec.get_mut("parameters"))
            .filter(|parameters| parameters.is_object());
        if let Some(parameters) = parameters {
            default_field(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        let controller = spec.text("controller");
        if controller.len() > CONTROLLER_MAX {
            out.push(FieldError::too_long(&spec.at("controller"), CONTROLLER_MAX));
        }
        validation::domain_prefixed_path(controller, &spec.at("controller"), &mut out);
        if let Some(parameters) = spec.get("parameters") {
            reference(&parameters, &mut out);
            scope(&parameters, &mut out);
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("spec");
        validation::immutable_text(
            at.text("controller"),
            Cursor::root(old).child("spec").text("controller"),
            &at.at("controller"),
            &mut out,
        );
        out
    }
}

fn scope(at: &Cursor<'_>, out: &mut ErrorList) {
    let path = at.at("namespace");
    match at.text("scope") {
        "Cluster" => {
            if at.has("namespace") {
                out.push(FieldError::forbidden(
                    &path,
                    "`parameters.scope` is set to 'Cluster'",
                ));
            }
        }
        "Namespace" => match at.get("namespace") {
            None => out.push(FieldError::required(
                &path,
                "`parameters.scope` is set to 'Namespace'",
            )),
            Some(namespace) => {
                let name = namespace.value.as_str().unwrap_or_default();
                validation::dns_label(name, &path, out);
            }
        },
        other => out.push(FieldError::not_supported(
            &at.at("scope"),
            other,
            &["Cluster", "Namespace"],
        )),
    }
}
