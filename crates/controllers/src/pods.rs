//! What the state of a pod means to the loops: `k8s.io/kubernetes/pkg/api/v1/pod`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// The phase, `Pending` where none is written yet.
#[must_use]
pub fn phase(pod: &Pod) -> &str {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase.filter(|text| !text.is_empty()).unwrap_or("Pending")
}

/// It has ended for good.
#[must_use]
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// It counts as a replica: neither ended nor on its way out.
#[must_use]
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// It is on its way out, but still running.
#[must_use]
pub fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_some()
}

/// A condition by its type.
#[must_use]
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let status = pod.status.as_ref()?;
    status
        .conditions
        .iter()
        .flatten()
        .find(|item| item.type_ == kind)
}

/// Its Ready condition is true.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|item| item.status == "True")
}

/// Since when it is ready.
#[must_use]
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|item| item.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// When it becomes available, if it stays ready: ready for `min_ready` seconds.
#[must_use]
pub fn available_at(pod: &Pod, min_ready: i32) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready == 0 {
        return Some(Timestamp::MIN);
    }
    let since = ready_since(pod)?;
    since
        .checked_add(SignedDuration::from_secs(min_ready.into()))
        .ok()
}

/// The largest number of restarts of its containers.
#[must_use]
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        status.container_statuses.iter().flatten().chain(init)
    });
    statuses
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0)
}

/// The node it is bound to.
#[must_use]
pub fn node_name(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    spec.node_name.as_deref().filter(|name| !name.is_empty())
}
