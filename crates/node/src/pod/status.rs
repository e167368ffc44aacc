//! Computes a pod's status from what is known of it, in kubelet's words.
//!
//! Pure. What each container says is in `container`, what follows for the pod as a whole in `phase`
//! and in [`super::conditions`].

mod container;
mod phase;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, PodIP, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::conditions;
use super::memory::{Ending, Memory, VolumesState};
use super::model::{PodModel, Role};
use super::observed::Observed;
use super::plan::Plan;
use super::resize::Resize;
use crate::spec::resources::qos_class;
use container::{container_status, settle};
use phase::phase;

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

impl StatusInputs<'_> {
    /// Have the volumes been there? The reference makes the sandbox when they are. Here both are made
    /// at once, and what has come of it is told in that order.
    pub(super) fn volumes_came(&self) -> bool {
        self.memory.volumes == VolumesState::Ready || !self.observed.containers.is_empty()
    }
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
        // While something runs, what is in its place must not start: the end is told when it has come.
        Some(Ending::Failed {
            reason: why,
            message: text,
        }) if terminal => {
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
    if never_begun(&inputs) {
        (init, apps, ephemeral) = Default::default();
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

/// The node ended the pod before anything of it was there: it has no containers to tell of.
fn never_begun(inputs: &StatusInputs<'_>) -> bool {
    let ending = inputs.memory.termination.as_ref().map(|it| &it.ending);
    let lists = [
        &inputs.previous.init_container_statuses,
        &inputs.previous.container_statuses,
    ];
    matches!(ending, Some(Ending::Failed { .. }))
        && inputs.observed.is_empty()
        && lists.into_iter().all(Option::is_none)
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
            .filter(|_| inputs.volumes_came())
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
