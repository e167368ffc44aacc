//! What a pod asks of the node it runs on: labels, names and host ports.
//!
//! The scheduler chooses by this, daemon sets expect by this, and a node admits by this, so it is
//! read in one place. How much a pod asks for is not here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use crate::selector::{Operator, Requirement};

/// The one field of a node that terms can name.
const NAME_FIELD: &str = "metadata.name";

/// A node, as far as terms look at it.
pub trait Selectable {
    /// Its name.
    fn name(&self) -> &str;
    /// The value of one of its labels.
    fn label(&self, key: &str) -> Option<&str>;
}

/// A name with its labels.
impl Selectable for (&str, &BTreeMap<String, String>) {
    fn name(&self) -> &str {
        self.0
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.1.get(key).map(String::as_str)
    }
}

/// One term of a node selector: all of its conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

fn requirements(list: Option<&Vec<NodeSelectorRequirement>>) -> Option<Vec<Requirement>> {
    list.into_iter()
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

impl NodeTerm {
    /// Reads a term. `None` when it is empty or can't be read: such a term matches no node.
    #[must_use]
    pub fn read(term: &NodeSelectorTerm) -> Option<Self> {
        let labels = requirements(term.match_expressions.as_ref())?;
        let fields = requirements(term.match_fields.as_ref())?;
        (!labels.is_empty() || !fields.is_empty()).then_some(Self { labels, fields })
    }

    /// Does the node match?
    #[must_use]
    pub fn matches(&self, node: &impl Selectable) -> bool {
        let named = |item: &Requirement| item.key == NAME_FIELD && item.matches(Some(node.name()));
        self.labels
            .iter()
            .all(|item| item.matches(node.label(&item.key)))
            && self.fields.iter().all(named)
    }

    /// The names to which its fields confine it; `None` when they do not.
    #[must_use]
    pub fn names(&self) -> Option<Vec<&str>> {
        let lists = self
            .fields
            .iter()
            .filter(|item| item.key == NAME_FIELD && item.operator == Operator::In)
            .map(|item| item.values.iter().map(String::as_str));
        lists.fold(None, |names: Option<Vec<&str>>, these| match names {
            None => Some(these.collect()),
            Some(before) => Some(these.filter(|name| before.contains(name)).collect()),
        })
    }
}

/// What a pod requires of a node: its node selector, and one of its required terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRequirement {
    selector: Vec<(String, String)>,
    terms: Option<Vec<NodeTerm>>,
}

impl NodeRequirement {
    /// Reads it from a pod's specification; `None` when any node will do.
    #[must_use]
    pub fn read(spec: &PodSpec) -> Option<Self> {
        let selector = spec.node_selector.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref();
        let terms = affinity
            .and_then(|affinity| affinity.node_affinity.as_ref())
            .and_then(|nodes| {
                nodes
                    .required_during_scheduling_ignored_during_execution
                    .as_ref()
            })
            .map(|required| {
                let terms = required.node_selector_terms.iter();
                terms.filter_map(NodeTerm::read).collect()
            });
        (!selector.is_empty() || terms.is_some()).then(|| Self {
            selector: selector.into_iter().collect(),
            terms,
        })
    }

    /// Does the node match?
    #[must_use]
    pub fn matches(&self, node: &impl Selectable) -> bool {
        self.selector
            .iter()
            .all(|(key, value)| node.label(key) == Some(value))
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }

    /// The required terms; `None` when the pod has none.
    #[must_use]
    pub fn terms(&self) -> Option<&[NodeTerm]> {
        self.terms.as_deref()
    }
}

/// A port of the node that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Address, empty and `0.0.0.0` meaning all.
    pub address: Box<str>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// The ports of a pod: those of its containers and of its sidecars.
    #[must_use]
    pub fn all(spec: &PodSpec) -> Vec<Self> {
        let sidecars = spec
            .init_containers
            .iter()
            .flatten()
            .filter(|container| container.restart_policy.as_deref() == Some("Always"));
        spec.containers
            .iter()
            .chain(sidecars)
            .flat_map(|container| container.ports.iter().flatten())
            .filter_map(|port| {
                let number = port.host_port.filter(|number| *number > 0)?;
                Some(Self {
                    address: port.host_ip.as_deref().unwrap_or_default().into(),
                    protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
                    port: number,
                })
            })
            .collect()
    }

    fn any_address(&self) -> bool {
        self.address.is_empty() || &*self.address == "0.0.0.0"
    }

    /// Can the two not be held at once?
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.any_address() || other.any_address() || self.address == other.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn selector_and_one_of_the_terms_must_hold() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let node = ("n1", &labels);
        let require = |value| NodeRequirement::read(&spec(value));
        assert!(require(json!({"containers": []})).is_none());
        let by_label = require(json!({"containers": [], "nodeSelector": {"zone": "a"}})).unwrap();
        assert!(by_label.matches(&node));
        assert!(!by_label.matches(&("n1", &BTreeMap::new())));

        let affinity = |terms| {
            let required = json!({"nodeSelectorTerms": terms});
            let rule = json!({"requiredDuringSchedulingIgnoredDuringExecution": required});
            require(json!({"containers": [], "affinity": {"nodeAffinity": rule}})).unwrap()
        };
        let named = |name| {
            json!({"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [name]}]})
        };
        let other =
            json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]});
        assert!(affinity(json!([other, named("n1")])).matches(&node));
        assert!(!affinity(json!([other, named("n2")])).matches(&node));
        assert!(
            !affinity(json!([{}])).matches(&node),
            "an empty term matches nothing"
        );
        let one = affinity(json!([named("n1")]));
        assert_eq!(one.terms().unwrap()[0].names(), Some(vec!["n1"]));
    }

    #[test]
    fn ports_conflict_on_the_same_address() {
        let port = |address: &str, protocol: &str, port| HostPort {
            address: address.into(),
            protocol: protocol.into(),
            port,
        };
        assert!(port("", "TCP", 80).conflicts(&port("10.0.0.1", "TCP", 80)));
        assert!(port("0.0.0.0", "TCP", 80).conflicts(&port("", "TCP", 80)));
        assert!(!port("10.0.0.2", "TCP", 80).conflicts(&port("10.0.0.1", "TCP", 80)));
        assert!(!port("", "UDP", 80).conflicts(&port("", "TCP", 80)));
        assert!(!port("", "TCP", 81).conflicts(&port("", "TCP", 80)));
    }
}
