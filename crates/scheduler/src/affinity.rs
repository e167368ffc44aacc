//! Inter-pod affinity terms, read once per pod: who they are about and over which domain.

use std::collections::BTreeMap;

use evenkeel_api::selector::{LabelSelector, Operator, Requirement};
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};

use crate::pod::PodClass;

/// Labels of the namespaces, by name.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

/// One term.
#[derive(Debug, Clone)]
pub struct Term {
    /// The node label whose values are the domains.
    pub topology_key: String,
    /// Positive, meaningful for preferred terms.
    pub weight: i64,
    selector: LabelSelector,
    namespaces: Vec<String>,
    namespace_selector: LabelSelector,
}

impl Term {
    fn read(term: &PodAffinityTerm, weight: i32, pod: &Pod) -> Self {
        let labels = pod.metadata.labels.as_ref();
        // The door has validated operators; a selector that cannot be read matches nothing.
        let mut selector = LabelSelector::from_spec(term.label_selector.as_ref())
            .unwrap_or_else(|_| LabelSelector::nothing());
        let mut merge = |keys: &Option<Vec<String>>, operator: Operator| {
            for key in keys.iter().flatten() {
                // Keys that the pod does not carry are ignored. The door may have merged them
                // already; saying it twice changes nothing.
                if let Some(value) = labels.and_then(|labels| labels.get(key)) {
                    selector.requirements.push(Requirement {
                        key: key.clone(),
                        operator,
                        values: vec![value.clone()],
                    });
                }
            }
        };
        merge(&term.match_label_keys, Operator::In);
        merge(&term.mismatch_label_keys, Operator::NotIn);
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces = vec![pod.metadata.namespace.clone().unwrap_or_default()];
        }
        Self {
            topology_key: term.topology_key.clone(),
            weight: i64::from(weight),
            selector,
            namespaces,
            namespace_selector: LabelSelector::from_spec(term.namespace_selector.as_ref())
                .unwrap_or_else(|_| LabelSelector::nothing()),
        }
    }

    /// May the term be about pods of this class, as far as can be told without the namespaces?
    #[must_use]
    pub fn may_match(&self, class: &PodClass) -> bool {
        (self.namespaces.contains(&class.namespace) || !self.namespace_selector.is_nothing())
            && self.selector.matches_with(|key| class.label(key))
    }

    /// Is the term about pods of this class?
    #[must_use]
    pub fn matches(&self, class: &PodClass, namespaces: &NamespaceLabels) -> bool {
        let here = self.namespaces.contains(&class.namespace)
            || self.namespace_selector.is_everything()
            || (!self.namespace_selector.is_nothing()
                && namespaces
                    .get(&class.namespace)
                    .is_some_and(|labels| self.namespace_selector.matches(labels)));
        here && self.selector.matches_with(|key| class.label(key))
    }
}

/// All terms of a pod.
#[derive(Debug, Default)]
pub struct PodTerms {
    /// Pods that must be in the domain.
    pub affinity: Vec<Term>,
    /// Pods that must not be in the domain.
    pub anti_affinity: Vec<Term>,
    /// Pods that should be in the domain.
    pub preferred: Vec<Term>,
    /// Pods that should not be in the domain.
    pub preferred_anti: Vec<Term>,
    /// The terms as JSON, to tell classes apart.
    pub(crate) text: String,
}

impl PodTerms {
    /// Reads a pod's terms; `None` when it has none.
    #[must_use]
    pub fn read(pod: &Pod) -> Option<Self> {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?;
        let required = |terms: &Option<Vec<PodAffinityTerm>>| -> Vec<Term> {
            let terms = terms.iter().flatten();
            terms.map(|term| Term::read(term, 0, pod)).collect()
        };
        let preferred = |terms: &Option<Vec<WeightedPodAffinityTerm>>| -> Vec<Term> {
            let terms = terms.iter().flatten();
            terms
                .map(|term| Term::read(&term.pod_affinity_term, term.weight, pod))
                .collect()
        };
        let mut read = Self::default();
        if let Some(toward) = &affinity.pod_affinity {
            read.affinity = required(&toward.required_during_scheduling_ignored_during_execution);
            read.preferred =
                preferred(&toward.preferred_during_scheduling_ignored_during_execution);
        }
        if let Some(away) = &affinity.pod_anti_affinity {
            read.anti_affinity =
                required(&away.required_during_scheduling_ignored_during_execution);
            read.preferred_anti =
                preferred(&away.preferred_during_scheduling_ignored_during_execution);
        }
        if read.affinity.is_empty()
            && read.anti_affinity.is_empty()
            && read.preferred.is_empty()
            && read.preferred_anti.is_empty()
        {
            return None;
        }
        // Writing these types as JSON cannot fail; an empty text would only merge classes of pods
        // whose labels are equal too.
        read.text = serde_json::to_string(&(&affinity.pod_affinity, &affinity.pod_anti_affinity))
            .unwrap_or_default();
        Some(read)
    }
}
