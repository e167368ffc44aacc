//! `PodTopologySpread`: pods of a kind spread evenly over domains of node labels (KEP-895, 3022,
//! 3094, 3243), by the pod's own constraints or by the cluster's defaults.

use std::sync::Arc;

use evenkeel_api::placement::NodeRequirement;
use evenkeel_api::selector::{LabelSelector, Operator, Requirement};
use evenkeel_client::ObjectKey;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::node_affinity;
use super::taints::untolerated;
use crate::framework::{
    Adjustment, ClusterEvent, CycleState, Filter, MAX_NODE_SCORE, Plugin, PreFilter, PreFiltered,
    PreScore, Rejection, Score,
};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot, Topology};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What spreads pods that have no constraints of their own.
#[derive(Debug, Clone, PartialEq)]
pub enum Defaults {
    /// Over nodes and zones, as far as that costs nothing.
    System,
    /// These, about the pods of the same services and owner.
    List(Vec<TopologySpreadConstraint>),
}

/// The plugin.
#[derive(Debug)]
pub struct PodTopologySpread {
    /// For pods without constraints of their own.
    pub defaults: Defaults,
}

#[derive(Debug)]
struct Constraint {
    max_skew: i64,
    min_domains: usize,
    key: String,
    selector: LabelSelector,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    fn read(spec: &TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let mut selector = LabelSelector::from_spec(spec.label_selector.as_ref())
            .unwrap_or_else(|_| LabelSelector::nothing());
        for key in spec.match_label_keys.iter().flatten() {
            if let Some(value) = pod.class.label(key) {
                selector.requirements.push(Requirement {
                    key: key.clone(),
                    operator: Operator::In,
                    values: vec![value.to_owned()],
                });
            }
        }
        Self {
            max_skew: i64::from(spec.max_skew),
            min_domains: spec
                .min_domains
                .and_then(|number| usize::try_from(number).ok())
                .unwrap_or(1),
            key: spec.topology_key.clone(),
            selector,
            honor_affinity: spec.node_affinity_policy.as_deref().unwrap_or("Honor") == "Honor",
            honor_taints: spec.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// Does the node count, by the inclusion policies?
    fn includes(&self, pod: &PodInfo, node: &NodeInfo, required: Option<&NodeRequirement>) -> bool {
        (!self.honor_affinity || required.is_none_or(|required| required.matches(node)))
            && (!self.honor_taints || untolerated(pod, node).is_none())
    }

    /// How many matching pods, not being deleted, each node has.
    fn per_node(&self, snapshot: &Snapshot, pod: &PodInfo) -> Vec<i64> {
        let mut counts = vec![0; snapshot.slots()];
        for pods in snapshot.classes_in(&pod.class.namespace) {
            let class = &pods.class;
            if !class.terminating && self.selector.matches_with(|key| class.label(key)) {
                for (at, count) in &pods.nodes {
                    counts[*at] += i64::from(*count);
                }
            }
        }
        counts
    }
}

fn constraints(pod: &PodInfo, action: &str) -> Vec<Constraint> {
    let all = pod
        .spec()
        .and_then(|spec| spec.topology_spread_constraints.as_ref());
    all.into_iter()
        .flatten()
        .filter(|spec| spec.when_unsatisfiable == action)
        .map(|spec| Constraint::read(spec, pod))
        .collect()
}

impl PodTopologySpread {
    /// The constraints of one action: the pod's own, or the defaults.
    fn constraints(&self, pod: &PodInfo, snapshot: &Snapshot, action: &str) -> Vec<Constraint> {
        if has_own(pod) {
            return constraints(pod, action);
        }
        match &self.defaults {
            Defaults::System if action == "ScheduleAnyway" => defaults(pod, snapshot),
            Defaults::System => Vec::new(),
            Defaults::List(list) => {
                let mut listed = list
                    .iter()
                    .filter(|spec| spec.when_unsatisfiable == action)
                    .peekable();
                if listed.peek().is_none() {
                    return Vec::new();
                }
                let Some(selector) = same_kind(pod, snapshot) else {
                    return Vec::new();
                };
                listed
                    .map(|spec| Constraint {
                        selector: selector.clone(),
                        ..Constraint::read(spec, pod)
                    })
                    .collect()
            }
        }
    }
}

fn has_own(pod: &PodInfo) -> bool {
    pod.spec()
        .and_then(|spec| spec.topology_spread_constraints.as_ref())
        .is_some_and(|all| !all.is_empty())
}

/// The defaults of the cluster: spread over nodes and zones the pods of the same services and
/// owner, as far as these are known.
fn defaults(pod: &PodInfo, snapshot: &Snapshot) -> Vec<Constraint> {
    let Some(selector) = same_kind(pod, snapshot) else {
        return Vec::new();
    };
    let constraint = |key: &str, max_skew| Constraint {
        max_skew,
        min_domains: 1,
        key: key.to_owned(),
        selector: selector.clone(),
        honor_affinity: true,
        honor_taints: false,
    };
    vec![constraint(HOSTNAME, 3), constraint(ZONE, 5)]
}

/// The pods of the same services and owner; `None` when the pod has neither.
fn same_kind(pod: &PodInfo, snapshot: &Snapshot) -> Option<LabelSelector> {
    let mut selector = LabelSelector::default();
    let from = ObjectKey::new(pod.key.namespace.clone(), "");
    let services = snapshot
        .services
        .range(from..)
        .take_while(|(key, _)| key.namespace == pod.key.namespace)
        .map(|(_, selector)| LabelSelector::from_labels(selector))
        .filter(|selector| selector.matches_with(|key| pod.class.label(key)));
    for service in services {
        selector.requirements.extend(service.requirements);
    }
    let owners = pod.pod.metadata.owner_references.iter().flatten();
    let owner = owners
        .into_iter()
        .find(|owner| owner.controller == Some(true));
    let kinds = ["ReplicaSet", "StatefulSet", "ReplicationController"];
    let found = owner.and_then(|owner| {
        let kind = kinds.into_iter().find(|kind| *kind == owner.kind)?;
        Some((kind, owner.name.clone()))
    });
    if let Some((kind, name)) = found {
        let key = ObjectKey::new(pod.key.namespace.clone(), name);
        if let Some(set) = snapshot.controllers.get(&(kind, key)) {
            selector
                .requirements
                .extend(set.requirements.iter().cloned());
        }
    }
    (!selector.is_everything()).then_some(selector)
}

#[derive(Debug)]
struct Hard {
    constraint: Constraint,
    topology: Arc<Topology>,
    /// Matching pods by domain; `None` for domains without a node that counts.
    domains: Vec<Option<i64>>,
    least: i64,
    matches_itself: i64,
}

impl Hard {
    fn count(&mut self) {
        // Where nothing counts, nothing is skewed.
        let counted = || self.domains.iter().flatten();
        let least = counted().copied().min();
        self.least = if counted().count() < self.constraint.min_domains {
            0
        } else {
            least.unwrap_or(i64::from(i32::MAX))
        };
    }
}

#[derive(Debug)]
struct Hards(Vec<Hard>);

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        let counted = |other: &PodInfo| {
            // What default constraints select is not known here.
            other.class.namespace == pod.class.namespace
                && (!has_own(pod)
                    || constraints(pod, "DoNotSchedule").iter().any(|constraint| {
                        constraint
                            .selector
                            .matches_with(|key| other.class.label(key))
                    }))
        };
        match event {
            ClusterEvent::Node { delta, .. } => delta.added || delta.labels || delta.taints,
            ClusterEvent::PodAssigned(other) | ClusterEvent::PodGone(other) => counted(other),
            ClusterEvent::PodLabels(other) => other.class.namespace == pod.class.namespace,
            _ => false,
        }
    }
}

impl PreFilter for PodTopologySpread {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> PreFiltered {
        let constraints = self.constraints(pod, snapshot, "DoNotSchedule");
        if constraints.is_empty() {
            return PreFiltered::Skip;
        }
        let required = node_affinity::required(pod);
        let counts: Vec<Vec<i64>> = constraints
            .iter()
            .map(|constraint| constraint.per_node(snapshot, pod))
            .collect();
        let mut hards: Vec<Hard> = constraints
            .into_iter()
            .map(|constraint| {
                let topology = snapshot.topology(&constraint.key);
                let selects = constraint.selector.matches_with(|key| pod.class.label(key));
                Hard {
                    least: 0,
                    matches_itself: i64::from(selects),
                    domains: vec![None; topology.count()],
                    topology,
                    constraint,
                }
            })
            .collect();
        for at in snapshot.order() {
            if !hards.iter().all(|hard| hard.topology.domain(*at).is_some()) {
                continue;
            }
            let node = snapshot.node(*at);
            for (hard, counts) in hards.iter_mut().zip(&counts) {
                if let Some(domain) = hard.topology.domain(*at)
                    && hard.constraint.includes(pod, node, required.as_ref())
                {
                    *hard.domains[domain].get_or_insert(0) += counts[*at];
                }
            }
        }
        for hard in &mut hards {
            hard.count();
        }
        state.put(Hards(hards));
        PreFiltered::All
    }

    fn adjust(&self, state: &mut CycleState, what: &Adjustment<'_>, amount: i64) {
        let class = &what.other.class;
        if class.terminating || class.namespace != what.pod.class.namespace {
            return;
        }
        let Some(Hards(hards)) = state.get_mut::<Hards>() else {
            return;
        };
        let at = what.node.at;
        if !hards.iter().all(|hard| hard.topology.domain(at).is_some()) {
            return;
        }
        let required = node_affinity::required(what.pod);
        for hard in hards {
            let constraint = &hard.constraint;
            if constraint.selector.matches_with(|key| class.label(key))
                && constraint.includes(what.pod, what.node, required.as_ref())
                && let Some(domain) = hard.topology.domain(at)
                && let Some(count) = &mut hard.domains[domain]
            {
                *count += amount;
                hard.count();
            }
        }
    }
}

impl Filter for PodTopologySpread {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        let Hards(hards) = state.get::<Hards>()?;
        for hard in hards {
            let Some(domain) = hard.topology.domain(node.at) else {
                return Some(Rejection::unresolvable(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            let here = hard.domains[domain].unwrap_or(0);
            if here + hard.matches_itself - hard.least > hard.constraint.max_skew {
                return Some(Rejection::resolvable(
                    "node(s) didn't match pod topology spread constraints",
                ));
            }
        }
        None
    }
}

#[derive(Debug)]
struct Soft {
    constraint: Constraint,
    topology: Arc<Topology>,
    /// Matching pods by node.
    nodes: Vec<i64>,
    /// Matching pods by domain, for other keys than the host name; the last one is of the nodes
    /// without a domain.
    domains: Vec<i64>,
    /// So that few domains weigh as much as many.
    weight: f64,
}

impl Soft {
    /// The place of a node's domain among the sums.
    fn place(&self, at: NodeIndex) -> usize {
        let without = self.topology.count();
        self.topology.domain(at).unwrap_or(without)
    }

    /// How many domains the nodes are in.
    fn spread_over(&self, nodes: impl Iterator<Item = NodeIndex>) -> usize {
        let mut seen = vec![false; self.topology.count() + 1];
        nodes
            .filter(|at| !std::mem::replace(&mut seen[self.place(*at)], true))
            .count()
    }
}

#[derive(Debug)]
struct Softs {
    constraints: Vec<Soft>,
    /// Nodes without one of the keys, by index.
    ignored: Vec<bool>,
}

fn softs(
    constraints: Vec<Constraint>,
    all_keys: bool,
    pod: &PodInfo,
    snapshot: &Snapshot,
    feasible: &[NodeIndex],
) -> Softs {
    let mut constraints: Vec<Soft> = constraints
        .into_iter()
        .map(|constraint| Soft {
            topology: snapshot.topology(&constraint.key),
            nodes: constraint.per_node(snapshot, pod),
            domains: Vec::new(),
            weight: 0.0,
            constraint,
        })
        .collect();
    let ignored: Vec<bool> = if all_keys {
        let has_all = |at| {
            let mut all = constraints.iter();
            all.all(|soft| soft.topology.domain(at).is_some())
        };
        (0..snapshot.slots()).map(|at| !has_all(at)).collect()
    } else {
        vec![false; snapshot.slots()]
    };
    let scored = || feasible.iter().copied().filter(|at| !ignored[*at]);
    let required = node_affinity::required(pod);
    for soft in &mut constraints {
        let mut size = scored().count();
        if soft.constraint.key != HOSTNAME {
            size = soft.spread_over(scored());
            let mut domains = vec![0; soft.topology.count() + 1];
            for (at, count) in soft.nodes.iter().enumerate() {
                let node = snapshot.node(at);
                if *count > 0
                    && node.node.is_some()
                    && !ignored[at]
                    && soft.constraint.includes(pod, node, required.as_ref())
                {
                    domains[soft.place(at)] += count;
                }
            }
            soft.domains = domains;
        }
        soft.weight = ((size + 2) as f64).ln();
    }
    Softs {
        constraints,
        ignored,
    }
}

impl PreScore for PodTopologySpread {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        feasible: &[NodeIndex],
    ) -> bool {
        let all_keys = has_own(pod) || self.defaults != Defaults::System;
        let constraints = self.constraints(pod, snapshot, "ScheduleAnyway");
        if constraints.is_empty() {
            return false;
        }
        // By the defaults a node without a zone is still scored by its host name.
        state.put(softs(constraints, all_keys, pod, snapshot, feasible));
        true
    }
}

impl Score for PodTopologySpread {
    fn score(&self, state: &CycleState, _pod: &PodInfo, _node: &NodeInfo, at: NodeIndex) -> i64 {
        let Some(softs) = state.get::<Softs>() else {
            return 0;
        };
        if softs.ignored[at] {
            return 0;
        }
        let mut score = 0.0;
        for soft in &softs.constraints {
            let Some(domain) = soft.topology.domain(at) else {
                continue;
            };
            // By host name there are no sums.
            let count = soft.domains.get(domain).copied();
            let count = count.unwrap_or_else(|| soft.nodes[at]);
            score += count as f64 * soft.weight + (soft.constraint.max_skew - 1) as f64;
        }
        #[allow(clippy::cast_possible_truncation, reason = "pods times a small weight")]
        let score = score.round() as i64;
        score
    }

    fn normalize(
        &self,
        state: &CycleState,
        _snapshot: &Snapshot,
        nodes: &[NodeIndex],
        scores: &mut [i64],
    ) {
        let Some(softs) = state.get::<Softs>() else {
            return;
        };
        let counted = || {
            let pairs = nodes.iter().zip(scores.iter());
            pairs
                .filter(|(at, _)| !softs.ignored[**at])
                .map(|(_, score)| *score)
        };
        let (most, least) = (counted().max().unwrap_or(0), counted().min().unwrap_or(0));
        for (at, score) in nodes.iter().zip(scores.iter_mut()) {
            *score = if softs.ignored[*at] {
                0
            } else if most == 0 {
                MAX_NODE_SCORE
            } else {
                MAX_NODE_SCORE * (most + least - *score) / most
            };
        }
    }
}
