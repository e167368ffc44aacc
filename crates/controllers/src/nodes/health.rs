//! What a node's silence and conditions mean: pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::zones::Verdict;

/// A node not heard of for so long is unknown (`--node-monitor-grace-period`).
pub const GRACE: SignedDuration = SignedDuration::from_secs(50);
/// A node never heard of is given longer (`--node-startup-grace-period`).
pub const STARTUP_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// `node.kubernetes.io/not-ready`.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// `node.kubernetes.io/unreachable`.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// `node.kubernetes.io/unschedulable`.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The conditions an agent posts, and which become unknown with its silence.
const POSTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// NoSchedule taints by condition: type, status, taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// A condition of a node.
#[must_use]
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let status = node.status.as_ref()?;
    status
        .conditions
        .iter()
        .flatten()
        .find(|item| item.type_ == kind)
}

/// The status of a condition; `None` where it was never posted.
#[must_use]
pub fn state<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    condition(node, kind).map(|item| item.status.as_str())
}

/// When the node counts as silent, if nothing is heard from now on. `heard` is when its lease or
/// status last moved, by our own clock.
#[must_use]
pub fn silent_at(node: &Node, heard: Timestamp) -> Timestamp {
    if condition(node, "Ready").is_some() {
        return heard + GRACE;
    }
    let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    created.map_or(heard, |created| created.max(heard)) + STARTUP_GRACE
}

/// The conditions of a silent node; `None` when they say so already.
#[must_use]
pub fn silenced(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let status = node.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.unwrap_or_default();
    let mut changed = false;
    for kind in POSTED {
        match conditions.iter_mut().find(|item| item.type_ == kind) {
            Some(found) if found.status == "Unknown" => {}
            Some(found) => {
                found.status = "Unknown".to_owned();
                found.reason = Some("NodeStatusUnknown".to_owned());
                found.message = Some("Kubelet stopped posting node status.".to_owned());
                found.last_transition_time = Some(Time(now));
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: kind.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusNeverUpdated".to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(Time(now)),
                });
                changed = true;
            }
        }
    }
    changed.then_some(conditions)
}

/// Whether the node is given up already: its pods are being driven away.
#[must_use]
pub fn is_given_up(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().any(|taint| {
        taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
    })
}

/// The taints a node should have by its conditions, its unschedulable flag and what may be done
/// about its pods; `None` when it has them. Taints of other hands stay.
#[must_use]
pub fn taints(node: &Node, verdict: Verdict, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.clone().unwrap_or_default();
    let old = spec.taints.unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, taint) in BY_CONDITION {
        if state(node, kind) == Some(status) {
            wanted.push((taint, "NoSchedule"));
        }
    }
    if spec.unschedulable == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    match state(node, "Ready").filter(|_| verdict == Verdict::GiveUp) {
        Some("False") => wanted.push((NOT_READY, "NoExecute")),
        Some("Unknown") => wanted.push((UNREACHABLE, "NoExecute")),
        _ => {}
    }
    let is_ours = |taint: &Taint| {
        let by_condition = BY_CONDITION.iter().any(|row| row.2 == taint.key);
        match taint.effect.as_str() {
            "NoSchedule" => by_condition || taint.key == UNSCHEDULABLE,
            "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
            _ => false,
        }
    };
    // An agent that has not reported yet starts tainted by its own hand: leave that.
    let never = condition(node, "Ready").is_none();
    let is_wanted = |taint: &Taint| {
        wanted
            .iter()
            .any(|(key, effect)| taint.key == *key && taint.effect == *effect)
    };
    // Who waits keeps what he has.
    let stays = |taint: &Taint| {
        verdict == Verdict::Wait
            && taint.effect == "NoExecute"
            && state(node, "Ready") != Some("True")
    };
    let mut new: Vec<Taint> = old
        .iter()
        .filter(|taint| {
            !is_ours(taint) || is_wanted(taint) || stays(taint) || (never && taint.key == NOT_READY)
        })
        .cloned()
        .collect();
    for (key, effect) in &wanted {
        if !new
            .iter()
            .any(|taint| taint.key == *key && taint.effect == *effect)
        {
            new.push(Taint {
                key: (*key).to_owned(),
                effect: (*effect).to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (new != old).then_some(new)
}
