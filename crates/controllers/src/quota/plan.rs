//! What a quota's status must be.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_api::object;
use evenkeel_api::quantity::Quantity;
use evenkeel_api::usage::{Amounts, Around, Classes, Measure};
use serde_json::{Map, Value, json};

/// Group and plural of a resource.
pub(super) type Resource = (String, String);

/// Claims of devices.
pub(super) const DEVICES: (&str, &str) = ("resource.k8s.io", "resourceclaims");

fn hard(quota: &Value) -> &Value {
    object::at(quota, &["spec", "hard"]).unwrap_or(&Value::Null)
}

/// Does a quota limit anything that classes of devices may stand behind?
pub(super) fn asks_for_classes(quota: &Value) -> bool {
    let limited = hard(quota).as_object();
    let mut names = limited.into_iter().flatten().map(|(name, _)| name);
    names.any(|name| Classes::may_matter(name))
}

/// The resources whose objects a quota counts.
pub(super) fn resources(quota: &Value, classes: &Classes) -> BTreeSet<Resource> {
    let limited = hard(quota).as_object().into_iter().flatten();
    let mut all = BTreeSet::new();
    for (name, _) in limited {
        if let Some(counted) = name.strip_prefix("count/") {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            all.insert((group.to_owned(), plural.to_owned()));
            continue;
        }
        let about = |(group, plural): &(&str, &str)| {
            let measure = Measure::of(group, plural);
            let names = || [name.as_str()].into_iter();
            measure.is_some_and(|measure| !measure.names(names(), classes).is_empty())
        };
        let own = |(group, plural): (&str, &str)| (group.to_owned(), plural.to_owned());
        // An extended resource is counted for pods, and for claims of the devices behind it.
        all.extend(Some(DEVICES).filter(about).map(own));
        let core = [
            "pods",
            "services",
            "persistentvolumeclaims",
            "configmaps",
            "secrets",
            "replicationcontrollers",
            "resourcequotas",
        ];
        all.extend(
            core.map(|plural| ("", plural))
                .into_iter()
                .find(about)
                .map(own),
        );
    }
    all
}

/// The status that a quota must have, given the objects of its resources; a resource that is not
/// there is not counted. `None` when the status is right.
pub(super) fn status(
    quota: &Value,
    objects: &BTreeMap<Resource, Vec<Value>>,
    around: &Around<'_>,
) -> Option<Value> {
    let limited = hard(quota);
    let mut used = Amounts::new();
    for ((group, plural), objects) in objects {
        let Some(measure) = Measure::of(group, plural) else {
            continue;
        };
        let names = limited.as_object().into_iter().flatten();
        let names = names.map(|(name, _)| name.as_str());
        for name in measure.names(names, around.classes) {
            used.entry(name).or_default();
        }
        for object in objects {
            if !measure.matches(quota, limited, object, around.classes) {
                continue;
            }
            for (name, amount) in measure.usage(object, around) {
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

    fn around() -> Around<'static> {
        Around::nothing("2026-01-01T00:00:00Z".parse().expect("a time"))
    }

    #[test]
    fn the_resources_behind_the_names() {
        let quota = json!({"spec": {"hard": {"requests.cpu": "1", "pods": "2",
            "count/jobs.batch": "3", "count/configmaps": "1", "services.nodeports": "0",
            "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "nonsense": "1",
            "gpu.deviceclass.resource.k8s.io/devices": "4"}}});
        let found: Vec<String> = resources(&quota, &Classes::default())
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
    fn extended_resources_are_counted_for_pods_and_claims() {
        let quota = json!({"spec": {"hard": {"requests.example.com/gpu": "1"}}});
        assert!(asks_for_classes(&quota));
        let class = json!({"metadata": {"name": "gpu"},
            "spec": {"extendedResourceName": "example.com/gpu"}});
        let plurals = |classes: &Classes| -> Vec<String> {
            let found = resources(&quota, classes).into_iter();
            found.map(|(_, plural)| plural).collect()
        };
        assert_eq!(plurals(&Classes::default()), ["pods"]);
        let classes = Classes::read([&class].into_iter());
        assert_eq!(plurals(&classes), ["pods", "resourceclaims"]);
        assert!(!asks_for_classes(
            &json!({"spec": {"hard": {"requests.cpu": "1"}}})
        ));
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
        let wanted = status(&quota, &objects, &around()).expect("wrong before");
        assert_eq!(
            wanted["used"],
            json!({"pods": "2", "requests.cpu": "750m", "count/jobs.batch": "0"})
        );
        let patch = patch(&quota, &wanted);
        assert_eq!(patch["status"]["used"]["gone"], Value::Null);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        quota["status"] = wanted;
        assert_eq!(status(&quota, &objects, &around()), None);
    }
}
