//! What claims of devices use: devices by class, and the extended resources that those stand for
//! (KEP-5004). A claim that was made for the extended resources of a pod is charged for no more than
//! the pod is not charged for itself.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::{Amounts, count_name, is_extended, number, of_pod};
use crate::devices::claims::{BY_CLASS, FOR_EXTENDED_RESOURCES};
use crate::object;
use crate::quantity::{Format, Quantity};

/// Behind the name of a class: the devices of it that claims ask for.
const DEVICES: &str = ".deviceclass.resource.k8s.io/devices";
/// A claim for all devices is charged for as many as one can have.
const DEVICES_MOST: i64 = 32;
const REQUESTS: &str = "requests.";

/// What classes of devices say of extended resources.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Classes {
    /// By class.
    resources: BTreeMap<String, String>,
    named: BTreeSet<String>,
}

static NO_CLASSES: Classes = Classes {
    resources: BTreeMap::new(),
    named: BTreeSet::new(),
};

impl Classes {
    /// Reads classes.
    #[must_use]
    pub fn read<'c>(classes: impl Iterator<Item = &'c Value>) -> Self {
        let mut all = Self::default();
        for class in classes {
            let resource = object::text(class, &["spec", "extendedResourceName"]);
            if !resource.is_empty() {
                let name = object::name(class).to_owned();
                all.resources.insert(name, resource.to_owned());
                all.named.insert(resource.to_owned());
            }
        }
        all
    }

    /// Was any of these claims made for extended resources, so that its pod has to be known?
    #[must_use]
    pub fn need_pods(claims: &[Value]) -> bool {
        claims.iter().any(for_extended)
    }

    /// Is a limit of this name about claims of devices?
    pub(super) fn measures(&self, name: &str) -> bool {
        let implicit = name
            .strip_prefix(REQUESTS)
            .and_then(|name| name.strip_prefix(BY_CLASS));
        let explicit = name.strip_prefix(REQUESTS).filter(|name| is_extended(name));
        name == "count/resourceclaims.resource.k8s.io"
            || name.ends_with(DEVICES)
            || implicit.is_some_and(|class| self.resources.contains_key(class))
            || explicit.is_some_and(|resource| self.named.contains(resource))
    }

    /// May a limit of this name be about claims, depending on what classes there are?
    #[must_use]
    pub fn may_matter(name: &str) -> bool {
        let name = name.strip_prefix(REQUESTS);
        name.is_some_and(|name| name.starts_with(BY_CLASS) || is_extended(name))
    }
}

/// What else is there when an object is measured.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// The time.
    pub now: Timestamp,
    /// Classes of devices.
    pub classes: &'a Classes,
    /// A pod by namespace and name.
    pub pod: &'a dyn Fn(&str, &str) -> Option<Value>,
    /// All claims of devices of a namespace.
    pub claims: &'a dyn Fn(&str) -> Vec<Value>,
}

impl std::fmt::Debug for Around<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Around").finish_non_exhaustive()
    }
}

impl Around<'static> {
    /// Nothing that matters.
    #[must_use]
    pub fn nothing(now: Timestamp) -> Self {
        Self {
            now,
            classes: &NO_CLASSES,
            pod: &|_, _| None,
            claims: &|_| Vec::new(),
        }
    }
}

/// What a claim of devices may get at most, by class. Of requests that name alternatives each class
/// counts with the most that one of them wants.
fn by_class(claim: &Value) -> Amounts {
    let name = count_name("resource.k8s.io", "resourceclaims");
    let mut sum = Amounts::from([(name, number(1))]);
    let count = |request: &Value| match object::text(request, &["allocationMode"]) {
        "All" => DEVICES_MOST,
        // Defaults say it for every object that was kept.
        "ExactCount" | "" => object::integer(request, &["count"]).unwrap_or(1),
        _ => 0,
    };
    for request in object::list(claim, &["spec", "devices", "requests"]) {
        let alternatives = object::list(request, &["firstAvailable"]);
        let exactly = request.get("exactly").filter(|it| it.is_object());
        let wanted: Vec<&Value> = if alternatives.is_empty() {
            exactly.into_iter().collect()
        } else {
            alternatives.iter().collect()
        };
        let mut most: BTreeMap<&str, i64> = BTreeMap::new();
        for request in wanted {
            let of_class = most
                .entry(object::text(request, &["deviceClassName"]))
                .or_default();
            *of_class = count(request).max(*of_class);
        }
        for (class, count) in most {
            let name = format!("{class}{DEVICES}");
            let more = Quantity::from_units(count, Format::DecimalSi);
            let all = sum.get(&name).map_or(more, |before| before.plus(&more));
            sum.insert(name, all);
        }
    }
    sum
}

/// What a claim uses.
pub(super) fn usage(claim: &Value, around: &Around<'_>) -> Amounts {
    let mut sum = by_class(claim);
    let mut extended = Amounts::new();
    for (name, amount) in &sum {
        let Some(class) = name.strip_suffix(DEVICES).filter(|class| !class.is_empty()) else {
            continue;
        };
        extended.insert(format!("{REQUESTS}{BY_CLASS}{class}"), *amount);
        if let Some(resource) = around.classes.resources.get(class) {
            extended.insert(format!("{REQUESTS}{resource}"), *amount);
        }
    }
    let charged = of_owner(claim, around).unwrap_or_default();
    for (name, amount) in extended {
        let rest = charged
            .get(&name)
            .map_or(amount, |before| amount.minus(before));
        if !rest.is_negative() && !rest.is_zero() {
            sum.insert(name, rest);
        }
    }
    sum
}

fn for_extended(claim: &Value) -> bool {
    object::annotation(claim, FOR_EXTENDED_RESOURCES) == Some("true")
}

/// The pod that controls an object: name and uid.
fn owner(claim: &Value) -> Option<(&str, &str)> {
    let owners = object::list(claim, &["metadata", "ownerReferences"]);
    let mut controllers = owners.iter().filter(|owner| owner["controller"] == true);
    let owner = controllers.next()?;
    let text = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or_default();
    (text("kind") == "Pod" && text("apiVersion") == "v1").then(|| (text("name"), text("uid")))
}

/// What the pod is charged for whose extended resources a claim was made for; `None` when the claim
/// is not, or not surely, that pod's only one.
fn of_owner(claim: &Value, around: &Around<'_>) -> Option<Amounts> {
    if !for_extended(claim) {
        return None;
    }
    let (name, uid) = owner(claim)?;
    let namespace = object::namespace(claim);
    let pod = (around.pod)(namespace, name)?;
    if object::text(&pod, &["metadata", "uid"]) != uid {
        return None;
    }
    let own = object::name(claim);
    match object::at(&pod, &["status", "extendedResourceClaimStatus"]) {
        Some(status) if status.is_object() => {
            if object::text(status, &["resourceClaimName"]) != own {
                return None;
            }
        }
        _ => {
            let made = |claim: &Value| {
                let time = object::text(claim, &["metadata", "creationTimestamp"]);
                let time = time.parse::<Timestamp>().unwrap_or(around.now);
                (time, object::name(claim).to_owned())
            };
            let mine = made(claim);
            let all = (around.claims)(namespace);
            let mut others = all.iter().filter(|other| {
                for_extended(other) && owner(other).is_some_and(|(_, other)| other == uid)
            });
            if others.any(|other| made(other) < mine) {
                return None;
            }
        }
    }
    Some(of_pod(&pod, around.now))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Measure;
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    fn shown(claim: &Value, around: &Around<'_>) -> Vec<String> {
        let amounts = Measure::Devices.usage(claim, around);
        let amounts = amounts.iter();
        amounts
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect()
    }

    #[test]
    fn claims_of_devices_are_measured_by_class() {
        let claim = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount",
                "count": 2}},
            {"name": "b", "exactly": {"deviceClassName": "nic", "allocationMode": "All"}},
            {"name": "c", "firstAvailable": [
                {"name": "x", "deviceClassName": "gpu", "allocationMode": "ExactCount",
                    "count": 1},
                {"name": "y", "deviceClassName": "gpu", "allocationMode": "ExactCount",
                    "count": 3},
                {"name": "z", "deviceClassName": "small", "allocationMode": "ExactCount",
                    "count": 4}]},
            {"name": "d", "later": {}}]}}});
        assert_eq!(
            shown(&claim, &Around::nothing(now())),
            [
                "count/resourceclaims.resource.k8s.io=1",
                "gpu.deviceclass.resource.k8s.io/devices=5",
                "nic.deviceclass.resource.k8s.io/devices=32",
                "requests.deviceclass.resource.kubernetes.io/gpu=5",
                "requests.deviceclass.resource.kubernetes.io/nic=32",
                "requests.deviceclass.resource.kubernetes.io/small=4",
                "small.deviceclass.resource.k8s.io/devices=4",
            ]
        );
        let limited = ["gpu.deviceclass.resource.k8s.io/devices", "pods"];
        let none = Classes::default();
        assert_eq!(
            Measure::Devices.names(limited.into_iter(), &none),
            [limited[0]]
        );
    }

    #[test]
    fn what_a_pod_is_charged_for_its_claim_is_not() {
        let class = json!({"metadata": {"name": "gpu"},
            "spec": {"extendedResourceName": "example.com/gpu"}});
        let classes = Classes::read([&class].into_iter());
        let limited = [
            "requests.example.com/gpu",
            "requests.example.com/other",
            "requests.deviceclass.resource.kubernetes.io/gpu",
            "requests.deviceclass.resource.kubernetes.io/other",
        ];
        let found = Measure::Devices.names(limited.into_iter(), &classes);
        assert_eq!(found, [limited[0], limited[2]]);
        let claim = |name: &str| {
            json!({
                "metadata": {"name": name, "namespace": "a",
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "annotations": {FOR_EXTENDED_RESOURCES: "true"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u",
                        "controller": true}]},
                "spec": {"devices": {"requests": [{"name": "r", "exactly": {
                    "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3}}]}},
            })
        };
        let mut pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"example.com/gpu": "2"}}}]}});
        let measured = |pod: &Value, others: &[Value], name: &str| {
            let around = Around {
                now: now(),
                classes: &classes,
                pod: &|_, _| Some(pod.clone()),
                claims: &|_| others.to_vec(),
            };
            let shown = shown(&claim(name), &around);
            shown
                .into_iter()
                .find(|text| text.starts_with("requests.example.com/gpu"))
        };
        let rest = Some("requests.example.com/gpu=1".to_owned());
        let all = Some("requests.example.com/gpu=3".to_owned());
        assert_eq!(measured(&pod, &[], "b"), rest);
        // Another one was first.
        assert_eq!(measured(&pod, &[claim("a")], "b"), all);
        assert_eq!(measured(&pod, &[claim("c")], "b"), rest);
        pod["status"] = json!({"extendedResourceClaimStatus": {"resourceClaimName": "b"}});
        assert_eq!(measured(&pod, &[claim("a")], "b"), rest);
        assert_eq!(measured(&pod, &[], "a"), all);
        pod["metadata"]["uid"] = json!("another");
        assert_eq!(measured(&pod, &[], "b"), all);
    }
}
