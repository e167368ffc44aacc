//! The addresses that services may have, and those that are taken.

use serde_json::Value;

use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::object;
use crate::row::Strategy;
use crate::validation::{self, Cursor};

/// What IP addresses do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct IpAddresses;

/// What service networks do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceCidrs;

/// What is wrong with a name that is to be an address in canonical form.
#[must_use]
pub fn ip_address_name(name: &str) -> Vec<String> {
    let mut wrong = ErrorList::new();
    validation::ip(name, &Path::root(), &mut wrong);
    // The rule answers details; the error shows the value itself.
    let shown = format!("Invalid value: {}: ", crate::field::quoted(name));
    wrong
        .iter()
        .map(|error| {
            error
                .body
                .strip_prefix(&shown)
                .unwrap_or(&error.body)
                .to_owned()
        })
        .collect()
}

impl Strategy for IpAddresses {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        let Some(parent) = spec.get("parentRef") else {
            out.push(FieldError::required(&spec.at("parentRef"), ""));
            return out;
        };
        if !parent.text("group").is_empty() {
            validation::dns_subdomain(parent.text("group"), &parent.at("group"), &mut out);
        }
        for name in ["resource", "name", "namespace"] {
            if !parent.text(name).is_empty() {
                validation::named(
                    names::path_segment,
                    parent.text(name),
                    &parent.at(name),
                    &mut out,
                );
            } else if name != "namespace" {
                out.push(FieldError::required(&parent.at(name), ""));
            }
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(new).child("spec");
        validation::immutable(
            at.raw("parentRef"),
            Cursor::root(old).child("spec").raw("parentRef"),
            &at.at("parentRef"),
            &mut out,
        );
        out
    }
}

impl Strategy for ServiceCidrs {
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
        cidrs(&Cursor::root(object).child("spec"), &mut out);
        out
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (spec, before) = (
            Cursor::root(new).child("spec"),
            Cursor::root(old).child("spec"),
        );
        let (now, then) = (spec.list("cidrs"), before.list("cidrs"));
        let path = spec.at("cidrs");
        // One network may be joined by one of the other family.
        let joined = then.len() == 1 && now.len() == 2;
        if now.len() != then.len() && !joined {
            let shown = spec.raw("cidrs").clone();
            out.push(FieldError::invalid(&path, shown, validation::IMMUTABLE));
            return out;
        }
        for (index, (now, then)) in now.iter().zip(then).enumerate() {
            if now != then {
                out.push(FieldError::invalid(
                    &path.index(index),
                    now.clone(),
                    validation::IMMUTABLE,
                ));
            }
        }
        if joined {
            cidrs(&spec, &mut out);
        }
        out
    }
}

fn cidrs(spec: &Cursor<'_>, out: &mut ErrorList) {
    let (path, list) = (spec.at("cidrs"), spec.list("cidrs"));
    if list.is_empty() {
        out.push(FieldError::required(&path, "at least one CIDR required"));
        return;
    }
    if list.len() > 2 {
        out.push(FieldError::invalid_shown(
            &path,
            &format!("{{\"CIDRs\":{}}}", spec.raw("cidrs")),
            "may only hold up to 2 values",
        ));
        return;
    }
    for item in spec.items("cidrs") {
        validation::cidr(item.value.as_str().unwrap_or_default(), &item.path, out);
    }
    let families: Vec<bool> = spec
        .texts("cidrs")
        .filter_map(|cidr| cidr.parse::<ipnet::IpNet>().ok())
        .map(|network| network.addr().is_ipv4())
        .collect();
    if let [one, other] = families[..]
        && one == other
    {
        out.push(FieldError::invalid(
            &path,
            spec.raw("cidrs").clone(),
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
             2001:db8::/64",
        ));
    }
}
