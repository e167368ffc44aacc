//! How many pods a rollout may have too many and too few.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::scaled::scaled;

/// Replicas asked for; one where nothing is said.
#[must_use]
pub fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// Replicas a set is asked for.
#[must_use]
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// Pods a set reports available.
#[must_use]
pub fn available(set: &ReplicaSet) -> i32 {
    let status = set.status.as_ref();
    status
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// All old pods go before new ones come.
#[must_use]
pub fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|item| item.type_.as_deref()) == Some("Recreate")
}

/// `maxSurge` and `maxUnavailable` in pods. Surge rounds up, unavailable down; if both come out
/// zero nothing could ever move, so one pod may be unavailable.
#[must_use]
pub fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let total = wanted(deployment);
    let quarter = IntOrString::String("25%".to_owned());
    let strategy = deployment.spec.strategy.as_ref();
    let rolling = strategy.and_then(|item| item.rolling_update.as_ref());
    let surge = rolling
        .and_then(|item| item.max_surge.as_ref())
        .unwrap_or(&quarter);
    let below = rolling
        .and_then(|item| item.max_unavailable.as_ref())
        .unwrap_or(&quarter);
    let surge = scaled(Some(surge), total, true);
    let below = scaled(Some(below), total, false);
    if surge == 0 && below == 0 {
        return (0, 1);
    }
    (surge, below)
}

/// Pods that may exist above the replicas asked for.
#[must_use]
pub fn max_surge(deployment: &Deployment) -> i32 {
    fenceposts(deployment).0
}

/// Pods that may be unavailable.
#[must_use]
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if wanted(deployment) == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(wanted(deployment))
}

/// The progress deadline in seconds; `None` where there is none.
#[must_use]
pub fn progress_deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.progress_deadline_seconds;
    seconds.filter(|seconds| *seconds != i32::MAX)
}
