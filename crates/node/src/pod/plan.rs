//! Decides what to do next for one pod.
//!
//! Pure: the pod's specification, what the runtime shows and what the agent remembers go in; the
//! actions that may begin now, the time to look again and the waiting states to show come out. It
//! is asked after every change, never emits an action for what is already under way, and so needs
//! no order between its callers.

use std::collections::BTreeMap;

use evenkeel_runtime::{ContainerState, ContainerStatus};
use jiff::{SignedDuration, Timestamp};

use super::memory::{Ending, ImageState, Memory, Op, PULL_ERROR_SHOWN, VolumesState};
use super::model::{ContainerModel, PodModel, RestartPolicy, Role};
use super::observed::Observed;

/// Annotation with the hash of the specification a container was made from.
pub const HASH_ANNOTATION: &str = "io.kubernetes.container.hash";
/// How often a missing image is looked for in the local store while its pull is held back.
const IMAGE_RECHECK: SignedDuration = SignedDuration::from_secs(10);
/// What every container gets to end at least, when the pod's grace is used up by another one.
const MINIMUM_GRACE: SignedDuration = SignedDuration::from_secs(2);

/// Why a container is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// The pod ends.
    PodEnds,
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
    /// Its specification changed.
    Changed,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the volumes ready.
    PrepareVolumes,
    /// Take the volumes down.
    ReleaseVolumes,
    /// Make the pod's sandbox.
    CreateSandbox {
        /// Counts sandboxes of the same pod.
        attempt: u32,
    },
    /// Stop a sandbox that is no longer of use; it stays for its containers' sake.
    StopSandbox {
        /// Which.
        id: String,
    },
    /// Look for the image of a container and pull it if need be.
    EnsureImage {
        /// Whose.
        container: String,
        /// False while a back-off runs: only look.
        may_pull: bool,
    },
    /// Create and start a container.
    StartContainer {
        /// Which.
        container: String,
        /// Restart count.
        attempt: u32,
        /// Where.
        sandbox_id: String,
        /// End of the instance before; its restart is counted for back-off.
        after: Option<Timestamp>,
    },
    /// Run preStop, send the stop signal, kill after the grace.
    KillContainer {
        /// Which.
        container: String,
        /// Its id.
        id: String,
        /// Why.
        why: KillReason,
        /// How long it may take.
        grace: SignedDuration,
    },
    /// Remove an ended container that nobody asks about any more.
    RemoveContainer {
        /// Which.
        container: String,
        /// Its id.
        id: String,
    },
    /// Begin to end the pod.
    End(Ending),
    /// Delete the pod from the API, now that nothing of it runs.
    DeleteFromApi,
    /// Remove sandboxes, containers, logs and directories: the pod is gone.
    Cleanup,
}

impl Action {
    /// What is busy while the action is carried out.
    #[must_use]
    pub fn op(&self) -> Option<Op> {
        Some(match self {
            Self::PrepareVolumes | Self::ReleaseVolumes => Op::Volumes,
            Self::CreateSandbox { .. } | Self::StopSandbox { .. } => Op::Sandbox,
            Self::EnsureImage { container, .. }
            | Self::StartContainer { container, .. }
            | Self::KillContainer { container, .. }
            | Self::RemoveContainer { container, .. } => Op::Container(container.clone()),
            Self::DeleteFromApi => Op::ApiDelete,
            Self::Cleanup => Op::Cleanup,
            Self::End(_) => return None,
        })
    }
}

/// A container's waiting state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `CrashLoopBackOff`, `ImagePullBackOff`, `ContainerCreating` …
    pub reason: String,
    /// For people; may be empty.
    pub message: String,
}

/// What to do next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To begin now.
    pub actions: Vec<Action>,
    /// When to look again even if nothing happens.
    pub wake_at: Option<Timestamp>,
    /// Why containers that should run do not. A container that ended and is not listed shows its
    /// end.
    pub waiting: BTreeMap<String, Waiting>,
    /// No container runs or will run again.
    pub stopped: bool,
}

/// What is known.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The pod.
    pub model: &'a PodModel,
    /// The runtime's side.
    pub observed: &'a Observed,
    /// The agent's side.
    pub memory: &'a Memory,
    /// Wall clock.
    pub now: Timestamp,
}

/// Decides.
#[must_use]
pub fn plan(inputs: Inputs<'_>) -> Plan {
    let mut planner = Planner {
        at: inputs,
        plan: Plan::default(),
    };
    planner.note_waiting();
    if inputs.memory.termination.is_some() {
        planner.end();
    } else if finished(inputs.model, inputs.observed) {
        planner.stop_all();
    } else if !planner.deadline_exceeded() {
        planner.run();
    }
    planner.collect();
    planner.plan
}

/// Has every container that matters come to an end for good?
#[must_use]
pub fn finished(model: &PodModel, observed: &Observed) -> bool {
    if model.phase_is_final() {
        return true;
    }
    if model.restart == RestartPolicy::Never
        && model.with_role(&[Role::Init]).any(|init| {
            observed
                .latest(init.name())
                .is_some_and(|status| ended(status) && status.exit_code != 0)
        })
    {
        return true;
    }
    let mut apps = model.with_role(&[Role::App]).peekable();
    apps.peek().is_some()
        && apps.all(|app| {
            observed.latest(app.name()).is_some_and(|status| {
                ended(status)
                    && match model.restart {
                        RestartPolicy::Always => false,
                        RestartPolicy::OnFailure => status.exit_code == 0,
                        RestartPolicy::Never => true,
                    }
            })
        })
}

/// The container ran and does not run any more.
pub(crate) fn ended(status: &ContainerStatus) -> bool {
    matches!(
        status.state,
        ContainerState::Exited | ContainerState::Unknown
    )
}

/// Running, started (its startup probe passed) and its postStart hook is over.
pub(crate) fn started(
    container: &ContainerModel,
    status: &ContainerStatus,
    memory: &Memory,
) -> bool {
    if status.state != ContainerState::Running {
        return false;
    }
    let Some(known) = memory.containers.get(container.name()) else {
        return container.spec.startup_probe.is_none();
    };
    if known.starting {
        return false;
    }
    container.spec.startup_probe.is_none()
        || (known.probes.container_id == status.id && known.probes.startup == Some(true))
}

/// ns since the epoch as a time stamp.
pub(crate) fn timestamp(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH)
}

struct Planner<'a> {
    at: Inputs<'a>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn act(&mut self, action: Action) {
        let busy = action.op().is_some_and(|op| {
            self.at.memory.busy.contains(&op)
                || self
                    .plan
                    .actions
                    .iter()
                    .any(|other| other.op().as_ref() == Some(&op))
        });
        if !busy {
            self.plan.actions.push(action);
        }
    }

    fn wake(&mut self, when: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(when, |set| set.min(when)));
    }

    /// The waiting state of every container that has none of its own to show.
    fn note_waiting(&mut self) {
        let has_init = self
            .at
            .model
            .with_role(&[Role::Init, Role::Sidecar])
            .next()
            .is_some();
        for container in &self.at.model.containers {
            let shows_end = self.at.observed.latest(container.name()).is_some_and(ended);
            if shows_end {
                continue;
            }
            let reason = if has_init && container.role == Role::App {
                "PodInitializing"
            } else {
                "ContainerCreating"
            };
            self.wait_for(container, reason, String::new());
        }
    }

    fn wait_for(&mut self, container: &ContainerModel, reason: &str, message: String) {
        self.plan.waiting.insert(
            container.name().to_owned(),
            Waiting {
                reason: reason.to_owned(),
                message,
            },
        );
    }

    fn deadline_exceeded(&mut self) -> bool {
        let Some(seconds) = self
            .at
            .model
            .spec()
            .and_then(|spec| spec.active_deadline_seconds)
        else {
            return false;
        };
        let status = self.at.model.pod.status.as_ref();
        let started = status
            .and_then(|status| status.start_time.as_ref())
            .map(|time| time.0)
            .or(self.at.memory.seen_at);
        let Some(deadline) = started.map(|at| at + SignedDuration::from_secs(seconds)) else {
            return false;
        };
        if deadline > self.at.now {
            self.wake(deadline);
            return false;
        }
        self.act(Action::End(Ending::Failed {
            reason: "DeadlineExceeded".to_owned(),
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
        }));
        true
    }

    fn run(&mut self) {
        self.prepare_volumes();
        self.ensure_sandbox();
        let model = self.at.model;
        for ephemeral in model.with_role(&[Role::Ephemeral]) {
            if self.at.observed.latest(ephemeral.name()).is_none() {
                self.start(ephemeral, None);
            }
        }
        if self.run_init() {
            for app in model.with_role(&[Role::App]) {
                self.keep_running(app, model.restart);
            }
        }
    }

    fn prepare_volumes(&mut self) {
        match self.at.memory.volumes {
            VolumesState::NotStarted | VolumesState::Released => self.act(Action::PrepareVolumes),
            VolumesState::Failed { retry_at } if retry_at <= self.at.now => {
                self.act(Action::PrepareVolumes);
            }
            VolumesState::Failed { retry_at } => self.wake(retry_at),
            VolumesState::Ready => {}
        }
    }

    fn ensure_sandbox(&mut self) {
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
    fn run_init(&mut self) -> bool {
        let model = self.at.model;
        // An app container in this sandbox proves that initialisation was over, even when the
        // init containers' remains are gone.
        let app_seen = model
            .with_role(&[Role::App])
            .any(|app| self.at.observed.current(app.name()).is_some());
        for init in model.with_role(&[Role::Init, Role::Sidecar]) {
            let current = self.at.observed.current(init.name());
            if init.role == Role::Sidecar {
                self.keep_running(init, RestartPolicy::Always);
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
                    let policy = match model.restart {
                        RestartPolicy::Never => RestartPolicy::Never,
                        _ => RestartPolicy::OnFailure,
                    };
                    self.keep_running(init, policy);
                    return false;
                }
            }
        }
        true
    }

    /// Starts a container that does not run and ends one that must not go on.
    fn keep_running(&mut self, container: &'a ContainerModel, policy: RestartPolicy) {
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
                let again = match policy {
                    RestartPolicy::Always => true,
                    RestartPolicy::OnFailure => status.exit_code != 0,
                    RestartPolicy::Never => false,
                };
                if again {
                    self.restart(container, status);
                }
            }
        }
    }

    fn check_running(&mut self, container: &ContainerModel, status: &ContainerStatus) {
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

    fn restart(&mut self, container: &'a ContainerModel, status: &ContainerStatus) {
        let finished = timestamp(if status.finished_at == 0 {
            status.created_at
        } else {
            status.finished_at
        });
        let known = self.at.memory.containers.get(container.name());
        let held = known.and_then(|known| known.crash_backoff.since(finished));
        if let Some(delay) = held
            && finished + delay > self.at.now
        {
            let message = format!(
                "back-off {} restarting failed container={} pod={}",
                go_duration(delay),
                container.name(),
                self.at.model.full_name()
            );
            let refused = known.and_then(|known| known.refusal.as_ref());
            match refused.filter(|refusal| refusal.retry_at > self.at.now) {
                Some(refusal) => {
                    self.wait_for(container, &refusal.reason, refusal.message.clone());
                    self.wake(refusal.retry_at);
                }
                None => self.wait_for(container, "CrashLoopBackOff", message),
            }
            self.wake(finished + delay);
            return;
        }
        self.start(container, Some(finished));
    }

    fn start(&mut self, container: &'a ContainerModel, after: Option<Timestamp>) {
        let name = container.name().to_owned();
        if self.at.memory.container_busy(&name) {
            return;
        }
        let known = self.at.memory.containers.get(&name);
        match known.map(|known| &known.image) {
            None | Some(ImageState::Unknown) => {
                self.act(Action::EnsureImage {
                    container: name,
                    may_pull: true,
                });
            }
            Some(ImageState::Failed {
                reason,
                message,
                at,
                checked_at,
            }) => {
                self.wait_for_image(container, reason, message, *at);
                self.retry_image(container, reason, *at, *checked_at);
            }
            Some(ImageState::Present(_)) => {
                if let Some(refusal) = known.and_then(|known| known.refusal.as_ref()) {
                    self.wait_for(container, &refusal.reason, refusal.message.clone());
                    if refusal.retry_at > self.at.now {
                        self.wake(refusal.retry_at);
                        return;
                    }
                }
                let ready = self.at.observed.ready_sandbox();
                let Some(sandbox) = ready.filter(|_| self.volumes_ready()) else {
                    return;
                };
                let attempt = self
                    .at
                    .observed
                    .latest(&name)
                    .map_or(0, |last| last.attempt + 1);
                let sandbox_id = sandbox.id.clone();
                self.act(Action::StartContainer {
                    container: name,
                    attempt,
                    sandbox_id,
                    after,
                });
            }
        }
    }

    fn volumes_ready(&self) -> bool {
        self.at.memory.volumes == VolumesState::Ready && !self.at.memory.busy.contains(&Op::Volumes)
    }

    fn wait_for_image(
        &mut self,
        container: &ContainerModel,
        reason: &str,
        message: &str,
        at: Timestamp,
    ) {
        let never = reason == "ErrImageNeverPull";
        if reason == "InvalidImageName" || never || self.at.now < at + PULL_ERROR_SHOWN {
            self.wait_for(container, reason, message.to_owned());
            self.wake(at + PULL_ERROR_SHOWN);
        } else {
            let image = container.spec.image.as_deref().unwrap_or_default();
            self.wait_for(
                container,
                "ImagePullBackOff",
                format!("Back-off pulling image \"{image}\": {reason}: {message}"),
            );
        }
    }

    /// Pulls again when the back-off is over. Until then the local store is looked at now and
    /// then: somebody may import the image.
    fn retry_image(
        &mut self,
        container: &ContainerModel,
        reason: &str,
        at: Timestamp,
        checked_at: Timestamp,
    ) {
        let known = self.at.memory.containers.get(container.name());
        let held = known.and_then(|known| known.pull_backoff.since(at));
        let pull_at = match held {
            Some(delay) if reason != "ErrImageNeverPull" => at + delay,
            _ => at + IMAGE_RECHECK,
        };
        let check_at = (checked_at + IMAGE_RECHECK).min(pull_at);
        if check_at > self.at.now {
            self.wake(check_at);
            return;
        }
        self.act(Action::EnsureImage {
            container: container.name().to_owned(),
            may_pull: pull_at <= self.at.now,
        });
    }

    /// Ends everything that runs: app containers first and together, then sidecars in reverse
    /// order, then sandbox and volumes. True when nothing runs any more.
    fn stop_all(&mut self) -> bool {
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
    fn stop_one(&mut self, name: &str, sidecar: bool) -> bool {
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

    fn end(&mut self) {
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

    /// Keeps the newest instance of each container and one before it.
    fn collect(&mut self) {
        let observed = self.at.observed;
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        for status in &observed.containers {
            let count = seen.entry(&status.name).or_default();
            *count += 1;
            if *count > 2 && ended(status) {
                self.act(Action::RemoveContainer {
                    container: status.name.clone(),
                    id: status.id.clone(),
                });
            }
        }
    }
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}
