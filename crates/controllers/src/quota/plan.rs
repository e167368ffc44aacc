//! What a quota's status must be.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_api::object;
use evenkeel_api::quantity::Quantity;
use evenkeel_api::usage::{Amounts, Measure};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Group and plural of a resource.
pub(super) type Resource = (String, String);

fn hard(quota: &Value) -> &Value {
    object::at(quota, &["spec", "hard"]).unwrap_or(&Value::Null)
}

/// The resources whose objects a quota counts.
pub(super) fn resources(quota: &Value) -> BTreeSet<Resource> {
    let core = |plural: &str| (String::new(), plural.to_owned());
    hard(quota)
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, _)| {
            if let Some(counted) = name.strip_prefix("count/") {
                let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
                return Some((group.to_owned(), plural.to_owned()));
            }
            let devices = ("resource.k8s.io".to_owned(), "resourceclaims".to_owned());
            let measured = Measure::of(&devices.0, &devices.1);
            if measured.is_some_and(|it| !it.names([name.as_str()].into_iter()).is_empty()) {
                return Some(devices);
            }
            [
                "pods",
                "services",
                "persistentvolumeclaims",
                "configmaps",
                "secrets",
                "replicationcontrollers",
                "resourcequotas",
            ]
            .into_iter()
            .map(core)
            .find(|(group, plural)| {
                Measure::of(group, plural)
                    .is_some_and(|measure| !measure.names([name.as_str()].into_iter()).is_empty())
            })
        })
        .collect()
}

/// The status that a quota must have, given the objects of its resources; a resource that is not
/// there is not counted. `None` when the status is right.
pub(super) fn status(
    quota: &Value,
    objects: &BTreeMap<Resource, Vec<Value>>,
    now: Timestamp,
) -> Option<Value> {
    let limited = hard(quota);
    let mut used = Amounts::new();
    for ((group, plural), objects) in objects {
        let Some(measure) = Measure::of(group, plural) else {
            continue;
        };
        let names = limited.as_object().into_iter().flatten();
        for name in measure.names(names.map(|(name, _)| name.as_str())) {
            used.entry(name).or_default();
        }
        for object in objects {
            if !measure.matches(quota, limited, object) {
                continue;
            }
            for (name, amount) in measure.usage(object, now) {
                if let Some(sum) = used.get_mut(&name) {
                    *sum = sum.plus(&amount);
                }
            }
        }
    }
    let shown: Map<String, Value> = used
        .iter()
        .map(|(name, amount)| (name.clone(), amount.to_string().into()))
        .collect();
    let wanted = json!({"hard": limited, "used": shown});
    (!same(quota, &wanted)).then_some(wanted)
}

/// Amounts are compared as numbers.
fn same(quota: &Value, wanted: &Value) -> bool {
    let read = |value: Option<&Value>| -> BTreeMap<String, Option<Quantity>> {
        value
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, amount)| {
                let amount = amount.as_str().and_then(|text| text.parse().ok());
                (name.clone(), amount)
            })
            .collect()
    };
    ["hard", "used"]
        .iter()
        .all(|part| read(object::at(quota, &["status", part])) == read(wanted.get(*part)))
}

/// The merge patch that makes a quota's status what it must be, if the quota is still the one
/// that was seen.
pub(super) fn patch(quota: &Value, status: &Value) -> Value {
    let mut patch = json!({
        "metadata": {"resourceVersion": object::resource_version(quota)},
        "status": status,
    });
    for part in ["hard", "used"] {
        let before = object::at(quota, &["status", part]).and_then(Value::as_object);
        for (name, _) in before.into_iter().flatten() {
            if status[part].get(name).is_none() {
                patch["status"][part][name] = Value::Null;
            }
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn the_resources_behind_the_names() {
        let quota = json!({"spec": {"hard": {"requests.cpu": "1", "pods": "2",
            "count/jobs.batch": "3", "count/configmaps": "1", "services.nodeports": "0",
            "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "nonsense": "1",
            "gpu.deviceclass.resource.k8s.io/devices": "4"}}});
        let found: Vec<String> = resources(&quota)
            .into_iter()
            .map(|(group, plural)| format!("{plural}.{group}"))
            .collect();
        assert_eq!(
            found,
            [
                "configmaps.",
                "persistentvolumeclaims.",
                "pods.",
                "services.",
                "jobs.batch",
                "resourceclaims.resource.k8s.io"
            ]
        );
    }

    #[test]
    fn what_is_there_is_counted_and_a_right_status_is_left() {
        let pod = |cpu: &str, phase: &str| {
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
                "status": {"phase": phase}})
        };
        let mut quota = json!({"metadata": {"resourceVersion": "7"},
            "spec": {"hard": {"pods": "5", "requests.cpu": "2", "count/jobs.batch": "1"}},
            "status": {"hard": {"pods": "4"}, "used": {"pods": "9", "gone": "1"}}});
        let objects = BTreeMap::from([
            (
                (String::new(), "pods".to_owned()),
                vec![
                    pod("500m", "Running"),
                    pod("250m", "Pending"),
                    pod("1", "Failed"),
                ],
            ),
            (("batch".to_owned(), "jobs".to_owned()), Vec::new()),
        ]);
        let wanted = status(&quota, &objects, now()).expect("wrong before");
        assert_eq!(
            wanted["used"],
            json!({"pods": "2", "requests.cpu": "750m", "count/jobs.batch": "0"})
        );
        let patch = patch(&quota, &wanted);
        assert_eq!(patch["status"]["used"]["gone"], Value::Null);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        quota["status"] = wanted;
        assert_eq!(status(&quota, &objects, now()), None);
    }
}
