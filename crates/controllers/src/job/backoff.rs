//! How soon a failed pod is replaced: 10 s, 20 s … 10 min, counted from the last failure.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::pods;

const FIRST: SignedDuration = SignedDuration::from_secs(10);
const LAST: SignedDuration = SignedDuration::from_mins(10);

/// Failures since the last success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    failures: u32,
    last: Option<Timestamp>,
}

impl Record {
    /// After more pods have ended.
    #[must_use]
    pub fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let success = succeeded.iter().map(|pod| finished_at(pod)).max();
        let failures: Vec<Timestamp> = failed
            .iter()
            .map(|pod| finished_at(pod))
            .filter(|at| success.is_none_or(|success| *at > success))
            .collect();
        let count = u32::try_from(failures.len()).unwrap_or(u32::MAX);
        let before = if success.is_some() {
            Self::default()
        } else {
            self
        };
        Self {
            failures: before.failures.saturating_add(count),
            last: failures.into_iter().max().or(before.last),
        }
    }

    /// When the next pod may be made; `None`: now.
    #[must_use]
    pub fn blocked_until(self, now: Timestamp) -> Option<Timestamp> {
        blocked_until(self.failures, self.last?, now)
    }
}

/// When a pod may be made after so many failures, the last of them then; `None`: now.
#[must_use]
pub fn blocked_until(failures: u32, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if failures == 0 {
        return None;
    }
    let mut wait = FIRST;
    for _ in 1..failures {
        wait = (wait * 2).min(LAST);
        if wait == LAST {
            break;
        }
    }
    let until = last.checked_add(wait).ok()?;
    (until > now).then_some(until)
}

/// When a pod ended: with its last container, or when it ceased to be ready, or when it was
/// deleted; its creation where nothing of that is known.
#[must_use]
pub fn finished_at(pod: &Pod) -> Timestamp {
    let by_condition = || {
        let ready = pods::condition(pod, "Ready").filter(|item| item.status == "False")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let by_deletion = || {
        let at = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        at.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    let created = || {
        let created = pod.metadata.creation_timestamp.as_ref();
        created.map_or(Timestamp::MIN, |time| time.0)
    };
    by_containers(pod)
        .or_else(by_condition)
        .or_else(by_deletion)
        .unwrap_or_else(created)
}

/// The end of the last container, sidecars too; `None` while one runs.
fn by_containers(pod: &Pod) -> Option<Timestamp> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref());
    let is_sidecar = |status: &&ContainerStatus| {
        let mut init = init.unwrap_or_default().iter();
        init.any(|item| {
            item.name == status.name && item.restart_policy.as_deref() == Some("Always")
        })
    };
    let status = pod.status.as_ref()?;
    let sidecars = status.init_container_statuses.iter().flatten();
    let all = status
        .container_statuses
        .iter()
        .flatten()
        .chain(sidecars.filter(is_sidecar));
    let ends: Option<Vec<Timestamp>> = all
        .map(|status| {
            let ended = status.state.as_ref()?.terminated.as_ref()?;
            ended.finished_at.as_ref().map(|time| time.0)
        })
        .collect();
    ends?.into_iter().max()
}
