//! Small filters on the node itself: `NodeUnschedulable`, `NodeName`, `NodePorts`.

use k8s_openapi::api::core::v1::Taint;

use super::taints::tolerated;
use crate::framework::{
    ClusterEvent, CycleState, Filter, Plugin, PreFilter, PreFiltered, Rejection,
};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// Cordoned nodes take only pods that tolerate it.
#[derive(Debug)]
pub struct NodeUnschedulable;

fn cordoned(pod: &PodInfo, node: &NodeInfo) -> bool {
    if !node.guarded {
        return false;
    }
    let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
    if spec.is_none_or(|spec| spec.unschedulable != Some(true)) {
        return false;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    !tolerated(pod, &taint)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { node, delta } => {
                (delta.added || delta.unschedulable) && !cordoned(pod, node)
            }
            _ => false,
        }
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        cordoned(pod, node).then(|| Rejection::unresolvable("node(s) were unschedulable"))
    }
}

/// A pod that names a node goes there. (Once bound it is no longer scheduled; this is for pods
/// that are looked at as if they were not.)
#[derive(Debug)]
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { node, delta } => {
                delta.added && pod.node_name().is_none_or(|name| *node.name == *name)
            }
            _ => false,
        }
    }
}

impl PreFilter for NodeName {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> PreFiltered {
        if pod.node_name().is_some() {
            PreFiltered::All
        } else {
            PreFiltered::Skip
        }
    }
}

impl Filter for NodeName {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        pod.node_name()
            .is_some_and(|name| *node.name != *name)
            .then(|| Rejection::unresolvable("node(s) didn't match the requested node name"))
    }
}

/// No two pods share a host port.
#[derive(Debug)]
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { delta, .. } => delta.added,
            ClusterEvent::PodGone(gone) => pod
                .ports
                .iter()
                .any(|port| gone.ports.iter().any(|held| held.conflicts(port))),
            _ => false,
        }
    }
}

impl PreFilter for NodePorts {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> PreFiltered {
        if pod.ports.is_empty() {
            PreFiltered::Skip
        } else {
            PreFiltered::All
        }
    }
}

impl Filter for NodePorts {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        pod.ports
            .iter()
            .any(|port| node.ports.iter().any(|held| held.conflicts(port)))
            .then(|| {
                Rejection::resolvable("node(s) didn't have free ports for the requested pod ports")
            })
    }
}
