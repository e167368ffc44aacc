//! `InterPodAffinity`: near some pods, away from others, over domains of node labels.
//!
//! Counts are taken over classes of pods: a term is evaluated once per class, then added up over
//! the nodes that have pods of it.

use std::sync::Arc;

use crate::affinity::Term;
use crate::framework::{
    Adjustment, ClusterEvent, CycleState, Filter, MAX_NODE_SCORE, Plugin, PreFilter, PreFiltered,
    PreScore, Rejection, Score,
};
use crate::pod::PodInfo;
use crate::snapshot::{ClassCount, NodeIndex, NodeInfo, Snapshot, Topology};

/// The plugin.
#[derive(Debug)]
pub struct InterPodAffinity {
    /// What an existing pod's required affinity toward the pod adds to a node's score.
    pub hard_affinity_weight: i64,
}

/// Numbers by domain of one topology key.
#[derive(Debug)]
struct Counts {
    key: String,
    topology: Arc<Topology>,
    of: Vec<i64>,
    /// How many of them are not zero.
    some: usize,
}

impl Counts {
    fn shift(&mut self, at: NodeIndex, amount: i64) {
        let Some(count) = self
            .topology
            .domain(at)
            .and_then(|domain| self.of.get_mut(domain))
        else {
            return;
        };
        let before = *count;
        *count += amount;
        match (before, *count) {
            (0, 0) => {}
            (0, _) => self.some += 1,
            (_, 0) => self.some -= 1,
            _ => {}
        }
    }

    fn at(&self, node: &NodeInfo) -> i64 {
        let domain = self.topology.domain(node.at);
        domain.map_or(0, |domain| self.of[domain])
    }
}

/// Numbers by topology key and domain. Few keys, so they are searched one by one.
#[derive(Debug, Default)]
struct Domains(Vec<Counts>);

impl Domains {
    fn of(&mut self, snapshot: &Snapshot, key: &str) -> &mut Counts {
        let known = self.0.iter().position(|counts| counts.key == key);
        let at = known.unwrap_or_else(|| {
            let topology = snapshot.topology(key);
            self.0.push(Counts {
                key: key.to_owned(),
                of: vec![0; topology.count()],
                topology,
                some: 0,
            });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// Adds `amount` per pod of the class in the domains of the nodes they are on.
    fn add(&mut self, snapshot: &Snapshot, key: &str, pods: &ClassCount, amount: i64) {
        let counts = self.of(snapshot, key);
        for (at, count) in &pods.nodes {
            counts.shift(*at, amount * i64::from(*count));
        }
    }

    /// Adds in the node's own domain.
    fn shift(&mut self, snapshot: &Snapshot, node: &NodeInfo, key: &str, amount: i64) {
        self.of(snapshot, key).shift(node.at, amount);
    }

    fn get(&self, node: &NodeInfo, key: &str) -> i64 {
        let mut all = self.0.iter();
        all.find(|counts| counts.key == key)
            .map_or(0, |counts| counts.at(node))
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|counts| counts.some == 0)
    }
}

#[derive(Debug, Default)]
struct Counted {
    affinity: Domains,
    anti_affinity: Domains,
    existing_anti_affinity: Domains,
    matches_itself: bool,
}

#[derive(Debug)]
struct Preferred(Domains);

fn all_match(terms: &[Term], class: &crate::pod::PodClass, snapshot: &Snapshot) -> bool {
    terms
        .iter()
        .all(|term| term.matches(class, &snapshot.namespaces))
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        let about =
            |terms: &[Term], other: &PodInfo| terms.iter().any(|term| term.may_match(&other.class));
        let wanted = |other: &PodInfo| {
            pod.terms
                .as_ref()
                .is_some_and(|terms| about(&terms.affinity, other))
        };
        match event {
            ClusterEvent::Node { delta, .. } => delta.added || delta.labels,
            ClusterEvent::PodAssigned(other) => wanted(other),
            ClusterEvent::PodLabels(_) | ClusterEvent::Namespace => true,
            ClusterEvent::PodGone(other) => {
                wanted(other)
                    || pod
                        .terms
                        .as_ref()
                        .is_some_and(|terms| about(&terms.anti_affinity, other))
                    || other
                        .terms
                        .as_ref()
                        .is_some_and(|terms| about(&terms.anti_affinity, pod))
            }
            _ => false,
        }
    }
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> PreFiltered {
        let mut counted = Counted::default();
        for pods in snapshot.classes_with_terms() {
            for term in pods
                .example
                .terms
                .iter()
                .flat_map(|terms| &terms.anti_affinity)
            {
                if term.matches(&pod.class, &snapshot.namespaces) {
                    let domains = &mut counted.existing_anti_affinity;
                    domains.add(snapshot, &term.topology_key, pods, 1);
                }
            }
        }
        if let Some(terms) = pod.terms.as_ref()
            && (!terms.affinity.is_empty() || !terms.anti_affinity.is_empty())
        {
            for pods in snapshot.classes() {
                if !terms.affinity.is_empty() && all_match(&terms.affinity, &pods.class, snapshot) {
                    for term in &terms.affinity {
                        counted.affinity.add(snapshot, &term.topology_key, pods, 1);
                    }
                }
                for term in &terms.anti_affinity {
                    if term.matches(&pods.class, &snapshot.namespaces) {
                        counted
                            .anti_affinity
                            .add(snapshot, &term.topology_key, pods, 1);
                    }
                }
            }
            counted.matches_itself = all_match(&terms.affinity, &pod.class, snapshot);
            state.put(counted);
            return PreFiltered::All;
        }
        if counted.existing_anti_affinity.is_empty() {
            return PreFiltered::Skip;
        }
        state.put(counted);
        PreFiltered::All
    }

    fn adjust(&self, state: &mut CycleState, what: &Adjustment<'_>, amount: i64) {
        let Some(counted) = state.get_mut::<Counted>() else {
            return;
        };
        let (pod, other, snapshot) = (what.pod, what.other, what.snapshot);
        let matches = |term: &Term, seen: &PodInfo| term.matches(&seen.class, &snapshot.namespaces);
        for term in other.terms.iter().flat_map(|terms| &terms.anti_affinity) {
            if matches(term, pod) {
                counted.existing_anti_affinity.shift(
                    snapshot,
                    what.node,
                    &term.topology_key,
                    amount,
                );
            }
        }
        let Some(terms) = &pod.terms else {
            return;
        };
        if !terms.affinity.is_empty() && all_match(&terms.affinity, &other.class, snapshot) {
            for term in &terms.affinity {
                counted
                    .affinity
                    .shift(snapshot, what.node, &term.topology_key, amount);
            }
        }
        for term in &terms.anti_affinity {
            if matches(term, other) {
                counted
                    .anti_affinity
                    .shift(snapshot, what.node, &term.topology_key, amount);
            }
        }
    }
}

/// Is every term met on the node? The first pod of a group that wants to be near its own kind
/// finds nobody and may go to any node that has the labels.
fn affinity_met(terms: &[Term], counted: &Counted, node: &NodeInfo) -> bool {
    let mut met = true;
    for term in terms {
        if node.label(&term.topology_key).is_none() {
            return false;
        }
        met &= counted.affinity.get(node, &term.topology_key) > 0;
    }
    met || (counted.affinity.is_empty() && counted.matches_itself)
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        let counted = state.get::<Counted>()?;
        if let Some(terms) = &pod.terms {
            if !affinity_met(&terms.affinity, counted, node) {
                return Some(Rejection::unresolvable(
                    "node(s) didn't match pod affinity rules",
                ));
            }
            let crowded = terms
                .anti_affinity
                .iter()
                .any(|term| counted.anti_affinity.get(node, &term.topology_key) > 0);
            if crowded {
                return Some(Rejection::resolvable(
                    "node(s) didn't match pod anti-affinity rules",
                ));
            }
        }
        let existing = &counted.existing_anti_affinity;
        let unwanted = existing.0.iter().any(|counts| counts.at(node) > 0);
        unwanted.then(|| {
            Rejection::resolvable("node(s) didn't satisfy existing pods anti-affinity rules")
        })
    }
}

impl PreScore for InterPodAffinity {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        _feasible: &[NodeIndex],
    ) -> bool {
        let mut domains = Domains::default();
        let namespaces = &snapshot.namespaces;
        let mut weigh = |term: &Term, seen: &PodInfo, pods: &ClassCount, weight: i64| {
            if term.matches(&seen.class, namespaces) {
                domains.add(snapshot, &term.topology_key, pods, weight);
            }
        };
        if let Some(terms) = &pod.terms
            && (!terms.preferred.is_empty() || !terms.preferred_anti.is_empty())
        {
            for pods in snapshot.classes() {
                for term in &terms.preferred {
                    weigh(term, &pods.example, pods, term.weight);
                }
                for term in &terms.preferred_anti {
                    weigh(term, &pods.example, pods, -term.weight);
                }
            }
        }
        for pods in snapshot.classes_with_terms() {
            let Some(terms) = &pods.example.terms else {
                continue;
            };
            for term in &terms.affinity {
                weigh(term, pod, pods, self.hard_affinity_weight);
            }
            for term in &terms.preferred {
                weigh(term, pod, pods, term.weight);
            }
            for term in &terms.preferred_anti {
                weigh(term, pod, pods, -term.weight);
            }
        }
        let any = !domains.is_empty();
        state.put(Preferred(domains));
        any
    }
}

impl Score for InterPodAffinity {
    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo, _at: NodeIndex) -> i64 {
        let Some(Preferred(domains)) = state.get::<Preferred>() else {
            return 0;
        };
        domains.0.iter().map(|counts| counts.at(node)).sum()
    }

    fn normalize(
        &self,
        _state: &CycleState,
        _snapshot: &Snapshot,
        _nodes: &[NodeIndex],
        scores: &mut [i64],
    ) {
        let most = scores.iter().copied().max().unwrap_or(0);
        let least = scores.iter().copied().min().unwrap_or(0);
        for score in scores {
            *score = if most == least {
                0
            } else {
                MAX_NODE_SCORE * (*score - least) / (most - least)
            };
        }
    }
}
