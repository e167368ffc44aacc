//! What a pod asks for: requests and limits summed over containers, and its quality of service.
//!
//! The sums follow `k8s.io/component-helpers/resource`: sidecars (init containers with
//! `restartPolicy: Always`) run beside everything that starts after them, plain init containers
//! run one at a time, and the overhead comes on top.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::validation::Cursor;

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// Reads a resource list; amounts that can't be read are left out.
#[must_use]
pub fn resource_list(value: &Value) -> ResourceList {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?)))
        .collect()
}

/// Adds amounts.
pub fn add(sum: &mut ResourceList, more: &ResourceList) {
    for (name, amount) in more {
        sum.entry(name.clone())
            .and_modify(|known| *known = known.plus(amount))
            .or_insert(*amount);
    }
}

/// Keeps the larger of each amount.
pub fn raise(sum: &mut ResourceList, other: &ResourceList) {
    for (name, amount) in other {
        let known = sum.entry(name.clone()).or_insert(*amount);
        if *known < *amount {
            *known = *amount;
        }
    }
}

fn is_sidecar(container: &Cursor<'_>) -> bool {
    container.text("restartPolicy") == "Always"
}

fn summed(spec: &Cursor<'_>, what: &str) -> ResourceList {
    let of = |container: &Cursor<'_>| resource_list(container.child("resources").raw(what));
    let mut sum = ResourceList::new();
    for container in spec.items("containers") {
        add(&mut sum, &of(&container));
    }
    let mut sidecars = ResourceList::new();
    let mut peak = ResourceList::new();
    for container in spec.items("initContainers") {
        let mut running = of(&container);
        if is_sidecar(&container) {
            add(&mut sum, &running);
            add(&mut sidecars, &running);
            running.clone_from(&sidecars);
        } else {
            add(&mut running, &sidecars);
        }
        raise(&mut peak, &running);
    }
    raise(&mut sum, &peak);
    sum
}

/// What the containers of a pod spec request together, without pod-level settings and overhead.
#[must_use]
pub fn container_requests(spec: &Value) -> ResourceList {
    summed(&Cursor::root(spec), "requests")
}

/// What the containers of a pod spec are limited to together, likewise.
#[must_use]
pub fn container_limits(spec: &Value) -> ResourceList {
    summed(&Cursor::root(spec), "limits")
}

fn total(pod: &Value, what: &str) -> ResourceList {
    let spec = Cursor::root(pod).child("spec");
    let mut sum = summed(&spec, what);
    for (name, amount) in resource_list(spec.child("resources").raw(what)) {
        sum.insert(name, amount);
    }
    let overhead = resource_list(spec.raw("overhead"));
    if what == "requests" {
        add(&mut sum, &overhead);
    } else {
        // Overhead widens a limit, it does not create one.
        for (name, amount) in overhead {
            if let Some(known) = sum.get_mut(&name) {
                *known = known.plus(&amount);
            }
        }
    }
    sum
}

/// What a node must have free for a pod.
#[must_use]
pub fn pod_requests(pod: &Value) -> ResourceList {
    total(pod, "requests")
}

/// What a pod may use at most, where it says so.
#[must_use]
pub fn pod_limits(pod: &Value) -> ResourceList {
    total(pod, "limits")
}

const COMPUTE: [&str; 2] = ["cpu", "memory"];

fn positive(value: &Value) -> ResourceList {
    resource_list(value)
        .into_iter()
        .filter(|(name, amount)| {
            COMPUTE.contains(&name.as_str()) && !amount.is_zero() && !amount.is_negative()
        })
        .collect()
}

/// The quality of service class of a pod: `Guaranteed`, `Burstable` or `BestEffort`.
#[must_use]
pub fn compute_qos(pod: &Value) -> &'static str {
    let spec = Cursor::root(pod).child("spec");
    let mut requests = ResourceList::new();
    let mut limits = ResourceList::new();
    let mut guaranteed = true;
    if let Some(level) = spec.get("resources").filter(super::level::is_set) {
        requests = positive(level.raw("requests"));
        limits = positive(level.raw("limits"));
        guaranteed = COMPUTE.iter().all(|name| limits.contains_key(*name));
    } else {
        for container in spec.items("containers").chain(spec.items("initContainers")) {
            let resources = container.child("resources");
            let limited = positive(resources.raw("limits"));
            guaranteed &= COMPUTE.iter().all(|name| limited.contains_key(*name));
            add(&mut requests, &positive(resources.raw("requests")));
            add(&mut limits, &limited);
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    // Requests need not name every limit, since limits alone imply them; what they name must be
    // equal, and there must be as many of them.
    guaranteed &= requests.len() == limits.len()
        && requests
            .iter()
            .all(|(name, amount)| limits.get(name) == Some(amount));
    if guaranteed {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
