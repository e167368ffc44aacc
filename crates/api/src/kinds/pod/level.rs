//! Resources set on the pod as a whole: defaults that follow from the containers' (KEP-2837).

use serde_json::Value;

use super::resources::{self, ResourceList};
use crate::object::{child, fields};

/// Sets requests of the pod where only its limits are given: to what the containers request
/// together, else to the limit.
pub(super) fn defaults(spec: &mut Value) {
    let Some(level) = spec.get("resources").filter(|level| level.is_object()) else {
        return;
    };
    let limits = resources::resource_list(level.get("limits").unwrap_or(&Value::Null));
    if limits.is_empty() {
        return;
    }
    let known = resources::resource_list(level.get("requests").unwrap_or(&Value::Null));
    let mut missing = ResourceList::new();
    for (name, amount) in resources::container_requests(spec) {
        if supported(&name) && !name.starts_with("hugepages-") && !known.contains_key(&name) {
            missing.insert(name, amount);
        }
    }
    for (name, amount) in limits {
        if supported(&name) && !known.contains_key(&name) {
            missing.entry(name).or_insert(amount);
        }
    }
    if missing.is_empty() {
        return;
    }
    let requests = fields(child(child(spec, "resources"), "requests"));
    for (name, amount) in missing {
        requests.insert(name, amount.to_string().into());
    }
}

/// May a resource be set for the pod as a whole?
pub(super) fn supported(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}
