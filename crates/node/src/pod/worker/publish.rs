//! Telling the API how the pod is.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodStatus;

use super::Worker;
use crate::pod::observed::Observed;
use crate::pod::ops::{self, Outcome};
use crate::pod::plan::{self, Plan};
use crate::pod::status::{StatusInputs, compute};
use crate::pod::status_patch::diff;

/// How long status changes are gathered before one is written.
const STATUS_GATHER: Duration = Duration::from_millis(2);
/// So long a container that was ended for another one to take its place is not missed.
const REPLACEMENT: SignedDuration = SignedDuration::from_secs(1);

impl Worker {
    /// Writes the status if it differs; true when nothing runs and the API knows it.
    pub(super) fn publish(&mut self, observed: &Observed, plan: &Plan, now: Timestamp) -> bool {
        let status = compute(StatusInputs {
            model: &self.model,
            observed,
            memory: &self.memory,
            plan,
            previous: &self.written,
            messages: &self.messages,
            host_ips: &[self.context.config.node_ip],
            now,
        });
        if plan.stopped {
            // Before the API learns of it: what comes in its place must find the room free.
            self.context.release(self.model.uid());
            if self.context.dra.holds(self.model.uid()) {
                // Whoever takes it back wakes all.
                return false;
            }
        }
        if self.memory.api_deleted {
            return false;
        }
        let Some(uid) = self.model.api_uid() else {
            // There is no mirror yet.
            return false;
        };
        let Some(patch) = diff(uid, &self.written, &status) else {
            self.write_retry = None;
            return plan.stopped && !self.writing;
        };
        if plan.stopped {
            self.memory.final_status_written = false;
        }
        if self.writing || self.write_retry.is_some_and(|retry| retry > now) {
            return false;
        }
        let turns = ready(&status) != ready(&self.written);
        if turns && let Some(until) = self.replaced_until(observed).filter(|until| *until > now) {
            self.write_retry = Some(until);
            return false;
        }
        // What changes within a moment is written once: the first change waits for the others.
        let urgent = turns || plan.stopped;
        self.writing = true;
        let (context, model) = (Arc::clone(&self.context), Arc::clone(&self.model));
        self.running.push(Box::pin(async move {
            if !urgent {
                tokio::time::sleep(STATUS_GATHER).await;
            }
            let result = ops::write_status(&context, &model, &patch).await;
            (None, Outcome::StatusWritten(Box::new(status), result))
        }));
        false
    }

    /// Until when the pod is not told as unready, because a container of it is being replaced: the
    /// reference ends the old one and starts the new one in one step and tells of neither.
    fn replaced_until(&self, observed: &Observed) -> Option<Timestamp> {
        if self.memory.termination.is_some() {
            return None;
        }
        let ends = self.memory.containers.iter().filter_map(|(name, known)| {
            let replaced = known.replaced.as_ref()?;
            let runs = observed.running(name).is_some();
            let old = observed.instances(name).find(|it| it.id == *replaced)?;
            let ended = !runs && plan::ended(old);
            ended.then(|| Timestamp::from_nanosecond(old.finished_at.into()).ok())?
        });
        Some(ends.min()? + REPLACEMENT)
    }
}

fn ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
