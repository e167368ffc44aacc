//! What a ReplicaSet needs: pure.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

use super::rank;
use crate::pod_control::{self, BURST};
use crate::{claim, pods};

const FAILURE: &str = "ReplicaFailure";

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Pods to create.
    pub create: usize,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
}

/// Decides from the pods that are ours. `per_node` counts the active pods of all sets of the same
/// owner on each node; it is asked only when pods have to go.
#[must_use]
pub fn plan(
    set: &ReplicaSet,
    mine: &[Arc<Pod>],
    per_node: impl FnOnce() -> HashMap<String, usize>,
    now: Timestamp,
) -> Plan {
    if set.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let mut active: Vec<_> = mine
        .iter()
        .filter(|pod| pods::is_active(pod))
        .cloned()
        .collect();
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    if active.len() <= wanted {
        return Plan {
            create: (wanted - active.len()).min(BURST),
            delete: Vec::new(),
        };
    }
    let excess = (active.len() - wanted).min(BURST);
    rank::victims_first(&mut active, &per_node(), now);
    active.truncate(excess);
    Plan {
        create: 0,
        delete: active,
    }
}

/// The pod to create for a set, or why there can be none.
///
/// # Errors
/// When the template does not carry the labels the selector asks for: its pods would never count,
/// and pods would be created without end.
pub fn pod_of(set: &ReplicaSet, controller: OwnerReference) -> Result<Pod, String> {
    let template = set.spec.template.clone().unwrap_or_default();
    let selector = LabelSelector::from_spec(Some(&set.spec.selector))
        .map_err(|error| format!("invalid label selector: {error}"))?;
    let pod = pod_control::from_template(&template, &set.metadata, controller);
    if selector.is_everything() || !selector.matches(claim::labels(&pod.metadata)) {
        return Err("`selector` does not match template `labels`".to_owned());
    }
    Ok(pod)
}

/// The status, and when it will change by time alone. `failure` is why pods could not be created
/// or deleted.
#[must_use]
pub fn status(
    set: &ReplicaSet,
    mine: &[Arc<Pod>],
    failure: Option<&str>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Timestamp>) {
    let old = set.status.clone().unwrap_or_default();
    let template = set
        .spec
        .template
        .as_ref()
        .and_then(|item| item.metadata.as_ref());
    let wanted_labels = template.map(claim::labels);
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let (mut replicas, mut labeled, mut ready, mut available) = (0, 0, 0, 0);
    let mut next = None;
    for pod in mine.iter().filter(|pod| pods::is_active(pod)) {
        replicas += 1;
        let found = claim::labels(&pod.metadata);
        let full = wanted_labels.is_none_or(|wanted| {
            wanted
                .iter()
                .all(|(key, value)| found.get(key) == Some(value))
        });
        labeled += i32::from(full);
        ready += i32::from(pods::is_ready(pod));
        match pods::available_at(pod, min_ready) {
            Some(at) if at <= now => available += 1,
            Some(at) => next = Some(next.map_or(at, |next: Timestamp| next.min(at))),
            None => {}
        }
    }
    let terminating = mine.iter().filter(|pod| pods::is_terminating(pod)).count();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let failing = conditions
        .iter()
        .any(|item| item.type_.as_deref() == Some(FAILURE));
    match failure {
        Some(message) if !failing => {
            let missing = replicas < set.spec.replicas.unwrap_or(1);
            let reason = if missing {
                "FailedCreate"
            } else {
                "FailedDelete"
            };
            conditions.push(ReplicaSetCondition {
                type_: Some(FAILURE.to_owned()),
                status: Some("True".to_owned()),
                last_transition_time: Some(Time(now)),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
            });
        }
        None => conditions.retain(|item| item.type_.as_deref() != Some(FAILURE)),
        Some(_) => {}
    }
    let status = ReplicaSetStatus {
        replicas,
        fully_labeled_replicas: Some(labeled),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        terminating_replicas: i32::try_from(terminating).ok(),
        observed_generation: set.metadata.generation,
        conditions: Some(conditions).filter(|items| !items.is_empty()),
    };
    (status, next)
}

/// The same for a reader: absent counts are zero, absent conditions none.
#[must_use]
pub fn is_same(old: Option<&ReplicaSetStatus>, new: &ReplicaSetStatus) -> bool {
    let Some(old) = old else {
        return false;
    };
    let number = |value: Option<i32>| value.unwrap_or(0);
    let conditions = |status: &ReplicaSetStatus| status.conditions.clone().unwrap_or_default();
    old.replicas == new.replicas
        && number(old.fully_labeled_replicas) == number(new.fully_labeled_replicas)
        && number(old.ready_replicas) == number(new.ready_replicas)
        && number(old.available_replicas) == number(new.available_replicas)
        && number(old.terminating_replicas) == number(new.terminating_replicas)
        && old.observed_generation == new.observed_generation
        && conditions(old) == conditions(new)
}
