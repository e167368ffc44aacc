//! The status of one container, from what the runtime shows of it and what it was before: kubelet's
//! `convertToAPIContainerStatuses`. Pure.

use evenkeel_runtime::{ContainerState as RuntimeState, ContainerStatus as RuntimeStatus};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, LinuxContainerUser, VolumeMountStatus,
};

use super::{IMAGE_ID_ANNOTATION, IMAGE_NAME_ANNOTATION, StatusInputs, seconds};
use crate::pod::model::{ContainerModel, Role};
use crate::pod::plan::{ended, started, timestamp};
use crate::pod::resize::Resize;

/// The status of one container.
pub(super) fn container_status(
    inputs: &StatusInputs<'_>,
    container: &ContainerModel,
) -> ContainerStatus {
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
    status.user = from.user.as_ref().map(|user| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: Some(user.groups.iter().map(|gid| i64::from(*gid)).collect()),
        }),
    });
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
        Role::Init => ended(latest) && latest.exit_code == 0 && is_terminated(status),
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

fn is_terminated(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    state.is_some_and(|state| state.terminated.is_some())
}

/// When a pod has ended, no container stays without an end, unless it never came to run.
pub(super) fn settle(
    init: &mut [ContainerStatus],
    apps: &mut [ContainerStatus],
    initialized: bool,
) {
    let lost = |status: &mut ContainerStatus| {
        if is_terminated(status) {
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
