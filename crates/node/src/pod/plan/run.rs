//! A pod that should run: volumes, sandbox, init containers in order, then the others.

use evenkeel_runtime::{ContainerState, ContainerStatus};
use jiff::SignedDuration;

use super::{Action, HASH_ANNOTATION, KillReason, Planner, ended, started};
use crate::pod::memory::VolumesState;
use crate::pod::model::{ContainerModel, Role};
use crate::pod::resize;

impl<'a> Planner<'a> {
    pub(super) fn run(&mut self) {
        self.prepare_volumes();
        self.ensure_sandbox();
        self.resize();
        let model = self.at.model;
        for ephemeral in model.with_role(&[Role::Ephemeral]) {
            if self.at.observed.latest(ephemeral.name()).is_none() {
                self.start(ephemeral, None);
            }
        }
        if self.run_init() {
            for app in model.with_role(&[Role::App]) {
                self.keep_running(app);
            }
        }
    }

    pub(super) fn prepare_volumes(&mut self) {
        match self.at.memory.volumes {
            VolumesState::NotStarted | VolumesState::Released => self.act(Action::PrepareVolumes),
            VolumesState::Failed { retry_at } if retry_at <= self.at.now => {
                self.act(Action::PrepareVolumes);
            }
            VolumesState::Failed { retry_at } => self.wake(retry_at),
            VolumesState::Ready => {}
        }
    }

    pub(super) fn ensure_sandbox(&mut self) {
        if self.at.observed.ready_sandbox().is_some() {
            return;
        }
        let mut attempt = 0;
        if let Some(old) = self.at.observed.sandbox() {
            attempt = old.pod.attempt + 1;
            if !self.at.memory.stopped_sandboxes.contains(&old.id) {
                self.act(Action::StopSandbox { id: old.id.clone() });
                return;
            }
        }
        match self.at.memory.sandbox_retry {
            Some(retry) if retry > self.at.now => self.wake(retry),
            _ => self.act(Action::CreateSandbox { attempt }),
        }
    }

    /// Runs init containers in order; true when the others may run.
    pub(super) fn run_init(&mut self) -> bool {
        let model = self.at.model;
        // An app container in this sandbox proves that initialisation was over, even when the
        // init containers' remains are gone.
        let app_seen = model
            .with_role(&[Role::App])
            .any(|app| self.at.observed.current(app.name()).is_some());
        for init in model.with_role(&[Role::Init, Role::Sidecar]) {
            let current = self.at.observed.current(init.name());
            if init.role == Role::Sidecar {
                self.keep_running(init);
                let up = current.is_some_and(|status| started(init, status, self.at.memory));
                if !up && !app_seen {
                    return false;
                }
                continue;
            }
            if app_seen {
                continue;
            }
            match current {
                Some(status) if ended(status) && status.exit_code == 0 => {}
                Some(status) if status.state == ContainerState::Running => return false,
                // A new sandbox runs all init containers again.
                None => {
                    self.start(init, None);
                    return false;
                }
                Some(_) => {
                    self.keep_running(init);
                    return false;
                }
            }
        }
        true
    }

    /// Starts a container that does not run and ends one that must not go on.
    pub(super) fn keep_running(&mut self, container: &'a ContainerModel) {
        let name = container.name();
        let Some(status) = self.at.observed.latest(name) else {
            self.start(container, None);
            return;
        };
        match status.state {
            ContainerState::Running => self.check_running(container, status),
            ContainerState::Created => {
                if !self.at.memory.container_busy(name) {
                    self.act(Action::RemoveContainer {
                        container: name.to_owned(),
                        id: status.id.clone(),
                    });
                }
            }
            ContainerState::Exited | ContainerState::Unknown => {
                // What ended with an earlier sandbox starts again in the new one, unless it had
                // come to its end.
                if container.restarts_after(status.exit_code, self.at.model.restart) {
                    self.restart(container, status);
                }
            }
        }
    }

    /// Gives what runs the resources that were granted since it started.
    fn resize(&mut self) {
        let memory = self.at.memory;
        let Some(progress) = &memory.resize.progress else {
            return;
        };
        if let Some((_, retry)) = &progress.error
            && *retry > self.at.now
        {
            self.wake(*retry);
            return;
        }
        let Some(sandbox) = self.at.observed.ready_sandbox() else {
            return;
        };
        let mut updates = Vec::new();
        for (name, (id, before)) in &memory.resize.stale {
            let latest = self.at.observed.latest(name);
            let runs = latest
                .is_some_and(|status| status.id == *id && status.state == ContainerState::Running);
            let Some(container) = self.at.model.container(name).filter(|_| runs) else {
                continue;
            };
            if resize::restarts(&container.spec, before) {
                let spec = self.at.model.spec();
                let grace = spec.and_then(|spec| spec.termination_grace_period_seconds);
                self.act(Action::KillContainer {
                    container: name.clone(),
                    id: id.clone(),
                    why: KillReason::Resized,
                    grace: SignedDuration::from_secs(grace.unwrap_or(30).max(0)),
                });
            } else {
                updates.push((name.clone(), id.clone()));
            }
        }
        if !progress.limits_set || !updates.is_empty() {
            self.act(Action::Resize {
                sandbox_id: sandbox.id.clone(),
                containers: updates,
            });
        }
    }

    pub(super) fn check_running(&mut self, container: &ContainerModel, status: &ContainerStatus) {
        let known = self.at.memory.containers.get(container.name());
        let probes = known
            .map(|known| &known.probes)
            .filter(|p| p.container_id == status.id);
        let changed = status
            .annotations
            .get(HASH_ANNOTATION)
            .is_some_and(|hash| *hash != container.hash);
        let why = if changed {
            KillReason::Changed
        } else if probes.is_some_and(|probes| probes.startup == Some(false)) {
            KillReason::Startup
        } else if probes.is_some_and(|probes| probes.liveness == Some(false)) {
            KillReason::Liveness
        } else {
            return;
        };
        let probe = match why {
            KillReason::Startup => container.spec.startup_probe.as_ref(),
            KillReason::Liveness => container.spec.liveness_probe.as_ref(),
            _ => None,
        };
        let grace = probe
            .and_then(|probe| probe.termination_grace_period_seconds)
            .or_else(|| {
                self.at
                    .model
                    .spec()
                    .and_then(|spec| spec.termination_grace_period_seconds)
            })
            .unwrap_or(30);
        self.act(Action::KillContainer {
            container: container.name().to_owned(),
            id: status.id.clone(),
            why,
            grace: SignedDuration::from_secs(grace.max(0)),
        });
    }
}
