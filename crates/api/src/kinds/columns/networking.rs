//! Columns of ingresses, network policies and addresses.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{BALANCER_WIDTH, STRING};
use crate::kinds::table::{age, column, name, or_none, selector_text};
use crate::object::{annotation, at, list, text};
use crate::row::{Cell, Column};

const HOSTS_SHOWN: usize = 3;

pub(in crate::kinds) fn ingress() -> Vec<Column> {
    vec![
        column(
            "Class",
            STRING,
            Cell::Of(|object| match at(object, &["spec", "ingressClassName"]) {
                Some(Value::String(class)) => class.as_str().into(),
                _ => "<none>".into(),
            }),
            "The class whose controller acts upon the ingress.",
        ),
        column(
            "Hosts",
            STRING,
            Cell::Of(hosts),
            "Hosts that requests are matched against.",
        ),
        column(
            "Address",
            STRING,
            Cell::Of(address),
            "Where the load balancer takes requests.",
        ),
        column(
            "Ports",
            STRING,
            Cell::Of(|object| {
                if list(object, &["spec", "tls"]).is_empty() {
                    "80".into()
                } else {
                    "80, 443".into()
                }
            }),
            "Ports that are open.",
        ),
        age(),
    ]
}

fn hosts(ingress: &Value) -> Value {
    let rules = list(ingress, &["spec", "rules"]);
    let (mut shown, mut more) = (Vec::new(), false);
    for rule in rules {
        more |= shown.len() == HOSTS_SHOWN;
        let host = text(rule, &["host"]);
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".into(),
        (false, true) => format!(
            "{} + {} more...",
            shown.join(","),
            rules.len() - HOSTS_SHOWN
        )
        .into(),
        (false, false) => shown.join(",").into(),
    }
}

fn address(ingress: &Value) -> Value {
    let addresses: BTreeSet<&str> = list(ingress, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|point| match text(point, &["ip"]) {
            "" => text(point, &["hostname"]),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    let mut all = addresses.into_iter().collect::<Vec<_>>().join(",");
    if all.len() > BALANCER_WIDTH {
        all = format!("{}...", &all[..BALANCER_WIDTH - 3]);
    }
    all.into()
}

pub(in crate::kinds) fn ingress_class() -> Vec<Column> {
    vec![
        Column {
            cell: Cell::Of(|object| {
                let plain = crate::object::name(object);
                let default = annotation(object, "ingressclass.kubernetes.io/is-default-class");
                if default == Some("true") {
                    format!("{plain} (default)").into()
                } else {
                    plain.into()
                }
            }),
            ..name()
        },
        column(
            "Controller",
            STRING,
            Cell::Of(|object| text(object, &["spec", "controller"]).into()),
            "Controller that is responsible for handling this class",
        ),
        column(
            "Parameters",
            STRING,
            Cell::Of(|object| match at(object, &["spec", "parameters"]) {
                Some(parameters) => {
                    let (kind, group) =
                        (text(parameters, &["kind"]), text(parameters, &["apiGroup"]));
                    let name = text(parameters, &["name"]);
                    if at(parameters, &["apiGroup"]).is_some() {
                        format!("{kind}.{group}/{name}").into()
                    } else {
                        format!("{kind}/{name}").into()
                    }
                }
                None => "<none>".into(),
            }),
            "A reference to a resource with additional parameters",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn network_policy() -> Vec<Column> {
    vec![
        column(
            "Pod-Selector",
            STRING,
            Cell::Of(|object| {
                selector_text(at(object, &["spec", "podSelector"]).unwrap_or(&Value::Null))
            }),
            "The pods that the policy is about.",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn service_cidr() -> Vec<Column> {
    vec![
        column(
            "CIDRs",
            STRING,
            Cell::Of(|object| {
                let cidrs: Vec<&str> = list(object, &["spec", "cidrs"])
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                cidrs.join(",").into()
            }),
            "The networks that services get addresses from.",
        ),
        age(),
    ]
}

pub(in crate::kinds) fn ip_address() -> Vec<Column> {
    vec![
        column(
            "ParentRef",
            STRING,
            Cell::Of(|object| {
                let Some(parent) = at(object, &["spec", "parentRef"]) else {
                    return "<none>".into();
                };
                let mut shown = text(parent, &["resource"]).to_owned();
                let group = text(parent, &["group"]);
                if !group.is_empty() {
                    shown = format!("{shown}.{group}");
                }
                shown = shown.to_lowercase();
                for part in [text(parent, &["namespace"]), text(parent, &["name"])] {
                    if !part.is_empty() {
                        shown = format!("{shown}/{part}");
                    }
                }
                or_none(&shown)
            }),
            "What has the address.",
        ),
        age(),
    ]
}
