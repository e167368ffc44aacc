//! Why a group of pods has no nodes: there is no such group, too few of its pods exist, or too few
//! of them fit. Pure.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1beta1::PodGroup;

use crate::chain::{Chain, unscheduled};

/// Pods whose reasons are told.
const TOLD: usize = 5;

/// The group that a pod says it belongs to, while it has no node.
pub(crate) fn waits_for(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    let free = pod.metadata.deletion_timestamp.is_none();
    let unbound = spec.node_name.as_deref().unwrap_or_default().is_empty();
    let group = spec.scheduling_group.as_ref()?.pod_group_name.as_deref();
    group.filter(|_| free && unbound)
}

fn has_ended(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn has_node(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let node = spec.and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| !node.is_empty())
}

/// There is no such group.
pub(crate) fn missing(namespace: &str, name: &str) -> Chain {
    let mut chain = Chain::default();
    chain.link(
        format!("PodGroup {namespace}/{name}"),
        "does not exist; pods of the group wait for it",
    );
    chain.step(format!(
        "create the PodGroup {name} in namespace {namespace}, or make the pods without \
         spec.schedulingGroup"
    ));
    chain
}

/// Explains a group from its status and its pods.
pub(crate) fn group(group: &PodGroup, pods: &[Pod]) -> Chain {
    let mut chain = Chain::default();
    let meta = &group.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let this = format!("PodGroup {namespace}/{name}");
    let members: Vec<&Pod> = pods.iter().filter(|pod| !has_ended(pod)).collect();
    let placed = members.iter().filter(|pod| has_node(pod)).count();
    let gang = group.spec.scheduling_policy.gang.as_ref();
    let min = gang.map_or(1, |gang| usize::try_from(gang.min_count).unwrap_or(1));
    if gang.is_some() && members.len() < min {
        chain.link(
            &this,
            format!(
                "places at least {min} pods at once, and {} of them exist",
                members.len()
            ),
        );
        chain.step(format!(
            "create the other pods of the group, or lower its spec.schedulingPolicy.gang.minCount: \
             kubectl edit podgroup {name} -n {namespace}"
        ));
        return chain;
    }
    if placed == members.len() {
        chain.link(
            &this,
            format!("has {placed} pods, and all of them have nodes"),
        );
        return chain;
    }
    let conditions = group.status.as_ref().and_then(|it| it.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    let told = conditions.find(|it| it.type_ == "PodGroupInitiallyScheduled");
    let why = match told {
        Some(told) if told.status == "False" => format!(": {}: {}", told.reason, told.message),
        _ => String::new(),
    };
    chain.link(
        &this,
        format!(
            "has {} pods, of which {placed} have nodes; it places at least {min} at once{why}",
            members.len()
        ),
    );
    let mut hint = None;
    for pod in members.iter().filter(|pod| !has_node(pod)).take(TOLD) {
        let message = unscheduled(pod).unwrap_or_else(|| "waits to be tried".to_owned());
        if message.contains("nodes are available") {
            hint.get_or_insert_with(|| crate::chain::next_for_scheduling(&message));
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        chain.detail(format!("{name}: {message}"));
    }
    chain.step(hint.unwrap_or_else(|| {
        format!(
            "see what the scheduler says of it: kubectl describe podgroup {name} -n {namespace}"
        )
    }));
    chain
}
