//! Validation of resource requests and limits.

use std::collections::BTreeSet;

use super::level;
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::quantity::Quantity;
use crate::validation::{self, Cursor, NEGATIVE};

const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Is this a resource that plugins bring?
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// May the sum of limits exceed what a node has?
pub(crate) fn overcommits(name: &str) -> bool {
    is_native(name) && !is_huge(name)
}

/// Checks the name of a resource; answers whether it is good.
pub(crate) fn resource_name(name: &str, path: &Path, out: &mut ErrorList) -> bool {
    let before = out.len();
    validation::qualified_name(name, path, out);
    if out.len() == before && !name.contains('/') && !STANDARD.contains(&name) && !is_huge(name) {
        out.push(FieldError::invalid(
            path,
            name,
            "must be a standard resource type or fully qualified",
        ));
    }
    out.len() == before
}

/// Checks the name of a resource that containers have.
pub(crate) fn container_resource_name(name: &str, path: &Path, out: &mut ErrorList) {
    resource_name(name, path, out);
    let slashes = name.matches('/').count();
    if slashes == 0 {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge(name) {
            out.push(FieldError::invalid(
                path,
                name,
                "must be a standard resource for containers",
            ));
        }
    } else if !is_native(name) && !is_extended(name) {
        out.push(FieldError::invalid(
            path,
            name,
            "doesn't follow extended resource name standard",
        ));
    }
}

fn pod_resource_name(name: &str, path: &Path, out: &mut ErrorList) {
    if resource_name(name, path, out) && !level::supported(name) {
        out.push(FieldError::not_supported(
            path,
            name,
            &["cpu", "hugepages-", "memory"],
        ));
    }
}

/// Checks an amount of a resource: not negative, and whole where the resource is counted.
pub(crate) fn amount(name: &str, amount: &Quantity, path: &Path, out: &mut ErrorList) {
    if amount.is_negative() {
        out.push(FieldError::invalid(path, amount.to_string(), NEGATIVE));
    }
    if (COUNTED.contains(&name) || is_extended(name)) && amount.milli() % 1000 != 0 {
        out.push(FieldError::invalid(
            path,
            amount.to_string(),
            "must be an integer",
        ));
    }
}

fn huge_pages(name: &str, amount: &Quantity, path: &Path, out: &mut ErrorList) {
    let size = name
        .strip_prefix("hugepages-")
        .and_then(|size| size.parse::<Quantity>().ok())
        .map_or(0, |size| size.units());
    if size <= 0 || !amount.is_integer() || amount.units() % size != 0 {
        out.push(FieldError::invalid(
            path,
            amount.to_string(),
            &format!("{amount} is not positive integer multiple of {name}"),
        ));
    }
}

/// Whose resources are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Container,
    Pod,
}

/// Checks a `ResourceRequirements`. `claims` are the names of the pod's resource claims.
pub(super) fn requirements(at: &Cursor<'_>, of: Of, claims: &BTreeSet<&str>, out: &mut ErrorList) {
    let name_rule = match of {
        Of::Container => container_resource_name,
        Of::Pod => pod_resource_name,
    };
    let (mut compute, mut huge) = (false, false);
    for list in ["limits", "requests"] {
        let list_path = at.at(list);
        for (name, value) in at.entries(list) {
            let path = list_path.key(name);
            name_rule(name, &path, out);
            let Some(quantity) = parsed(value) else {
                continue;
            };
            amount(name, &quantity, &path, out);
            if list == "requests" {
                within_limit(at, name, &quantity, out);
            }
            if is_huge(name) {
                huge = true;
                huge_pages(name, &quantity, &path, out);
            }
            compute |= matches!(name.as_str(), "cpu" | "memory");
        }
    }
    if huge && !compute {
        out.push(FieldError::forbidden(
            &at.path,
            "HugePages require cpu or memory",
        ));
    }
    claim_names(at, claims, out);
}

/// Checks the resources of a container that has no claims.
pub(crate) fn container_limits(at: &Cursor<'_>, out: &mut ErrorList) {
    requirements(at, Of::Container, &BTreeSet::new(), out);
}

fn parsed(value: &serde_json::Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}

fn within_limit(at: &Cursor<'_>, name: &str, request: &Quantity, out: &mut ErrorList) {
    let path = at.at("requests");
    match parsed(at.child("limits").raw(name)) {
        Some(limit) if *request != limit && !overcommits(name) => out.push(FieldError::invalid(
            &path,
            request.to_string(),
            &format!("must be equal to {name} limit of {limit}"),
        )),
        Some(limit) if *request > limit => out.push(FieldError::invalid(
            &path,
            request.to_string(),
            &format!("must be less than or equal to {name} limit of {limit}"),
        )),
        None if !overcommits(name) => out.push(FieldError::required(
            &at.at("limits"),
            "Limit must be set for non overcommitable resources",
        )),
        _ => {}
    }
}

fn claim_names(at: &Cursor<'_>, known: &BTreeSet<&str>, out: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for claim in at.items("claims") {
        let name = claim.text("name");
        if name.is_empty() {
            out.push(FieldError::required(&claim.path, ""));
            continue;
        }
        if !seen.insert((name, claim.text("request"))) {
            out.push(FieldError::duplicate(&claim.path, name));
        }
        if !known.contains(name) {
            let mut detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if known.is_empty() {
                detail.push_str(" which is empty");
            } else {
                let names: Vec<&str> = known.iter().copied().collect();
                detail.push_str(": ");
                detail.push_str(&names.join(", "));
            }
            out.push(FieldError::not_found(&claim.path, name).with_detail(&detail));
        }
    }
}

/// Checks the resources of the pod as a whole against those of its containers.
pub(super) fn pod_level(spec: &Cursor<'_>, claims: &BTreeSet<&str>, out: &mut ErrorList) {
    let Some(at) = spec.get("resources") else {
        return;
    };
    if spec.child("os").text("name") == "windows" {
        out.push(FieldError::forbidden(
            &at.path,
            "may not be set for a windows pod",
        ));
        return;
    }
    if at.has("claims") {
        out.push(FieldError::forbidden(
            &at.at("claims"),
            "claims may not be set for Resources at pod-level",
        ));
    }
    requirements(&at, Of::Pod, claims, out);
    // What the pod as a whole says nothing of is left to its containers.
    let mut covers = |list: &str, name: &str, sum: Quantity| {
        let whole = at.child(list);
        let Some(of_pod) = parsed(whole.raw(name)).filter(|of_pod| sum > *of_pod) else {
            return;
        };
        out.push(FieldError::invalid(
            &whole.path.key(name),
            of_pod.to_string(),
            &format!("must be greater than or equal to aggregate container {list} of {sum}"),
        ));
    };
    for (name, sum) in super::resources::container_requests(spec.value) {
        covers("requests", &name, sum);
    }
    for (name, sum) in super::resources::container_limits(spec.value) {
        if is_huge(&name) {
            covers("limits", &name, sum);
        }
    }
    for (index, container) in spec.items("containers").enumerate() {
        for (name, value) in container.child("resources").entries("limits") {
            let (Some(limit), Some(of_pod)) = (parsed(value), parsed(at.child("limits").raw(name)))
            else {
                continue;
            };
            if limit > of_pod {
                out.push(FieldError::invalid(
                    &at.at("containers").index(index).key(name).child("limits"),
                    limit.to_string(),
                    &format!("must be less than or equal to pod limits of {of_pod}"),
                ));
            }
        }
    }
}
