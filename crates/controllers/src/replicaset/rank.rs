//! Which pods go first when there are too many: `ActivePodsWithRanks` of the reference.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pods;

/// What a pod costs to lose; lower goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// How many of the `related` active pods run on each node.
#[must_use]
pub fn pods_per_node(related: &[Arc<Pod>]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        let node = pods::node_name(pod).unwrap_or_default();
        *counts.entry(node.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// Orders pods so that those to delete come first.
pub fn victims_first(pods: &mut [Arc<Pod>], per_node: &HashMap<String, usize>, now: Timestamp) {
    pods.sort_by(|a, b| compare(a, b, per_node, now));
}

fn compare(a: &Pod, b: &Pod, per_node: &HashMap<String, usize>, now: Timestamp) -> Ordering {
    let assigned = |pod: &Pod| pods::node_name(pod).is_some();
    let phase = |pod: &Pod| match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let rank = |pod: &Pod| {
        let node = pods::node_name(pod).unwrap_or_default();
        per_node.get(node).copied().unwrap_or(0)
    };
    let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| rank(b).cmp(&rank(a)))
        .then_with(|| {
            let (ready_a, ready_b) = (pods::ready_since(a), pods::ready_since(b));
            if pods::is_ready(a) && pods::is_ready(b) && ready_a != ready_b {
                younger_first(ready_a, ready_b, now).then_with(|| uid(a).cmp(&uid(b)))
            } else {
                Ordering::Equal
            }
        })
        .then_with(|| pods::restarts(b).cmp(&pods::restarts(a)))
        .then_with(|| {
            let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            if created(a) == created(b) {
                Ordering::Equal
            } else {
                younger_first(created(a), created(b), now).then_with(|| uid(a).cmp(&uid(b)))
            }
        })
}

/// Younger first by orders of magnitude, so that which of two old pods goes is left to chance
/// (their uids): the logarithmic scale-down of KEP-2185. No time counts as youngest.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else {
        return b.is_none().cmp(&a.is_none());
    };
    let magnitude = |at: Timestamp| {
        let age = now.duration_since(at).as_nanos();
        u128::try_from(age).ok().and_then(u128::checked_ilog2)
    };
    magnitude(a).cmp(&magnitude(b))
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(DELETION_COST));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
