//! Decides what to do next for one pod.
//!
//! Pure: the pod's specification, what the runtime shows and what the agent remembers go in; the
//! actions that may begin now, the time to look again and the waiting states to show come out. It
//! is asked after every change, never emits an action for what is already under way, and so needs
//! no order between its callers.

mod run;
mod start;
mod stop;

use std::collections::BTreeMap;

use evenkeel_runtime::{ContainerState, ContainerStatus};
use jiff::{SignedDuration, Timestamp};

use super::memory::{Ending, Memory, Op};
use super::model::{ContainerModel, PodModel, Role};
use super::observed::Observed;

/// Annotation with the hash of the specification a container was made from.
pub const HASH_ANNOTATION: &str = "io.kubernetes.container.hash";

/// Reason of a pod that was evicted.
pub const EVICTED: &str = "Evicted";
/// Reason of a pod that ran longer than it may.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

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
    /// It gets other resources, for which it has to start anew.
    Resized,
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
    /// Give running containers, and the pod as a whole, the resources that were granted.
    Resize {
        /// The pod's sandbox.
        sandbox_id: String,
        /// Containers by name and id.
        containers: Vec<(String, String)>,
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
            Self::Resize { .. } => Op::Resize,
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
    let over = |container: &ContainerModel, status: &ContainerStatus| {
        ended(status) && !container.restarts_after(status.exit_code, model.restart)
    };
    let failed = |init: &ContainerModel| {
        observed
            .latest(init.name())
            .is_some_and(|status| status.exit_code != 0 && over(init, status))
    };
    if model.with_role(&[Role::Init]).any(failed) {
        return true;
    }
    let mut apps = model.with_role(&[Role::App]).peekable();
    apps.peek().is_some()
        && apps.all(|app| {
            observed
                .latest(app.name())
                .is_some_and(|status| over(app, status))
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
            let reason = if has_init {
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
            reason: DEADLINE_EXCEEDED.to_owned(),
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
        }));
        true
    }

    /// Keeps the newest instance of each container and one before it; of an evicted pod, whose
    /// disk was wanted back, none.
    fn collect(&mut self) {
        let observed = self.at.observed;
        let kept = match self.at.memory.termination.as_ref().map(|end| &end.ending) {
            Some(Ending::Failed { reason, .. })
                if reason == EVICTED && self.at.memory.final_status_written =>
            {
                0
            }
            _ => 2,
        };
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        for status in &observed.containers {
            let count = seen.entry(&status.name).or_default();
            *count += 1;
            if *count > kept && ended(status) {
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
