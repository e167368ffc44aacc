//! Validation of what says where a pod may run: selectors, affinity, tolerations, spreading.

use super::label_keys;
use crate::field::{ErrorList, FieldError};
use crate::names;
use crate::validation::{self, Cursor, label_name, label_selector};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks `spec.affinity`.
pub(super) fn affinity(spec: &Cursor<'_>, out: &mut ErrorList) {
    let at = spec.child("affinity");
    let node = at.child("nodeAffinity");
    if let Some(required) = node.get("requiredDuringSchedulingIgnoredDuringExecution") {
        node_selector(&required, out);
    }
    for term in node.items("preferredDuringSchedulingIgnoredDuringExecution") {
        weight(&term, out);
        // Values that can't be labels are tolerated in preferences.
        node_selector_term(&term.child("preference"), false, out);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let at = at.child(name);
        for term in at.items("requiredDuringSchedulingIgnoredDuringExecution") {
            pod_affinity_term(&term, out);
        }
        for weighted in at.items("preferredDuringSchedulingIgnoredDuringExecution") {
            weight(&weighted, out);
            pod_affinity_term(&weighted.child("podAffinityTerm"), out);
        }
    }
}

fn weight(at: &Cursor<'_>, out: &mut ErrorList) {
    let weight = at.number("weight");
    if !(1..=100).contains(&weight) {
        out.push(FieldError::invalid(
            &at.at("weight"),
            weight,
            "must be in the range 1-100",
        ));
    }
}

/// Checks a `NodeSelector`.
pub(crate) fn node_selector(at: &Cursor<'_>, out: &mut ErrorList) {
    if at.list("nodeSelectorTerms").is_empty() {
        out.push(FieldError::required(
            &at.at("nodeSelectorTerms"),
            "must have at least one node selector term",
        ));
    }
    for term in at.items("nodeSelectorTerms") {
        node_selector_term(&term, true, out);
    }
}

fn node_selector_term(term: &Cursor<'_>, check_values: bool, out: &mut ErrorList) {
    for requirement in term.items("matchExpressions") {
        let count = requirement.list("values").len();
        let values = requirement.at("values");
        match requirement.text("operator") {
            "In" | "NotIn" if count == 0 => out.push(FieldError::required(
                &values,
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if count > 0 => out.push(FieldError::forbidden(
                &values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Gt" | "Lt" if count != 1 => out.push(FieldError::required(
                &values,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => bad_operator(&requirement, other, out),
        }
        label_name(requirement.text("key"), &requirement.at("key"), out);
        for value in requirement.items("values").filter(|_| check_values) {
            let text = value.value.as_str().unwrap_or_default();
            validation::named(names::label_value, text, &value.path, out);
        }
    }
    for requirement in term.items("matchFields") {
        match requirement.text("operator") {
            "In" | "NotIn" => {
                if requirement.list("values").len() != 1 {
                    out.push(FieldError::required(
                        &requirement.at("values"),
                        "must be only one value when `operator` is 'In' or 'NotIn' for node \
                         field selector",
                    ));
                }
            }
            other => bad_operator(&requirement, other, out),
        }
        if requirement.text("key") == "metadata.name" {
            for value in requirement.items("values") {
                let text = value.value.as_str().unwrap_or_default();
                validation::dns_subdomain(text, &value.path, out);
            }
        } else {
            out.push(FieldError::invalid(
                &requirement.at("key"),
                requirement.text("key"),
                "not a valid field selector key",
            ));
        }
    }
}

fn bad_operator(at: &Cursor<'_>, operator: &str, out: &mut ErrorList) {
    out.push(FieldError::invalid(
        &at.at("operator"),
        operator,
        "not a valid selector operator",
    ));
}

fn pod_affinity_term(term: &Cursor<'_>, out: &mut ErrorList) {
    label_selector(&term.child("labelSelector"), out);
    label_selector(&term.child("namespaceSelector"), out);
    for namespace in term.texts("namespaces") {
        validation::dns_label(namespace, &term.at("namespace"), out);
    }
    label_keys::validate(term, out);
    if term.text("topologyKey").is_empty() {
        out.push(FieldError::required(
            &term.at("topologyKey"),
            "can not be empty",
        ));
    }
    label_name(term.text("topologyKey"), &term.at("topologyKey"), out);
}

/// Checks an effect of a taint or toleration.
pub(crate) fn effect(at: &Cursor<'_>, may_be_empty: bool, out: &mut ErrorList) {
    match at.text("effect") {
        "" if may_be_empty => {}
        "" => out.push(FieldError::required(&at.at("effect"), "")),
        _ => validation::one_of(at, "effect", &EFFECTS, out),
    }
}

/// Checks `spec.tolerations`, or those of a runtime class.
pub(crate) fn tolerations(spec: &Cursor<'_>, out: &mut ErrorList) {
    for at in spec.items("tolerations") {
        let (key, operator, value) = (at.text("key"), at.text("operator"), at.text("value"));
        if !key.is_empty() {
            label_name(key, &at.at("key"), out);
        }
        if key.is_empty() && operator != "Exists" {
            out.push(FieldError::invalid(
                &at.at("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values \
                 and all keys\"",
            ));
        }
        if at.has("tolerationSeconds") && at.text("effect") != "NoExecute" {
            out.push(FieldError::invalid(
                &at.at("effect"),
                at.text("effect"),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        match operator {
            "" | "Equal" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    out.push(FieldError::invalid(
                        &at.at("operator"),
                        value,
                        &wrong.join(";"),
                    ));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    out.push(FieldError::invalid(
                        &at.at("operator"),
                        value,
                        "value must be empty when `operator` is 'Exists'",
                    ));
                }
            }
            // The reference lists the last two also while their feature is off, and refuses them.
            other => out.push(FieldError::not_supported(
                &at.at("operator"),
                other,
                &["Equal", "Exists", "Lt", "Gt"],
            )),
        }
        effect(&at, true, out);
    }
}

/// Checks `spec.topologySpreadConstraints`.
pub(super) fn spread(spec: &Cursor<'_>, out: &mut ErrorList) {
    let all: Vec<Cursor<'_>> = spec.items("topologySpreadConstraints").collect();
    for (index, at) in all.iter().enumerate() {
        let mut positive = |name: &str, value: i64| {
            if value <= 0 {
                out.push(FieldError::invalid(
                    &at.at(name),
                    value,
                    "must be greater than zero",
                ));
            }
        };
        positive("maxSkew", at.number("maxSkew"));
        if at.text("topologyKey").is_empty() {
            out.push(FieldError::required(
                &at.at("topologyKey"),
                "can not be empty",
            ));
        }
        let action = at.text("whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            out.push(FieldError::not_supported(
                &at.at("whenUnsatisfiable"),
                action,
                &["DoNotSchedule", "ScheduleAnyway"],
            ));
        }
        let pair = |at: &Cursor<'_>| {
            (
                at.raw("topologyKey").clone(),
                at.raw("whenUnsatisfiable").clone(),
            )
        };
        if all[index + 1..].iter().any(|other| pair(other) == pair(at)) {
            out.push(FieldError::duplicate(
                &at.at("{topologyKey, whenUnsatisfiable}"),
                format!("{{{}, {action}}}", at.text("topologyKey")),
            ));
        }
        if let Some(domains) = at.integer("minDomains") {
            let path = at.at("minDomains");
            if domains <= 0 {
                out.push(FieldError::invalid(
                    &path,
                    domains,
                    "must be greater than zero",
                ));
            }
            if action != "DoNotSchedule" {
                out.push(FieldError::invalid(
                    &path,
                    domains,
                    &format!(
                        "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                    ),
                ));
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            validation::one_of(at, name, &["Honor", "Ignore"], out);
        }
        label_keys::validate(at, out);
        label_selector(&at.child("labelSelector"), out);
    }
}
