//! Resource quotas of the core group.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod;
use crate::field::{ErrorList, FieldError, Path};
use crate::object::{self, child};
use crate::quantity::Quantity;
use crate::row::Strategy;
use crate::validation::{Cursor, IMMUTABLE};

/// The resources that quotas know by a plain name.
const STANDARD: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const POD_RESOURCES: [&str; 7] = [
    "pods",
    "cpu",
    "memory",
    "limits.cpu",
    "limits.memory",
    "requests.cpu",
    "requests.memory",
];
const OPPOSITES: [(&str, &str); 2] = [
    ("BestEffort", "NotBestEffort"),
    ("Terminating", "NotTerminating"),
];

/// What resource quotas do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceQuotas;

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || is_huge(name)
}

/// Pages of a size count like any other resource.
fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

fn is_scope(name: &str) -> bool {
    matches!(
        name,
        "Terminating"
            | "NotTerminating"
            | "BestEffort"
            | "NotBestEffort"
            | "PriorityClass"
            | "VolumeAttributesClass"
            | "CrossNamespacePodAffinity"
    )
}

/// Does a scope make sense for a resource?
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => POD_RESOURCES.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => true,
    }
}

fn amounts(at: &Cursor<'_>, list: &str, out: &mut ErrorList) {
    for (name, value) in at.entries(list) {
        let path = at.at(list).key(name);
        pod::resource_name(name, &path, out);
        if !name.contains('/') && !is_standard(name) {
            out.push(FieldError::invalid(
                &path,
                name.as_str(),
                "must be a standard resource for quota",
            ));
        }
        if let Some(amount) = value
            .as_str()
            .and_then(|text| text.parse::<Quantity>().ok())
        {
            pod::validate_amount(name, &amount, &path, out);
        }
    }
}

fn conflicting(found: &BTreeSet<&str>, path: &Path, shown: &Value, out: &mut ErrorList) {
    for (one, other) in OPPOSITES {
        if found.contains(one) && found.contains(other) {
            out.push(FieldError::invalid(
                path,
                shown.clone(),
                "conflicting scopes",
            ));
        }
    }
}

fn scopes(spec: &Cursor<'_>, out: &mut ErrorList) {
    let path = spec.at("scopes");
    let shown = spec.raw("scopes");
    let mut found = BTreeSet::new();
    for scope in spec.texts("scopes") {
        if !is_scope(scope) {
            out.push(FieldError::invalid(
                &path,
                shown.clone(),
                "unsupported scope",
            ));
        }
        misfits(spec, scope, &path, shown, out);
        found.insert(scope);
    }
    conflicting(&found, &path, shown, out);
}

fn misfits(spec: &Cursor<'_>, scope: &str, path: &Path, shown: &Value, out: &mut ErrorList) {
    for (resource, _) in spec.entries("hard") {
        if is_standard(resource) && !fits(scope, resource) {
            out.push(FieldError::invalid(
                path,
                shown.clone(),
                "unsupported scope applied to resource",
            ));
        }
    }
}

fn scope_selector(spec: &Cursor<'_>, out: &mut ErrorList) {
    let Some(selector) = spec.get("scopeSelector") else {
        return;
    };
    // The reference names no index here.
    let path = selector.at("matchExpressions");
    let mut found = BTreeSet::new();
    for expression in selector.items("matchExpressions") {
        let scope = expression.text("scopeName");
        if !is_scope(scope) {
            out.push(FieldError::invalid(
                &path.child("scopeName"),
                scope,
                "unsupported scope",
            ));
        }
        misfits(spec, scope, &path, selector.value, out);
        let operator = expression.text("operator");
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
            && is_scope(scope)
            && operator != "Exists"
        {
            out.push(FieldError::invalid(
                &path.child("operator"),
                operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                 ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                 ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            ));
        }
        let values = expression.list("values").len();
        match operator {
            "In" | "NotIn" if values == 0 => out.push(FieldError::required(
                &path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            "Exists" | "DoesNotExist" if values > 0 => out.push(FieldError::invalid(
                &path.child("values"),
                expression.raw("values").clone(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => out.push(FieldError::invalid(
                &path.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        found.insert(scope);
    }
    conflicting(&found, &path, spec.raw("scopes"), out);
}

impl Strategy for ResourceQuotas {
    fn defaults(&self, object: &mut Value) {
        pod::round_up(child(object, "spec"), "hard");
        if let Some(status) = object.get_mut("status") {
            pod::round_up(status, "hard");
            pod::round_up(status, "used");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        amounts(&spec, "hard", &mut out);
        scopes(&spec, &mut out);
        scope_selector(&spec, &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (spec, before) = (
            Cursor::root(new).child("spec"),
            Cursor::root(old).child("spec"),
        );
        let set = |spec: &Cursor<'_>| -> BTreeSet<String> {
            spec.texts("scopes").map(str::to_owned).collect()
        };
        if set(&spec) != set(&before) {
            out.push(FieldError::invalid(
                &spec.at("scopes"),
                spec.raw("scopes").clone(),
                IMMUTABLE,
            ));
        }
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let status = Cursor::root(new).child("status");
        amounts(&status, "hard", &mut out);
        amounts(&status, "used", &mut out);
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        if old.is_some() {
            return out;
        }
        let hard = Cursor::root(new).child("spec").child("hard");
        let read = |name: &str| hard.text(name).parse::<Quantity>().ok();
        for resource in ["cpu", "memory", "ephemeral-storage"] {
            let mut name = format!("requests.{resource}");
            let mut request = read(&name);
            if request.is_none() && resource != "ephemeral-storage" {
                request = read(resource);
                resource.clone_into(&mut name);
            }
            let limit_name = format!("limits.{resource}");
            if let (Some(request), Some(limit)) = (request, read(&limit_name))
                && request > limit
            {
                out.push(format!(
                    "ResourceQuota {name} ({request}) should be less than {limit_name} ({limit})"
                ));
            }
        }
        out
    }
}
