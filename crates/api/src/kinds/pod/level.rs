//! Resources set on the pod as a whole: defaults that follow from the containers' (KEP-2837).

use serde_json::Value;

use super::resources::{self, ResourceList};
use crate::object::{child, fields, list};
use crate::validation::Cursor;

/// Completes what a pod says of itself as a whole; of a pod that says nothing, nothing.
///
/// The order matters: limits of huge pages become requests, and requests raise limits.
pub(super) fn defaults(spec: &mut Value) {
    if [
        &of_the_whole(spec, "requests"),
        &of_the_whole(spec, "limits"),
    ]
    .iter()
    .all(|list| list.is_empty())
    {
        return;
    }
    for (kind, missing) in [
        ("limits", huge_page_limits as fn(&Value) -> ResourceList),
        ("requests", missing_requests),
        ("limits", missing_limits),
    ] {
        let missing = missing(spec);
        set(spec, kind, missing);
    }
}

/// Do these resources of a whole pod name one that counts there?
pub(super) fn is_set(at: &Cursor<'_>) -> bool {
    ["requests", "limits"]
        .iter()
        .any(|list| at.entries(list).any(|(name, _)| supported(name)))
}

fn of_the_whole(spec: &Value, kind: &str) -> ResourceList {
    resources::resource_list(Cursor::root(spec).child("resources").raw(kind))
}

fn set(spec: &mut Value, kind: &str, missing: ResourceList) {
    if missing.is_empty() {
        return;
    }
    let list = fields(child(child(spec, "resources"), kind));
    for (name, amount) in missing {
        list.insert(name, amount.to_string().into());
    }
}

/// The pod's huge pages are limited to what its containers have together, where it says nothing of
/// them.
fn huge_page_limits(spec: &Value) -> ResourceList {
    let (limits, requests) = (of_the_whole(spec, "limits"), of_the_whole(spec, "requests"));
    let mut missing = resources::container_limits(spec);
    missing.retain(|name, _| {
        is_huge(name) && !limits.contains_key(name) && !requests.contains_key(name)
    });
    missing
}

/// What the pod does not request is what the containers request together, else the limit.
fn missing_requests(spec: &Value) -> ResourceList {
    let known = of_the_whole(spec, "requests");
    let mut missing = resources::container_requests(spec);
    missing.retain(|name, _| !is_huge(name));
    for (name, amount) in of_the_whole(spec, "limits") {
        missing.entry(name).or_insert(amount);
    }
    missing.retain(|name, _| supported(name) && !known.contains_key(name));
    missing
}

/// What the pod requests but does not limit is limited where every container is: to the containers'
/// limits together, and to the request if that is more.
fn missing_limits(spec: &Value) -> ResourceList {
    let known = of_the_whole(spec, "limits");
    let of_containers = resources::container_limits(spec);
    let everywhere = |name: &str| {
        ["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .flat_map(|kind| list(spec, &[kind]))
            .all(|container| {
                let limits = Cursor::root(container).child("resources").child("limits");
                limits.has(name)
            })
    };
    let mut missing = of_the_whole(spec, "requests");
    missing.retain(|name, _| supported(name) && !known.contains_key(name) && everywhere(name));
    for (name, amount) in &mut missing {
        if let Some(sum) = of_containers.get(name).filter(|sum| *sum > amount) {
            *amount = *sum;
        }
    }
    missing
}

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// May a resource be set for the pod as a whole?
pub(super) fn supported(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge(name)
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
                json!({
                    "limits": {"hugepages-2Mi": "16Mi"},
                    "requests": {"cpu": "200m", "hugepages-2Mi": "16Mi"}}),
            ),
        ];
        for (level, wanted) in rows {
            let mut spec = json!({"containers": two, "resources": level});
            defaults(&mut spec);
            assert_eq!(spec["resources"], wanted, "{level}");
        }
    }
}
