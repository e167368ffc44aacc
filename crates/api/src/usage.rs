//! What an object uses of a `ResourceQuota`, and which quotas are about it.
//!
//! Admission charges by this, and the quota controller counts by the same. The rules are those of
//! the reference's evaluators: pods, services and claims are measured, everything else is counted.

mod devices;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

pub use devices::{Around, Classes};

use crate::kinds::{compute_qos, pod_limits, pod_requests};
use crate::object;
use crate::quantity::{Format, Quantity};

/// Amounts by the names that quotas know them under.
pub type Amounts = BTreeMap<String, Quantity>;

const BY_CLASS: &str = ".storageclass.storage.k8s.io/";
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Where these are limited, every container must say how much it asks for.
const EXPLICIT: [&str; 6] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// How the objects of a resource are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// By what their containers ask for.
    Pods,
    /// By ports and load balancers.
    Services,
    /// By the storage that they ask for.
    Claims,
    /// By the devices that they ask for, class by class.
    Devices,
    /// By number alone: the names under which they count.
    Count(Vec<String>),
}

/// `count/pods`, `count/deployments.apps`.
#[must_use]
pub fn count_name(group: &str, plural: &str) -> String {
    format!("count/{}", crate::status::group_resource(group, plural))
}

impl Measure {
    /// The measure of a resource; `None` for those that no quota is about.
    #[must_use]
    pub fn of(group: &str, plural: &str) -> Option<Self> {
        Some(match (group, plural) {
            ("" | "events.k8s.io", "events") | ("", "bindings" | "namespaces") => return None,
            ("authentication.k8s.io" | "authorization.k8s.io", _) => return None,
            ("", "pods") => Self::Pods,
            ("", "services") => Self::Services,
            ("", "persistentvolumeclaims") => Self::Claims,
            ("resource.k8s.io", "resourceclaims") => Self::Devices,
            ("", "configmaps" | "resourcequotas" | "replicationcontrollers" | "secrets") => {
                Self::Count(vec![count_name(group, plural), plural.to_owned()])
            }
            _ => Self::Count(vec![count_name(group, plural)]),
        })
    }

    /// Of the resources that a quota limits, those that are about this measure. Only devices are
    /// known by their classes.
    #[must_use]
    pub fn names<'n>(
        &self,
        limited: impl Iterator<Item = &'n str>,
        classes: &Classes,
    ) -> Vec<String> {
        limited
            .filter(|name| self.knows(name, classes))
            .map(str::to_owned)
            .collect()
    }

    fn knows(&self, name: &str, classes: &Classes) -> bool {
        match self {
            Self::Pods => {
                let plain = name
                    .strip_prefix("requests.")
                    .or(name.strip_prefix("limits."));
                matches!(name, "pods" | "count/pods")
                    || COMPUTE.contains(&name)
                    || plain.is_some_and(|plain| COMPUTE.contains(&plain))
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || name.strip_prefix("requests.").is_some_and(is_extended)
            }
            Self::Services => matches!(
                name,
                "services" | "services.nodeports" | "services.loadbalancers" | "count/services"
            ),
            Self::Claims => {
                let plain = name.split_once(BY_CLASS).map_or(name, |(_, rest)| rest);
                matches!(plain, "persistentvolumeclaims" | "requests.storage")
                    || name == "count/persistentvolumeclaims"
            }
            Self::Devices => classes.measures(name),
            Self::Count(names) => names.iter().any(|known| known == name),
        }
    }

    /// What an object uses now.
    #[must_use]
    pub fn usage(&self, object: &Value, around: &Around<'_>) -> Amounts {
        match self {
            Self::Pods => of_pod(object, around.now),
            Self::Services => of_service(object),
            Self::Claims => of_claim(object),
            Self::Devices => devices::usage(object, around),
            Self::Count(names) => names.iter().map(|name| (name.clone(), number(1))).collect(),
        }
    }

    /// Is a quota about an object: does it limit anything of its measure, and do all its scopes
    /// hold for it? `limited` are the resources of the quota, from its status or its spec.
    #[must_use]
    pub fn matches(
        &self,
        quota: &Value,
        limited: &Value,
        object: &Value,
        classes: &Classes,
    ) -> bool {
        let limited = limited.as_object().into_iter().flatten();
        let any = !self
            .names(limited.map(|(name, _)| name.as_str()), classes)
            .is_empty();
        any && self.in_scopes(quota, object)
    }

    fn in_scopes(&self, quota: &Value, object: &Value) -> bool {
        let plain = object::list(quota, &["spec", "scopes"])
            .iter()
            .filter_map(Value::as_str)
            .all(|scope| self.in_scope(scope, "Exists", &[], object));
        plain
            && object::list(quota, &["spec", "scopeSelector", "matchExpressions"])
                .iter()
                .all(|term| {
                    let text = |name: &str| object::text(term, &[name]);
                    let values = object::list(term, &["values"]);
                    self.in_scope(text("scopeName"), text("operator"), values, object)
                })
    }

    fn in_scope(&self, scope: &str, operator: &str, values: &[Value], object: &Value) -> bool {
        let selects = |name: &str| {
            let listed = values.iter().any(|value| value == name);
            match operator {
                "In" => !name.is_empty() && listed,
                "NotIn" => name.is_empty() || !listed,
                "DoesNotExist" => name.is_empty(),
                _ => !name.is_empty(),
            }
        };
        match (self, scope) {
            (Self::Pods, "Terminating") => is_bounded(object),
            (Self::Pods, "NotTerminating") => !is_bounded(object),
            (Self::Pods, "BestEffort") => compute_qos(object) == "BestEffort",
            (Self::Pods, "NotBestEffort") => compute_qos(object) != "BestEffort",
            (Self::Pods, "PriorityClass") => {
                selects(object::text(object, &["spec", "priorityClassName"]))
            }
            (Self::Pods, "CrossNamespacePodAffinity") => crosses_namespaces(object),
            (Self::Claims, "VolumeAttributesClass") => [
                &["spec", "volumeAttributesClassName"][..],
                &["status", "currentVolumeAttributesClassName"],
                &[
                    "status",
                    "modifyVolumeStatus",
                    "targetVolumeAttributesClassName",
                ],
            ]
            .iter()
            .map(|path| object::text(object, path))
            .any(selects),
            _ => false,
        }
    }

    /// Which containers lack a request or limit that the limited resources oblige them to:
    /// `must specify limits.cpu for: a,b; requests.cpu for: a`.
    #[must_use]
    pub fn missing(&self, limited: &[String], object: &Value) -> Option<String> {
        if *self != Self::Pods {
            return None;
        }
        let level = object::at(object, &["spec", "resources"]);
        if level.is_some_and(|level| {
            ["requests", "limits"]
                .iter()
                .any(|kind| level.get(*kind).is_some())
        }) {
            return None;
        }
        let mut parts = Vec::new();
        for name in EXPLICIT {
            if !limited.iter().any(|limited| limited == name) {
                continue;
            }
            let (kind, resource) = match name.split_once('.') {
                Some((kind, resource)) => (kind, resource),
                None => ("requests", name),
            };
            let mut lacking: Vec<&str> = ["containers", "initContainers"]
                .iter()
                .flat_map(|list| object::list(object, &["spec", list]))
                .filter(|container| object::at(container, &["resources", kind, resource]).is_none())
                .map(|container| object::text(container, &["name"]))
                .collect();
            if !lacking.is_empty() {
                lacking.sort_unstable();
                parts.push(format!("{name} for: {}", lacking.join(",")));
            }
        }
        (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
    }
}

fn number(count: usize) -> Quantity {
    Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// A resource that devices or administrators bring, like `nvidia.com/gpu`.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// Does a pod end by itself after a time?
fn is_bounded(pod: &Value) -> bool {
    object::integer(pod, &["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0)
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| {
        !object::list(term, &["namespaces"]).is_empty() || term.get("namespaceSelector").is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = |name: &str| object::list(pod, &["spec", "affinity", kind, name]);
        terms("requiredDuringSchedulingIgnoredDuringExecution")
            .iter()
            .any(crosses)
            || terms("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .filter_map(|term| term.get("podAffinityTerm"))
                .any(crosses)
    })
}

/// Is a pod still alive, as far as quotas are concerned? One whose time to end is long up counts
/// no more: its node may be lost.
fn counts(pod: &Value, now: Timestamp) -> bool {
    if matches!(
        object::text(pod, &["status", "phase"]),
        "Failed" | "Succeeded"
    ) {
        return false;
    }
    let until = object::deletion_timestamp(pod).and_then(|text| text.parse::<Timestamp>().ok());
    let grace = object::integer(pod, &["metadata", "deletionGracePeriodSeconds"]);
    match (until, grace) {
        (Some(until), Some(grace)) => until
            .checked_add(SignedDuration::from_secs(grace))
            .is_ok_and(|end| now <= end),
        _ => true,
    }
}

fn of_pod(pod: &Value, now: Timestamp) -> Amounts {
    let mut sum = Amounts::from([("count/pods".to_owned(), number(1))]);
    if !counts(pod, now) {
        return sum;
    }
    sum.insert("pods".to_owned(), number(1));
    for (name, amount) in pod_requests(pod) {
        if COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-") {
            sum.insert(name.clone(), amount);
            sum.insert(format!("requests.{name}"), amount);
        } else if is_extended(&name) {
            sum.insert(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in pod_limits(pod) {
        if COMPUTE.contains(&name.as_str()) {
            sum.insert(format!("limits.{name}"), amount);
        }
    }
    sum
}

fn of_service(service: &Value) -> Amounts {
    let ports = object::list(service, &["spec", "ports"]);
    let numbered = ports
        .iter()
        .filter(|port| object::integer(port, &["nodePort"]).is_some_and(|number| number > 0))
        .count();
    let kind = object::text(service, &["spec", "type"]);
    let allocates = object::at(service, &["spec", "allocateLoadBalancerNodePorts"])
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let node_ports = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer" if allocates => ports.len(),
        "LoadBalancer" => numbered,
        _ => 0,
    };
    [
        ("count/services", 1),
        ("services", 1),
        (
            "services.loadbalancers",
            usize::from(kind == "LoadBalancer"),
        ),
        ("services.nodeports", node_ports),
    ]
    .into_iter()
    .map(|(name, count)| (name.to_owned(), number(count)))
    .collect()
}

fn of_claim(claim: &Value) -> Amounts {
    let mut sum = Amounts::new();
    for name in ["persistentvolumeclaims", "count/persistentvolumeclaims"] {
        sum.insert(name.to_owned(), number(1));
    }
    let class = object::annotation(claim, CLASS_ANNOTATION)
        .unwrap_or_else(|| object::text(claim, &["spec", "storageClassName"]));
    if !class.is_empty() {
        let name = format!("{class}{BY_CLASS}persistentvolumeclaims");
        sum.insert(name, number(1));
    }
    let size = |path: &[&str]| {
        let size: Quantity = object::text(claim, path).parse().ok()?;
        // Whole bytes.
        Some(if size.is_integer() {
            size
        } else {
            Quantity::from_units(size.units(), Format::DecimalSi)
        })
    };
    let asked = size(&["spec", "resources", "requests", "storage"]);
    let given = size(&["status", "allocatedResources", "storage"]);
    if let Some(size) = asked.map(|asked| given.filter(|given| *given > asked).unwrap_or(asked)) {
        sum.insert("requests.storage".to_owned(), size);
        if !class.is_empty() {
            sum.insert(format!("{class}{BY_CLASS}requests.storage"), size);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(amounts: &Amounts) -> Vec<String> {
        amounts
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect()
    }

    fn usage(measure: &Measure, object: &Value) -> Vec<String> {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        shown(&measure.usage(object, &Around::nothing(now)))
    }

    #[test]
    fn pods_are_measured_while_they_live() {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "resources": {
            "requests": {"cpu": "100m", "memory": "1Gi", "x.io/gpu": "1", "hugepages-2Mi": "4Mi"},
            "limits": {"cpu": "1"}}}]}});
        assert_eq!(
            usage(&Measure::Pods, &pod),
            [
                "count/pods=1",
                "cpu=100m",
                "hugepages-2Mi=4Mi",
                "limits.cpu=1",
                "memory=1Gi",
                "pods=1",
                "requests.cpu=100m",
                "requests.hugepages-2Mi=4Mi",
                "requests.memory=1Gi",
                "requests.x.io/gpu=1",
            ]
        );
        pod["status"] = json!({"phase": "Succeeded"});
        assert_eq!(usage(&Measure::Pods, &pod), ["count/pods=1"]);
    }

    #[test]
    fn services_and_claims_are_measured_by_what_they_take() {
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        assert_eq!(
            usage(&Measure::Services, &service),
            [
                "count/services=1",
                "services=1",
                "services.loadbalancers=1",
                "services.nodeports=2"
            ]
        );
        let claim = json!({"spec": {"storageClassName": "gold",
            "resources": {"requests": {"storage": "2Gi"}}}});
        assert_eq!(
            usage(&Measure::Claims, &claim),
            [
                "count/persistentvolumeclaims=1",
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1",
                "gold.storageclass.storage.k8s.io/requests.storage=2Gi",
                "persistentvolumeclaims=1",
                "requests.storage=2Gi",
            ]
        );
    }

    #[test]
    fn everything_else_is_counted() {
        let jobs = Measure::of("batch", "jobs").expect("counted");
        assert_eq!(usage(&jobs, &json!({})), ["count/jobs.batch=1"]);
        let maps = Measure::of("", "configmaps").expect("counted");
        assert_eq!(
            usage(&maps, &json!({})),
            ["configmaps=1", "count/configmaps=1"]
        );
        assert_eq!(Measure::of("", "events"), None);
    }

    #[test]
    fn scopes_decide_whom_a_quota_is_about() {
        let pod = |spec: Value| json!({ "spec": spec });
        let quota = |spec: Value| json!({ "spec": spec });
        let hard = json!({"pods": "1"});
        let none = Classes::default();
        let about = |quota: &Value, pod: &Value| Measure::Pods.matches(quota, &hard, pod, &none);
        let bounded = pod(json!({"activeDeadlineSeconds": 5, "containers": [{"name": "c"}]}));
        let classed = pod(json!({"priorityClassName": "high", "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}}]}));
        let terminating = quota(json!({"scopes": ["Terminating", "BestEffort"]}));
        assert!(about(&terminating, &bounded));
        assert!(!about(&terminating, &classed));
        let term = |operator: &str, values: Value| {
            quota(json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}}))
        };
        assert!(about(&term("In", json!(["high"])), &classed));
        assert!(!about(&term("In", json!(["high"])), &bounded));
        assert!(!about(&term("NotIn", json!(["high"])), &classed));
        assert!(about(&term("NotIn", json!(["high"])), &bounded));
        assert!(about(&term("Exists", json!([])), &classed));
        assert!(about(&term("DoesNotExist", json!([])), &bounded));
        let services = json!({"services": "1"});
        assert!(!Measure::Services.matches(&terminating, &services, &json!({}), &none));
        assert!(!Measure::Pods.matches(&quota(json!({})), &services, &classed, &none));
    }

    #[test]
    fn limited_compute_must_be_asked_for() {
        let limited = [
            "limits.cpu".to_owned(),
            "memory".to_owned(),
            "pods".to_owned(),
        ];
        let pod = json!({"spec": {"initContainers": [{"name": "a"}], "containers": [
            {"name": "b", "resources": {"requests": {"memory": "1"}}}]}});
        assert_eq!(
            Measure::Pods.missing(&limited, &pod).as_deref(),
            Some("must specify limits.cpu for: a,b; memory for: a")
        );
        assert_eq!(Measure::Pods.missing(&["pods".to_owned()], &pod), None);
    }
}
