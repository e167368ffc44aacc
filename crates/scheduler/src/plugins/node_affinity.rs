//! `NodeAffinity`: node selectors, required and preferred terms, by labels and by name.

use evenkeel_api::placement::{NodeRequirement, NodeTerm, Selectable};
use k8s_openapi::api::core::v1::NodeAffinity as Spec;

use crate::framework::{
    ClusterEvent, CycleState, Filter, Plugin, PreFilter, PreFiltered, PreScore, Rejection, Score,
    default_normalize,
};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};

/// The plugin.
#[derive(Debug)]
pub struct NodeAffinity;

impl Selectable for NodeInfo {
    fn name(&self) -> &str {
        &self.name
    }

    fn label(&self, key: &str) -> Option<&str> {
        Self::label(self, key)
    }
}

/// What a pod requires of a node; `None` when any will do.
pub(super) fn required(pod: &PodInfo) -> Option<NodeRequirement> {
    pod.spec().and_then(NodeRequirement::read)
}

/// The nodes it names, if every term does: the pods of a DaemonSet look at one node only.
fn confined(required: &NodeRequirement, snapshot: &Snapshot) -> Option<Vec<NodeIndex>> {
    let terms = required.terms()?;
    let mut nodes = Vec::new();
    for term in terms {
        let named = term.names()?.into_iter();
        nodes.extend(named.filter_map(|name| snapshot.find(name)));
    }
    nodes.sort_unstable();
    nodes.dedup();
    (!terms.is_empty()).then_some(nodes)
}

fn affinity(pod: &PodInfo) -> Option<&Spec> {
    pod.spec()?.affinity.as_ref()?.node_affinity.as_ref()
}

#[derive(Debug)]
struct Preferred(Vec<(NodeTerm, i64)>);

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { node, delta } => {
                (delta.added || delta.labels)
                    && required(pod).is_none_or(|required| required.matches(*node))
            }
            _ => false,
        }
    }
}

impl PreFilter for NodeAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> PreFiltered {
        let Some(required) = required(pod) else {
            return PreFiltered::Skip;
        };
        let confined = confined(&required, snapshot);
        state.put(required);
        confined.map_or(PreFiltered::All, PreFiltered::Only)
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        let required = state.get::<NodeRequirement>()?;
        (!required.matches(node))
            .then(|| Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }
}

impl PreScore for NodeAffinity {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _snapshot: &Snapshot,
        _feasible: &[NodeIndex],
    ) -> bool {
        let terms: Vec<(NodeTerm, i64)> = affinity(pod)
            .and_then(|spec| {
                spec.preferred_during_scheduling_ignored_during_execution
                    .as_ref()
            })
            .into_iter()
            .flatten()
            .filter(|item| item.weight != 0)
            .filter_map(|item| Some((NodeTerm::read(&item.preference)?, i64::from(item.weight))))
            .collect();
        let any = !terms.is_empty();
        state.put(Preferred(terms));
        any
    }
}

impl Score for NodeAffinity {
    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo, _at: NodeIndex) -> i64 {
        let Some(Preferred(terms)) = state.get::<Preferred>() else {
            return 0;
        };
        terms
            .iter()
            .filter(|(term, _)| term.matches(node))
            .map(|(_, weight)| weight)
            .sum()
    }

    fn normalize(
        &self,
        _state: &CycleState,
        _snapshot: &Snapshot,
        _nodes: &[NodeIndex],
        scores: &mut [i64],
    ) {
        default_normalize(scores, false);
    }
}
