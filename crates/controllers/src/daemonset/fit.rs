//! Which nodes a daemon runs on, and how its pods are bound to theirs.
//!
//! A daemon's pod is pinned to its node by required node affinity on `metadata.name`, so that the
//! scheduler binds it (and may preempt for it); this loop never binds.

use evenkeel_api::placement::NodeRequirement;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint,
    Toleration,
};

use crate::nodes::evict::tolerates;

const NAME_FIELD: &str = "metadata.name";

/// The tolerations every daemon's pod gets: a daemon outlives what drives others off.
#[must_use]
pub fn default_tolerations(host_network: bool) -> Vec<Toleration> {
    let mut all = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if host_network {
        all.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    let toleration = |(key, effect): (&str, &str)| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    all.into_iter().map(toleration).collect()
}

/// Adds the tolerations every daemon's pod gets.
pub fn add_tolerations(spec: &mut PodSpec) {
    let wanted = default_tolerations(spec.host_network == Some(true));
    let found = spec.tolerations.get_or_insert_default();
    for toleration in wanted {
        let same = |item: &&mut Toleration| {
            item.key == toleration.key
                && item.effect == toleration.effect
                && item.operator == toleration.operator
                && item.value.as_deref().unwrap_or_default().is_empty()
        };
        match found.iter_mut().find(same) {
            // Without its limit: the daemon's toleration has no end.
            Some(item) => *item = toleration,
            None => found.push(toleration),
        }
    }
}

/// Whether a node takes a daemon's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// One should run there.
    pub run: bool,
    /// One that runs there may stay.
    pub stay: bool,
}

/// What decides whether a node fits, worked out once for all nodes.
#[derive(Debug)]
pub struct Rule<'a> {
    spec: Option<&'a PodSpec>,
    tolerations: Vec<Toleration>,
}

impl<'a> Rule<'a> {
    /// The rule of a set.
    #[must_use]
    pub fn of(set: &'a DaemonSet) -> Self {
        let spec = set.spec.template.spec.as_ref();
        let mut copy = PodSpec {
            host_network: spec.and_then(|spec| spec.host_network),
            tolerations: spec.and_then(|spec| spec.tolerations.clone()),
            ..PodSpec::default()
        };
        add_tolerations(&mut copy);
        Self {
            spec,
            tolerations: copy.tolerations.unwrap_or_default(),
        }
    }

    /// Does this node fit?
    #[must_use]
    pub fn fit(&self, node: &Node) -> Fit {
        let no = Fit {
            run: false,
            stay: false,
        };
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let pinned = self.spec.and_then(|spec| spec.node_name.as_deref());
        if pinned.is_some_and(|pinned| !pinned.is_empty() && pinned != name) {
            return no;
        }
        let labels = crate::claim::labels(&node.metadata);
        let required = self.spec.and_then(NodeRequirement::read);
        if required.is_some_and(|required| !required.matches(&(name, labels))) {
            return no;
        }
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
        let taints = taints.unwrap_or_default();
        let tolerated = |taint: &Taint| self.tolerations.iter().any(|item| tolerates(item, taint));
        let stops = |effects: &[&str]| {
            let mut untolerated = taints.iter().filter(|taint| !tolerated(taint));
            untolerated.any(|taint| effects.contains(&taint.effect.as_str()))
        };
        Fit {
            run: !stops(&["NoSchedule", "NoExecute"]),
            stay: !stops(&["NoExecute"]),
        }
    }
}

/// Pins a pod to a node. Required terms of the template have been looked at by [`Rule`] and give
/// way; preferred ones stay.
pub fn pin(spec: &mut PodSpec, node: &str) {
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_expressions: None,
            match_fields: Some(vec![NodeSelectorRequirement {
                key: NAME_FIELD.to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
        }],
    });
}

/// The node a daemon's pod is bound or pinned to.
#[must_use]
pub fn target(pod: &Pod) -> Option<&str> {
    if let Some(node) = crate::pods::node_name(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?;
    let required = affinity
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    let mut named = fields.filter(|item| item.key == NAME_FIELD && item.operator == "In");
    match named.next()?.values.as_deref()? {
        [one] => Some(one),
        _ => None,
    }
}
