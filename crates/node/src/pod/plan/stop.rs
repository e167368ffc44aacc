//! A pod that ends: containers in order, then sandbox and volumes, then what the API knows of it.

use jiff::SignedDuration;

use super::{Action, KillReason, Planner};
use crate::pod::memory::{Ending, VolumesState};
use crate::pod::model::Role;

/// What every container gets to end at least, when the pod's grace is used up by another one.
const MINIMUM_GRACE: SignedDuration = SignedDuration::from_secs(2);

impl Planner<'_> {
    /// Ends everything that runs: app containers first and together, then sidecars in reverse
    /// order, then sandbox and volumes. True when nothing runs any more.
    pub(super) fn stop_all(&mut self) -> bool {
        let (model, observed) = (self.at.model, self.at.observed);
        let mut running = false;
        for container in model.with_role(&[Role::App, Role::Init, Role::Ephemeral]) {
            running |= self.stop_one(container.name(), false);
        }
        // Containers that the specification does not name (any more).
        for stray in &observed.containers {
            if model.container(&stray.name).is_none() {
                running |= self.stop_one(&stray.name, false);
            }
        }
        if !running {
            let sidecars: Vec<_> = model.with_role(&[Role::Sidecar]).collect();
            for sidecar in sidecars.into_iter().rev() {
                if self.stop_one(sidecar.name(), true) {
                    running = true;
                    break;
                }
            }
        }
        if running {
            return false;
        }
        self.plan.stopped = true;
        for sandbox in &observed.sandboxes {
            if !self.at.memory.stopped_sandboxes.contains(&sandbox.id) {
                self.act(Action::StopSandbox {
                    id: sandbox.id.clone(),
                });
            }
        }
        if self.at.memory.volumes != VolumesState::Released {
            self.act(Action::ReleaseVolumes);
        }
        true
    }

    /// Ends a container if it runs; true while it does or something is under way with it.
    pub(super) fn stop_one(&mut self, name: &str, sidecar: bool) -> bool {
        if self.at.memory.container_busy(name) {
            return true;
        }
        let Some(status) = self.at.observed.running(name) else {
            return false;
        };
        let grace = match &self.at.memory.termination {
            None => SignedDuration::from_secs(self.at.model.grace_seconds()),
            Some(termination) => {
                let left = termination
                    .deadline
                    .duration_since(self.at.now)
                    .max(SignedDuration::ZERO);
                let forced = self.at.model.grace_seconds() == 0;
                if sidecar && !forced {
                    left.max(MINIMUM_GRACE)
                } else {
                    left
                }
            }
        };
        self.act(Action::KillContainer {
            container: name.to_owned(),
            id: status.id.clone(),
            why: KillReason::PodEnds,
            grace,
        });
        true
    }

    pub(super) fn end(&mut self) {
        if !self.stop_all() {
            return;
        }
        let memory = self.at.memory;
        let deleted = match memory
            .termination
            .as_ref()
            .map(|termination| &termination.ending)
        {
            Some(Ending::Deleted | Ending::Gone) => true,
            _ => self.at.model.deletion().is_some(),
        };
        let torn_down = self.plan.actions.is_empty() && memory.busy.is_empty();
        if !deleted || !torn_down {
            return;
        }
        if !memory.api_deleted {
            if !memory.final_status_written {
                return;
            }
            match memory.delete_retry {
                Some(retry) if retry > self.at.now => self.wake(retry),
                _ => self.act(Action::DeleteFromApi),
            }
            return;
        }
        self.act(Action::Cleanup);
    }
}
