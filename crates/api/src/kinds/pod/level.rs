//! Resources set on the pod as a whole: defaults that follow from the containers' (KEP-2837).

use serde_json::Value;

use super::resources::{self, ResourceList};
use crate::object::{child, fields};

/// Sets requests of the pod where only its limits are given: to what the containers request
/// together, else to the limit.
pub(super) fn defaults(spec: &mut Value) {
    huge_page_limits(spec);
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

/// Limits the pod's huge pages to what its containers have together, where it says nothing of them
/// but something of other resources.
fn huge_page_limits(spec: &mut Value) {
    let Some(level) = spec.get("resources").filter(|level| level.is_object()) else {
        return;
    };
    let list = |name: &str| resources::resource_list(level.get(name).unwrap_or(&Value::Null));
    let (limits, requests) = (list("limits"), list("requests"));
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let mut missing = resources::container_limits(spec);
    missing.retain(|name, _| {
        name.starts_with("hugepages-") && !limits.contains_key(name) && !requests.contains_key(name)
    });
    if missing.is_empty() {
        return;
    }
    let limits = fields(child(child(spec, "resources"), "limits"));
    for (name, amount) in missing {
        limits.insert(name, amount.to_string().into());
    }
}

/// May a resource be set for the pod as a whole?
pub(super) fn supported(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_containers_say_is_the_default_of_the_whole() {
        let container = |resources: Value| json!({"name": "c", "resources": resources});
        let own = json!({"requests": {"cpu": "100m", "hugepages-2Mi": "4Mi"},
            "limits": {"hugepages-2Mi": "4Mi"}});
        let two = json!([container(own.clone()), container(own)]);
        let rows = [
            (json!(null), json!(null)),
            (json!({}), json!({})),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
                json!({
                    "limits": {"cpu": "1", "memory": "1Gi", "hugepages-2Mi": "8Mi"},
                    "requests": {"cpu": "200m", "memory": "1Gi", "hugepages-2Mi": "8Mi"}}),
            ),
            (
                json!({"requests": {"memory": "1Gi"}}),
                json!({
                    "limits": {"hugepages-2Mi": "8Mi"},
                    "requests": {"memory": "1Gi", "cpu": "200m", "hugepages-2Mi": "8Mi"}}),
            ),
            (
                json!({"requests": {"hugepages-2Mi": "16Mi"}}),
                json!({"requests": {"hugepages-2Mi": "16Mi"}}),
            ),
        ];
        for (level, wanted) in rows {
            let mut spec = json!({"containers": two, "resources": level});
            defaults(&mut spec);
            assert_eq!(spec["resources"], wanted, "{level}");
        }
    }
}
