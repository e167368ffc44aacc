//! How many pods of a budget may be disrupted now: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;
use crate::scaled::scaled;

/// An eviction that was allowed must have been seen by then, or it is taken not to have happened.
pub const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

/// The condition of a budget.
pub const ALLOWED: &str = "DisruptionAllowed";

/// What is expected of the pods a budget selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Pods there should be.
    pub count: i32,
    /// Of which healthy.
    pub healthy: i32,
}

/// The budget needs to know how many pods the owners of its pods ask for.
#[must_use]
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// What is expected. `scale` is the sum of what the owners ask for, where that is needed.
#[must_use]
pub fn expected(budget: &PodDisruptionBudget, pods: usize, scale: i32) -> Expected {
    let spec = budget.spec.clone().unwrap_or_default();
    if spec.max_unavailable.is_some() {
        let below = scaled(spec.max_unavailable.as_ref(), scale, true);
        return Expected {
            count: scale,
            healthy: (scale - below).max(0),
        };
    }
    match spec.min_available {
        Some(IntOrString::Int(number)) => Expected {
            count: i32::try_from(pods).unwrap_or(i32::MAX),
            healthy: number,
        },
        Some(value) => Expected {
            count: scale,
            healthy: scaled(Some(&value), scale, true),
        },
        None => Expected {
            count: 0,
            healthy: 0,
        },
    }
}

/// What a look at a budget says.
#[derive(Debug, Clone)]
pub struct Look {
    /// Its status.
    pub status: PodDisruptionBudgetStatus,
    /// Pods whose eviction was allowed and did not happen: told on them.
    pub not_deleted: Vec<Arc<Pod>>,
    /// When to look again though nothing changed.
    pub look_again: Option<Timestamp>,
}

/// Works the status out.
#[must_use]
pub fn look(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: Expected,
    now: Timestamp,
) -> Look {
    let old = budget.status.clone().unwrap_or_default();
    let noted = old.disrupted_pods.clone().unwrap_or_default();
    let mut disrupted: BTreeMap<String, Time> = BTreeMap::new();
    let mut not_deleted = Vec::new();
    let mut look_again: Option<Timestamp> = None;
    let mut healthy = 0;
    for pod in pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
    {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let limit = noted
            .get(&name)
            .and_then(|at| at.0.checked_add(DELETION_TIMEOUT).ok());
        match limit {
            Some(limit) if limit >= now => {
                look_again = Some(look_again.map_or(limit, |at| at.min(limit)));
                disrupted.extend(noted.get(&name).map(|at| (name, at.clone())));
                // About to go: it counts as gone.
                continue;
            }
            Some(_) => not_deleted.push(Arc::clone(pod)),
            None => {}
        }
        healthy += i32::from(pods::is_ready(pod));
    }
    let room = healthy - expected.healthy;
    let allowed = if expected.count <= 0 { 0 } else { room.max(0) };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(expected.healthy),
        expected_pods: Some(expected.count),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|all| !all.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: old.conditions,
    };
    set_allowed(&mut status, now);
    Look {
        status,
        not_deleted,
        look_again: look_again.and_then(|at| at.checked_add(SignedDuration::from_secs(1)).ok()),
    }
}

/// Says in the condition what the number says.
fn set_allowed(status: &mut PodDisruptionBudgetStatus, now: Timestamp) {
    let (state, reason) = if status.disruptions_allowed.unwrap_or(0) > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    set_condition(status, state, reason, "", now);
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    state: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let found = conditions.iter().position(|item| item.type_ == ALLOWED);
    let since = found
        .and_then(|at| conditions.get(at))
        .filter(|item| item.status == state)
        .map_or(Time(now), |item| item.last_transition_time.clone());
    let condition = Condition {
        type_: ALLOWED.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: since,
    };
    match found {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

/// The status when it can't be worked out: nothing may be disrupted.
#[must_use]
pub fn unknown(
    budget: &PodDisruptionBudget,
    why: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    status.current_healthy.get_or_insert(0);
    status.desired_healthy.get_or_insert(0);
    status.expected_pods.get_or_insert(0);
    set_condition(&mut status, "False", "SyncFailed", why, now);
    status
}

/// When a pod's `DisruptionTarget` condition is to be taken back, because it was not deleted after
/// all; `None`: never.
#[must_use]
pub fn stale_at(pod: &Pod) -> Option<Timestamp> {
    if pod.metadata.deletion_timestamp.is_some() || pods::is_terminal(pod) {
        return None;
    }
    let condition = pods::condition(pod, "DisruptionTarget")?;
    // The agent may take as long as it needs.
    if condition.status != "True" || condition.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = condition.last_transition_time.as_ref()?.0;
    since.checked_add(DELETION_TIMEOUT).ok()
}

/// The same for a reader: absent counts are zero.
#[must_use]
pub fn is_same(old: Option<&PodDisruptionBudgetStatus>, new: &PodDisruptionBudgetStatus) -> bool {
    let bare = |status: &PodDisruptionBudgetStatus| PodDisruptionBudgetStatus {
        disrupted_pods: status.disrupted_pods.clone().filter(|all| !all.is_empty()),
        ..status.clone()
    };
    old.is_some_and(|old| bare(old) == bare(new))
}
