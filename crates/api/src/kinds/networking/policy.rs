//! Network policies.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::field::{ErrorList, FieldError};
use crate::object::{child, default_field, fields, list_mut};
use crate::row::Strategy;
use crate::validation::{self, Cursor, cidr_warning, label_selector, legacy_cidr, text};

const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const TYPES: [&str; 2] = ["Ingress", "Egress"];

/// What network policies do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        child(spec, "podSelector");
        for (rules, _) in DIRECTIONS {
            for rule in list_mut(spec, rules) {
                for port in list_mut(rule, "ports") {
                    default_field(port, "protocol", "TCP");
                }
            }
        }
        let any = |spec: &Value, name: &str| {
            spec.get(name)
                .and_then(Value::as_array)
                .is_some_and(|list| !list.is_empty())
        };
        if !any(spec, "policyTypes") {
            let types: &[&str] = if any(spec, "egress") {
                &TYPES
            } else {
                &TYPES[..1]
            };
            fields(spec).insert("policyTypes".to_owned(), types.into());
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        policy(object, &BTreeSet::new())
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        policy(new, &networks(old))
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let spec = Cursor::root(new).child("spec");
        let mut out = Vec::new();
        for (rules, peers) in DIRECTIONS {
            for peer in spec.items(rules).flat_map(|rule| rule.items(peers)) {
                let block = peer.child("ipBlock");
                out.extend(cidr_warning(block.text("cidr"), &block.at("cidr")));
                for except in block.items("except") {
                    let text = except.value.as_str().unwrap_or_default();
                    out.extend(cidr_warning(text, &except.path));
                }
            }
        }
        out
    }
}

/// All networks that a policy names: what is there already may stay, however it is spelt.
fn networks(policy: &Value) -> BTreeSet<&str> {
    let spec = Cursor::root(policy).child("spec");
    let mut all = BTreeSet::new();
    for (rules, peers) in DIRECTIONS {
        for peer in spec.items(rules).flat_map(|rule| rule.items(peers)) {
            let Some(block) = peer.get("ipBlock") else {
                continue;
            };
            all.insert(block.text("cidr"));
            all.extend(block.texts("except"));
        }
    }
    all
}

fn policy(object: &Value, known: &BTreeSet<&str>) -> ErrorList {
    let mut out = ErrorList::new();
    let spec = Cursor::root(object).child("spec");
    label_selector(&spec.child("podSelector"), &mut out);
    for (rules, peers) in DIRECTIONS {
        for rule in spec.items(rules) {
            rule.items("ports")
                .for_each(|port| self::port(&port, &mut out));
            rule.items(peers)
                .for_each(|peer| self::peer(&peer, known, &mut out));
        }
    }
    if spec.list("policyTypes").len() > TYPES.len() {
        out.push(FieldError::invalid(
            &spec.at("policyTypes"),
            spec.raw("policyTypes").clone(),
            "may not specify more than two policyTypes",
        ));
        return out;
    }
    for kind in spec.items("policyTypes") {
        let name = kind.value.as_str().unwrap_or_default();
        if !TYPES.contains(&name) {
            out.push(FieldError::not_supported(&kind.path, name, &TYPES));
        }
    }
    out
}

fn port(at: &Cursor<'_>, out: &mut ErrorList) {
    validation::one_of(at, "protocol", &PROTOCOLS, out);
    let end = at.integer("endPort");
    let mut wrong_end = |detail: &str| {
        if let Some(end) = end {
            out.push(FieldError::invalid(&at.at("endPort"), end, detail));
        }
    };
    match at.raw("port") {
        Value::Null => wrong_end("may not be specified when `port` is not specified"),
        Value::String(name) => {
            wrong_end("may not be specified when `port` is non-numeric");
            validation::named(text::port_name, name, &at.at("port"), out);
        }
        other => {
            let number = other.as_i64().unwrap_or_default();
            validation::port_number(number, &at.at("port"), out);
            if end.is_some_and(|end| end < number) {
                let detail = "must be greater than or equal to `port`";
                out.push(FieldError::invalid(&at.at("endPort"), end, detail));
            }
            if let Some(end) = end {
                validation::port_number(end, &at.at("endPort"), out);
            }
        }
    }
}

fn peer(at: &Cursor<'_>, known: &BTreeSet<&str>, out: &mut ErrorList) {
    let mut selectors = 0;
    for name in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = at.get(name) {
            selectors += 1;
            label_selector(&selector, out);
        }
    }
    if let Some(block) = at.get("ipBlock") {
        ip_block(&block, known, out);
        if selectors > 0 {
            out.push(FieldError::forbidden(
                &at.path,
                "may not specify both ipBlock and another peer",
            ));
        }
    } else if selectors == 0 {
        out.push(FieldError::required(&at.path, "must specify a peer"));
    }
}

fn ip_block(at: &Cursor<'_>, known: &BTreeSet<&str>, out: &mut ErrorList) {
    let cidr = at.text("cidr");
    if cidr.is_empty() {
        out.push(FieldError::required(&at.at("cidr"), "").declared());
        return;
    }
    if !known.contains(cidr) {
        legacy_cidr(cidr, &at.at("cidr"), out);
    }
    let Ok(whole) = cidr.parse::<ipnet::IpNet>() else {
        return;
    };
    for except in at.items("except") {
        let part = except.value.as_str().unwrap_or_default();
        if !known.contains(part) {
            legacy_cidr(part, &except.path, out);
        }
        let Ok(part_of) = part.parse::<ipnet::IpNet>() else {
            continue;
        };
        let inside = whole.contains(&part_of.addr()) && whole.prefix_len() < part_of.prefix_len();
        if !inside {
            out.push(FieldError::invalid(
                &except.path,
                part,
                "must be a strict subset of `cidr`",
            ));
        }
    }
}
