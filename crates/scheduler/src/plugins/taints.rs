//! `TaintToleration`: nodes keep away pods that do not tolerate their taints.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::framework::{
    ClusterEvent, CycleState, Filter, Plugin, PreScore, Rejection, Score, default_normalize,
};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};

/// The plugin.
#[derive(Debug)]
pub struct TaintToleration;

/// Does the toleration tolerate the taint? An empty key with `Exists` tolerates everything, an
/// empty effect all effects. `Gt` and `Lt` compare integers (KEP-5471): the taint's value must be
/// above, or below, the toleration's.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    if given(&toleration.key).is_some_and(|key| key != taint.key) {
        return false;
    }
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let value = taint.value.as_deref().unwrap_or_default();
    let compared = |holds: fn(i64, i64) -> bool| match (value.parse(), wanted.parse()) {
        (Ok(value), Ok(wanted)) => holds(value, wanted),
        _ => false,
    };
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => value == wanted,
        "Exists" => true,
        "Gt" => compared(|value, wanted| value > wanted),
        "Lt" => compared(|value, wanted| value < wanted),
        _ => false,
    }
}

/// Does any of a pod's tolerations tolerate the taint?
#[must_use]
pub fn tolerated(pod: &PodInfo, taint: &Taint) -> bool {
    pod.spec()
        .and_then(|spec| spec.tolerations.as_ref())
        .into_iter()
        .flatten()
        .any(|toleration| tolerates(toleration, taint))
}

fn taints(node: &NodeInfo) -> impl Iterator<Item = &Taint> {
    let object = node.node.as_ref().filter(|_| node.guarded);
    object
        .into_iter()
        .filter_map(|node| node.spec.as_ref()?.taints.as_ref())
        .flatten()
}

/// The first taint that keeps the pod away.
#[must_use]
pub fn untolerated<'a>(pod: &PodInfo, node: &'a NodeInfo) -> Option<&'a Taint> {
    taints(node).find(|taint| {
        (taint.effect == "NoSchedule" || taint.effect == "NoExecute") && !tolerated(pod, taint)
    })
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { node, delta } => {
                (delta.added || delta.taints) && untolerated(pod, node).is_none()
            }
            _ => false,
        }
    }
}

impl Filter for TaintToleration {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        untolerated(pod, node)
            .is_some()
            .then(|| Rejection::unresolvable("node(s) had untolerated taint(s)"))
    }

    fn detail(&self, pod: &PodInfo, node: &NodeInfo) -> Option<String> {
        let taint = untolerated(pod, node)?;
        Some(format!(
            "taint {{{}: {}}}",
            taint.key,
            taint.value.as_deref().unwrap_or_default()
        ))
    }
}

impl PreScore for TaintToleration {
    fn pre_score(
        &self,
        _state: &mut CycleState,
        _pod: &PodInfo,
        snapshot: &Snapshot,
        feasible: &[NodeIndex],
    ) -> bool {
        feasible
            .iter()
            .any(|at| taints(snapshot.node(*at)).any(|taint| taint.effect == "PreferNoSchedule"))
    }
}

impl Score for TaintToleration {
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo, _at: NodeIndex) -> i64 {
        let intolerable = taints(node)
            .filter(|taint| taint.effect == "PreferNoSchedule" && !tolerated(pod, taint))
            .count();
        i64::try_from(intolerable).unwrap_or(i64::MAX)
    }

    fn normalize(
        &self,
        _state: &CycleState,
        _snapshot: &Snapshot,
        _nodes: &[NodeIndex],
        scores: &mut [i64],
    ) {
        default_normalize(scores, true);
    }
}
