//! The conditions of a pod that the node owns.
//!
//! Conditions of other owners (readiness gates, `DisruptionTarget` …) are read, never written:
//! status patches merge by type and leave them alone.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::model::{ContainerModel, PodModel, Role};
use super::status::{StatusInputs, seconds};

/// Conditions that are there only while they hold.
pub(super) const RESIZE: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// What a condition says.
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn holds() -> Self {
        Self {
            holds: true,
            reason: None,
            message: None,
        }
    }

    fn not(reason: &'static str, message: String) -> Self {
        let message = (!message.is_empty()).then_some(message);
        Self {
            holds: false,
            reason: Some(reason),
            message,
        }
    }
}

/// The node's conditions for a status that is complete but for them.
pub(super) fn conditions(inputs: &StatusInputs<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let model = inputs.model;
    let phase = status.phase.as_deref().unwrap_or_default();
    let init = status
        .init_container_statuses
        .as_deref()
        .unwrap_or_default();
    let apps = status.container_statuses.as_deref().unwrap_or_default();
    let sandbox = Verdict {
        holds: inputs.observed.ready_sandbox().is_some()
            && inputs.volumes_came()
            && !inputs.plan.stopped
            && (model.host_network() || status.pod_ip.is_some()),
        reason: None,
        message: None,
    };
    let initialized = initialized(model, init, apps, phase);
    let containers = containers_ready(model, init, apps, phase);
    let ready = if containers.holds {
        readiness_gates(inputs)
    } else {
        Verdict {
            holds: false,
            reason: containers.reason,
            message: containers.message.clone(),
        }
    };
    let mut out = vec![
        condition(inputs, "PodReadyToStartContainers", sandbox),
        condition(inputs, "Initialized", initialized),
        condition(inputs, "Ready", ready),
        condition(inputs, "ContainersReady", containers),
    ];
    if let Some(message) = &inputs.memory.disruption {
        let disrupted = Verdict {
            holds: true,
            reason: Some("TerminationByKubelet"),
            message: Some(message.clone()),
        };
        out.push(condition(inputs, "DisruptionTarget", disrupted));
    }
    if let Some(pending) = &inputs.memory.resize.pending {
        let waits = Verdict {
            holds: true,
            reason: Some(pending.reason),
            message: Some(pending.message.clone()),
        };
        out.push(condition(inputs, RESIZE[0], waits));
    }
    if let Some(progress) = &inputs.memory.resize.progress {
        let goes = Verdict {
            holds: true,
            reason: progress.error.as_ref().map(|_| "Error"),
            message: progress.error.as_ref().map(|(why, _)| why.clone()),
        };
        out.push(condition(inputs, RESIZE[1], goes));
    }
    let scheduled = Verdict::holds();
    let has_scheduled = inputs
        .previous
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "PodScheduled" && condition.status == "True");
    if !has_scheduled {
        out.push(condition(inputs, "PodScheduled", scheduled));
    }
    out
}

fn condition(inputs: &StatusInputs<'_>, type_: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let before = inputs
        .previous
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == type_ && condition.status == status);
    let last_transition_time: Option<Time> = before
        .and_then(|condition| condition.last_transition_time.clone())
        .or_else(|| Some(seconds(inputs.now)));
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_probe_time: None,
        last_transition_time,
        observed_generation: inputs.model.pod.metadata.generation,
    }
}

fn initialized(
    model: &PodModel,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
    phase: &str,
) -> Verdict {
    if phase == "Succeeded" {
        return Verdict {
            reason: Some("PodCompleted"),
            ..Verdict::holds()
        };
    }
    // An app container that ran proves it, even while a sidecar starts again.
    let ran = apps.iter().any(|status| {
        let runs_or_ran = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
            state
                .as_ref()
                .is_some_and(|s| s.running.is_some() || s.terminated.is_some())
        };
        runs_or_ran(&status.state) || runs_or_ran(&status.last_state)
    });
    if ran {
        return Verdict::holds();
    }
    let incomplete: Vec<&str> = pair(model, &[Role::Init, Role::Sidecar], init)
        .filter(|(container, status)| match container.role {
            Role::Sidecar => status.started != Some(true),
            _ => !status.ready,
        })
        .map(|(container, _)| container.name())
        .collect();
    if incomplete.is_empty() {
        return Verdict::holds();
    }
    Verdict::not(
        "ContainersNotInitialized",
        format!(
            "containers with incomplete status: [{}]",
            incomplete.join(" ")
        ),
    )
}

fn containers_ready(
    model: &PodModel,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
    phase: &str,
) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::not("PodCompleted", String::new()),
        "Failed" => return Verdict::not("PodFailed", String::new()),
        _ => {}
    }
    let unready: Vec<&str> = pair(model, &[Role::Init, Role::Sidecar], init)
        .filter(|(container, _)| container.role == Role::Sidecar)
        .chain(pair(model, &[Role::App], apps))
        .filter(|(_, status)| !status.ready)
        .map(|(container, _)| container.name())
        .collect();
    if unready.is_empty() {
        return Verdict::holds();
    }
    Verdict::not(
        "ContainersNotReady",
        format!("containers with unready status: [{}]", unready.join(" ")),
    )
}

fn pair<'a>(
    model: &'a PodModel,
    roles: &'static [Role],
    statuses: &'a [ContainerStatus],
) -> impl Iterator<Item = (&'a ContainerModel, &'a ContainerStatus)> {
    model.with_role(roles).zip(statuses)
}

fn readiness_gates(inputs: &StatusInputs<'_>) -> Verdict {
    let gates = inputs
        .model
        .spec()
        .and_then(|spec| spec.readiness_gates.as_ref());
    // What other owners wrote is in the object as the API has it now.
    let now = inputs
        .model
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut unready = Vec::new();
    for gate in gates.into_iter().flatten() {
        let name = &gate.condition_type;
        match now
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == *name)
        {
            None => unready.push(format!(
                "corresponding condition of pod readiness gate \"{name}\" does not exist."
            )),
            Some(condition) if condition.status != "True" => unready.push(format!(
                "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    if unready.is_empty() {
        return Verdict::holds();
    }
    Verdict::not("ReadinessGatesNotReady", unready.join(", "))
}
