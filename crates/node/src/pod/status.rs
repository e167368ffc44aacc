//! Computes a pod's status from what is known of it, in kubelet's words.
//!
//! Pure. The phase follows kubelet's `getPhase`, the container states its
//! `convertToAPIContainerStatuses`; conditions are in [`super::conditions`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_runtime::{ContainerState as RuntimeState, ContainerStatus as RuntimeStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::conditions;
use super::memory::{Ending, Memory};
use super::model::{ContainerModel, PodModel, Role};
use super::observed::Observed;
use super::plan::{Plan, ended, started, timestamp};
use super::resize::Resize;
use crate::spec::resources::qos_class;

/// Annotation with the image id that a container's status shows.
pub const IMAGE_ID_ANNOTATION: &str = "evenkeel.dev/image-id";
/// Annotation with the image name that a container's status shows.
pub const IMAGE_NAME_ANNOTATION: &str = "evenkeel.dev/image-name";

/// What a status is computed from.
#[derive(Debug, Clone, Copy)]
pub struct StatusInputs<'a> {
    /// The pod.
    pub model: &'a PodModel,
    /// The runtime's side.
    pub observed: &'a Observed,
    /// The agent's side.
    pub memory: &'a Memory,
    /// What is planned.
    pub plan: &'a Plan,
    /// The status before.
    pub previous: &'a PodStatus,
    /// Termination messages by container id.
    pub messages: &'a BTreeMap<String, String>,
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// Wall clock.
    pub now: Timestamp,
}

/// A time stamp in whole seconds, as the API keeps it.
pub(crate) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Computes the status.
#[must_use]
pub fn compute(inputs: StatusInputs<'_>) -> PodStatus {
    let StatusInputs {
        model,
        previous,
        memory,
        plan,
        ..
    } = inputs;
    let mut init = Vec::new();
    let mut apps = Vec::new();
    let mut ephemeral = Vec::new();
    for container in &model.containers {
        let status = container_status(&inputs, container);
        match container.role {
            Role::Init | Role::Sidecar => init.push(status),
            Role::App => apps.push(status),
            Role::Ephemeral => ephemeral.push(status),
        }
    }
    let terminal = plan.stopped;
    let initialized_before = previous
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Initialized" && condition.status == "True");
    let mut phase = phase(model, &init, &apps, terminal, initialized_before);
    let mut reason = None;
    let mut message = None;
    match memory
        .termination
        .as_ref()
        .map(|termination| &termination.ending)
    {
        Some(Ending::Failed {
            reason: why,
            message: text,
        }) => {
            phase = "Failed";
            reason = Some(why.clone());
            message = Some(text.clone());
        }
        Some(Ending::Deleted | Ending::Gone) if terminal && !is_final(phase) => phase = "Failed",
        _ => {}
    }
    if let Some(before) = previous.phase.as_deref().filter(|before| is_final(before)) {
        phase = if before == "Failed" {
            "Failed"
        } else {
            "Succeeded"
        };
        reason = previous.reason.clone().or(reason);
        message = previous.message.clone().or(message);
    }
    if terminal && memory.termination.is_some() {
        settle(&mut init, &mut apps, initialized_before);
    }
    let (allocated_resources, resources) = of_the_whole(model, &memory.resize);
    let mut status = PodStatus {
        allocated_resources,
        resources,
        phase: Some(phase.to_owned()),
        reason,
        message,
        qos_class: previous
            .qos_class
            .clone()
            .or_else(|| Some(qos_class(model).to_owned())),
        start_time: previous
            .start_time
            .clone()
            .or_else(|| Some(seconds(memory.seen_at.unwrap_or(inputs.now)))),
        observed_generation: model.pod.metadata.generation,
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: (!apps.is_empty()).then_some(apps),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        ..PodStatus::default()
    };
    addresses(&inputs, &mut status);
    status.conditions = Some(conditions(&inputs, &status));
    status
}

fn is_final(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

fn addresses(inputs: &StatusInputs<'_>, status: &mut PodStatus) {
    let hosts: Vec<String> = inputs.host_ips.iter().map(ToString::to_string).collect();
    status.host_ip = hosts.first().cloned();
    status.host_ips =
        (!hosts.is_empty()).then(|| hosts.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let ips: Vec<String> = if inputs.model.host_network() {
        hosts
    } else {
        let sandbox = inputs.observed.sandbox();
        sandbox
            .map(|s| s.ips.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    };
    if ips.is_empty() || (inputs.model.host_network() && inputs.observed.sandbox().is_none()) {
        status.pod_ip.clone_from(&inputs.previous.pod_ip);
        status.pod_ips.clone_from(&inputs.previous.pod_ips);
    } else {
        status.pod_ip = ips.first().cloned();
        status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
    }
}

fn container_status(inputs: &StatusInputs<'_>, container: &ContainerModel) -> ContainerStatus {
    let name = container.name();
    let latest = inputs.observed.latest(name);
    let spec_image = container.spec.image.clone().unwrap_or_default();
    let mut status = ContainerStatus {
        name: name.to_owned(),
        image: spec_image,
        last_state: Some(ContainerState::default()),
        started: Some(false),
        ..ContainerStatus::default()
    };
    let waiting = inputs
        .plan
        .waiting
        .get(name)
        .map(|waiting| ContainerStateWaiting {
            reason: Some(waiting.reason.clone()),
            message: (!waiting.message.is_empty()).then(|| waiting.message.clone()),
        });
    let Some(latest) = latest else {
        // The runtime has nothing to show. What the status showed of an end still holds.
        if let Some(before) = previous_status(inputs, container)
            && before
                .state
                .as_ref()
                .is_some_and(|state| state.terminated.is_some())
        {
            return before.clone();
        }
        let waiting = waiting.unwrap_or_else(|| ContainerStateWaiting {
            reason: Some("ContainerCreating".to_owned()),
            message: None,
        });
        status.state = Some(ContainerState {
            waiting: Some(waiting),
            ..ContainerState::default()
        });
        return status;
    };
    let earlier = inputs.observed.instances(name).nth(1);
    status.restart_count = i32::try_from(latest.attempt).unwrap_or(i32::MAX);
    let starting = inputs
        .memory
        .containers
        .get(name)
        .is_some_and(|known| known.starting);
    match latest.state {
        RuntimeState::Running if !starting => {
            describe(&inputs.memory.resize, container, latest, &mut status);
            status.state = Some(ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: Some(seconds(timestamp(latest.started_at))),
                }),
                ..ContainerState::default()
            });
            if let Some(earlier) = earlier {
                status.last_state = Some(terminated(inputs, earlier));
            }
        }
        RuntimeState::Created | RuntimeState::Running => {
            let waiting = waiting.unwrap_or_else(|| ContainerStateWaiting {
                reason: Some("ContainerCreating".to_owned()),
                message: None,
            });
            status.state = Some(ContainerState {
                waiting: Some(waiting),
                ..ContainerState::default()
            });
            if let Some(earlier) = earlier {
                describe(&inputs.memory.resize, container, earlier, &mut status);
                status.last_state = Some(terminated(inputs, earlier));
            }
        }
        RuntimeState::Exited | RuntimeState::Unknown => {
            describe(&inputs.memory.resize, container, latest, &mut status);
            let end = terminated(inputs, latest);
            if let Some(waiting) = waiting {
                status.state = Some(ContainerState {
                    waiting: Some(waiting),
                    ..ContainerState::default()
                });
                status.last_state = Some(end);
            } else {
                status.state = Some(end);
                if let Some(earlier) = earlier {
                    status.last_state = Some(terminated(inputs, earlier));
                }
            }
        }
    }
    readiness(inputs, container, latest, &mut status);
    status
}

/// What is granted to the pod as a whole, and what it has, where its specification says so.
fn of_the_whole(
    model: &PodModel,
    resize: &Resize,
) -> (
    Option<BTreeMap<String, Quantity>>,
    Option<ResourceRequirements>,
) {
    let granted = model.spec().and_then(|spec| spec.resources.as_ref());
    let says = |list: &Option<BTreeMap<_, _>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let Some(granted) = granted.filter(|it| says(&it.requests) || says(&it.limits)) else {
        return (None, None);
    };
    let progress = resize.progress.as_ref().filter(|it| !it.limits_set);
    let before = progress.and_then(|progress| progress.whole.clone());
    let has = before.unwrap_or_else(|| granted.clone());
    (granted.requests.clone(), Some(has))
}

fn previous_status<'a>(
    inputs: &StatusInputs<'a>,
    container: &ContainerModel,
) -> Option<&'a ContainerStatus> {
    let list = match container.role {
        Role::Init | Role::Sidecar => &inputs.previous.init_container_statuses,
        Role::App => &inputs.previous.container_statuses,
        Role::Ephemeral => &inputs.previous.ephemeral_container_statuses,
    };
    list.iter()
        .flatten()
        .find(|status| status.name == container.name())
}

/// Image, container id and what was applied.
fn describe(
    resize: &Resize,
    container: &ContainerModel,
    from: &RuntimeStatus,
    status: &mut ContainerStatus,
) {
    status.container_id = Some(format!("evenkeel://{}", from.id));
    if let Some(name) = from.annotations.get(IMAGE_NAME_ANNOTATION) {
        status.image.clone_from(name);
    } else if !from.image.is_empty() {
        status.image.clone_from(&from.image);
    }
    status.image_id = from
        .annotations
        .get(IMAGE_ID_ANNOTATION)
        .unwrap_or(&from.image_id)
        .clone();
    if from.state == RuntimeState::Running && container.role != Role::Ephemeral {
        let resources = container.spec.resources.clone();
        status.allocated_resources = resources.as_ref().and_then(|r| r.requests.clone());
        // What it has, which a resize that is under way has not changed yet.
        let stale = resize.stale.get(container.name());
        let has = stale.filter(|(id, _)| *id == from.id);
        let has = has.map(|(_, has)| has.clone()).or(resources);
        status.resources = Some(has.unwrap_or_default());
    }
    status.volume_mounts = container.spec.volume_mounts.as_ref().map(|mounts| {
        mounts
            .iter()
            .map(|mount| VolumeMountStatus {
                name: mount.name.clone(),
                mount_path: mount.mount_path.clone(),
                read_only: mount.read_only,
                recursive_read_only: mount
                    .read_only
                    .unwrap_or(false)
                    .then(|| "Disabled".to_owned()),
                ..VolumeMountStatus::default()
            })
            .collect()
    });
}

fn terminated(inputs: &StatusInputs<'_>, from: &RuntimeStatus) -> ContainerState {
    let message = inputs
        .messages
        .get(&from.id)
        .filter(|text| !text.is_empty())
        .cloned()
        .or_else(|| (!from.message.is_empty()).then(|| from.message.clone()));
    let reason = if from.reason.is_empty() {
        if from.exit_code == 0 {
            "Completed"
        } else {
            "Error"
        }
    } else {
        &from.reason
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("evenkeel://{}", from.id)),
            exit_code: from.exit_code,
            reason: Some(reason.to_owned()),
            message,
            started_at: Some(seconds(timestamp(from.started_at))),
            finished_at: Some(seconds(timestamp(from.finished_at))),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

fn readiness(
    inputs: &StatusInputs<'_>,
    container: &ContainerModel,
    latest: &RuntimeStatus,
    status: &mut ContainerStatus,
) {
    let is_started = started(container, latest, inputs.memory);
    status.started = Some(is_started);
    status.ready = match container.role {
        Role::Init => ended(latest) && latest.exit_code == 0 && status.state_is_terminated(),
        Role::Ephemeral => false,
        Role::App | Role::Sidecar => {
            let known = inputs.memory.containers.get(container.name());
            let passed = known.is_some_and(|known| {
                known.probes.container_id == latest.id && known.probes.readiness == Some(true)
            });
            is_started && (container.spec.readiness_probe.is_none() || passed)
        }
    };
    if container.role == Role::Ephemeral {
        status.started = None;
    }
}

trait StateOf {
    fn state_is_terminated(&self) -> bool;
}

impl StateOf for ContainerStatus {
    fn state_is_terminated(&self) -> bool {
        self.state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some())
    }
}

/// When a pod has ended, no container stays without an end, unless it never came to run.
fn settle(init: &mut [ContainerStatus], apps: &mut [ContainerStatus], initialized: bool) {
    let lost = |status: &mut ContainerStatus| {
        if status.state_is_terminated() {
            return;
        }
        status.state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some(
                    "The container could not be located when the pod was terminated".to_owned(),
                ),
                exit_code: 137,
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        });
        status.ready = false;
        status.started = Some(false);
    };
    if initialized {
        apps.iter_mut().for_each(lost);
    }
    let ran = |status: &&mut ContainerStatus| {
        status
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
            || status
                .last_state
                .as_ref()
                .is_some_and(|state| state.terminated.is_some())
    };
    init.iter_mut().filter(ran).for_each(lost);
}

#[derive(Default)]
struct Tally {
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
    unknown: usize,
    /// Of those that stopped: will be started again.
    again: usize,
}

/// kubelet's `getPhase`.
fn phase(
    model: &PodModel,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
    terminal: bool,
    initialized: bool,
) -> &'static str {
    let mut pending_init = 0;
    let mut failed_init = 0;
    let mut failed_for_good = false;
    let mut pending_sidecars = 0;
    let mut tally = Tally::default();
    for (container, status) in model.with_role(&[Role::Init, Role::Sidecar]).zip(init) {
        let state = status.state.clone().unwrap_or_default();
        let last_end = status
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        let mut failure = |exit_code: i32| {
            failed_init += 1;
            failed_for_good |= !container.restarts_after(exit_code, model.restart);
        };
        if container.role == Role::Sidecar {
            if state.running.is_some() {
                tally.running += 1;
                pending_sidecars += usize::from(status.started != Some(true));
            } else if state.waiting.is_some() && last_end.is_none() {
                pending_sidecars += 1;
                tally.waiting += 1;
            }
        } else if let Some(end) = &state.terminated {
            if end.exit_code != 0 {
                failure(end.exit_code);
            }
        } else if state.waiting.is_some()
            && let Some(end) = last_end
        {
            if end.exit_code == 0 {
                pending_init += 1;
            } else {
                failure(end.exit_code);
            }
        } else {
            pending_init += 1;
        }
    }
    for (container, status) in model.with_role(&[Role::App]).zip(apps) {
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            tally.running += 1;
        } else if let Some(end) = &state.terminated {
            tally.stopped += 1;
            tally.succeeded += usize::from(end.exit_code == 0);
            let again = container.restarts_after(end.exit_code, model.restart);
            tally.again += usize::from(again);
        } else if state.waiting.is_some() {
            let ran = status
                .last_state
                .as_ref()
                .is_some_and(|last| last.terminated.is_some());
            if ran {
                tally.stopped += 1;
                tally.again += 1;
            } else {
                tally.waiting += 1;
            }
        } else {
            tally.unknown += 1;
        }
    }
    if failed_for_good {
        return "Failed";
    }
    let sidecars_pending = pending_sidecars > 0 && !initialized;
    if pending_init > 0 || failed_init > 0 || sidecars_pending || tally.waiting > 0 {
        return "Pending";
    }
    if tally.unknown > 0 {
        return "Pending";
    }
    if tally.stopped > 0 && (tally.running == 0 || terminal) {
        if tally.again > 0 && !terminal {
            return "Running";
        }
        return if tally.stopped == tally.succeeded {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if tally.running > 0 {
        "Running"
    } else {
        "Pending"
    }
}
