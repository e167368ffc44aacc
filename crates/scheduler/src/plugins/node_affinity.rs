//! `NodeAffinity`: node selectors, required and preferred terms, by labels and by name.

use k8s_openapi::api::core::v1::{NodeAffinity as Spec, NodeSelectorRequirement, NodeSelectorTerm};

use evenkeel_api::selector::{Operator, Requirement};

use crate::framework::{
    ClusterEvent, CycleState, Filter, Plugin, PreFilter, PreFiltered, PreScore, Rejection, Score,
    default_normalize,
};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};

/// The plugin.
#[derive(Debug)]
pub struct NodeAffinity;

/// One term: all of its conditions must hold. `None` for a term without any, which matches
/// nothing.
#[derive(Debug)]
pub struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

fn requirements(list: &Option<Vec<NodeSelectorRequirement>>) -> Option<Vec<Requirement>> {
    list.iter()
        .flatten()
        .map(|item| {
            let operator = match item.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                "Gt" => Operator::GreaterThan,
                "Lt" => Operator::LessThan,
                _ => return None,
            };
            Some(Requirement {
                key: item.key.clone(),
                operator,
                values: item.values.clone().unwrap_or_default(),
            })
        })
        .collect()
}

impl Term {
    /// Reads a term. `None` when it is empty or cannot be read: such a term matches no node.
    #[must_use]
    pub fn read(term: &NodeSelectorTerm) -> Option<Self> {
        let labels = requirements(&term.match_expressions)?;
        let fields = requirements(&term.match_fields)?;
        (!labels.is_empty() || !fields.is_empty()).then_some(Self { labels, fields })
    }

    /// Does the node match?
    #[must_use]
    pub fn matches(&self, node: &NodeInfo) -> bool {
        self.labels
            .iter()
            .all(|item| item.matches(node.label(&item.key)))
            && self.fields.iter().all(|item| {
                // The one field there is.
                item.key == "metadata.name" && item.matches(Some(&node.name))
            })
    }

    /// The names to which `matchFields` confines the term.
    fn names(&self) -> Option<Vec<&str>> {
        let mut names: Option<Vec<&str>> = None;
        for item in &self.fields {
            if item.key == "metadata.name" && item.operator == Operator::In {
                let these: Vec<&str> = item.values.iter().map(String::as_str).collect();
                names = Some(match names {
                    None => these,
                    Some(before) => before
                        .into_iter()
                        .filter(|name| these.contains(name))
                        .collect(),
                });
            }
        }
        names
    }
}

/// What a pod requires of a node: its node selector and one of the terms.
#[derive(Debug)]
pub struct Required {
    selector: Vec<(String, String)>,
    terms: Option<Vec<Term>>,
}

impl Required {
    /// Reads it from a pod; `None` when it requires nothing.
    #[must_use]
    pub fn read(pod: &PodInfo) -> Option<Self> {
        let selector = pod.spec()?.node_selector.clone().unwrap_or_default();
        let terms = affinity(pod)
            .and_then(|spec| {
                spec.required_during_scheduling_ignored_during_execution
                    .as_ref()
            })
            .map(|required| {
                required
                    .node_selector_terms
                    .iter()
                    .filter_map(Term::read)
                    .collect()
            });
        (!selector.is_empty() || terms.is_some()).then(|| Self {
            selector: selector.into_iter().collect(),
            terms,
        })
    }

    /// Does the node match?
    #[must_use]
    pub fn matches(&self, node: &NodeInfo) -> bool {
        self.selector
            .iter()
            .all(|(key, value)| node.label(key) == Some(value))
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }

    /// The nodes it names, if every term does: the pods of a DaemonSet look at one node only.
    fn confined(&self, snapshot: &Snapshot) -> Option<Vec<NodeIndex>> {
        let terms = self.terms.as_ref()?;
        let mut nodes = Vec::new();
        for term in terms {
            nodes.extend(
                term.names()?
                    .into_iter()
                    .filter_map(|name| snapshot.find(name)),
            );
        }
        nodes.sort_unstable();
        nodes.dedup();
        (!terms.is_empty()).then_some(nodes)
    }
}

fn affinity(pod: &PodInfo) -> Option<&Spec> {
    pod.spec()?.affinity.as_ref()?.node_affinity.as_ref()
}

#[derive(Debug)]
struct Preferred(Vec<(Term, i64)>);

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { node, delta } => {
                (delta.added || delta.labels)
                    && Required::read(pod).is_none_or(|required| required.matches(node))
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
        let Some(required) = Required::read(pod) else {
            return PreFiltered::Skip;
        };
        let confined = required.confined(snapshot);
        state.put(required);
        confined.map_or(PreFiltered::All, PreFiltered::Only)
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        let required = state.get::<Required>()?;
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
        let terms: Vec<(Term, i64)> = affinity(pod)
            .and_then(|spec| {
                spec.preferred_during_scheduling_ignored_during_execution
                    .as_ref()
            })
            .into_iter()
            .flatten()
            .filter(|item| item.weight != 0)
            .filter_map(|item| Some((Term::read(&item.preference)?, i64::from(item.weight))))
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
