//! A pod as the scheduler keeps it: the shared object and what is read from it once.

use std::sync::Arc;

use evenkeel_api::placement::HostPort;
use evenkeel_client::ObjectKey;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::affinity::PodTerms;
use crate::groups::group_of;
use crate::resources::{PodRequests, pod_requests};
use crate::storage::{PodClaim, pod_claims};

/// What is told apart when other pods look at this one: pods of equal class are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodClass {
    /// Namespace.
    pub namespace: String,
    /// Labels, ordered by key.
    pub labels: Vec<(String, String)>,
    /// Being deleted: topology spread does not count it.
    pub terminating: bool,
    /// Inter-pod terms as JSON, empty when there are none.
    pub terms: String,
}

impl PodClass {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels
            .binary_search_by(|(known, _)| known.as_str().cmp(key))
            .ok()
            .map(|at| self.labels[at].1.as_str())
    }
}

/// A pod and what is read from it once.
#[derive(Debug)]
pub struct PodInfo {
    /// The object as the view has it.
    pub pod: Arc<Pod>,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Unique over time.
    pub uid: Arc<str>,
    /// Higher goes first.
    pub priority: i32,
    /// What it takes from a node.
    pub requests: PodRequests,
    /// Ports it takes on the node.
    pub ports: Vec<HostPort>,
    /// How other pods see it.
    pub class: Arc<PodClass>,
    /// Inter-pod affinity, where it has any.
    pub terms: Option<Arc<PodTerms>>,
    /// The volume claims it uses.
    pub claims: Vec<PodClaim>,
    /// The group it belongs to.
    pub group: Option<ObjectKey>,
}

impl PodInfo {
    /// Reads a pod.
    #[must_use]
    pub fn new(pod: Arc<Pod>) -> Self {
        let meta = &pod.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        let terms = PodTerms::read(&pod);
        let class = PodClass {
            namespace: namespace.clone(),
            labels: labels.into_iter().collect(),
            terminating: meta.deletion_timestamp.is_some(),
            terms: terms
                .as_ref()
                .map(|terms| terms.text.clone())
                .unwrap_or_default(),
        };
        Self {
            key: ObjectKey::new(&namespace, meta.name.as_deref().unwrap_or_default()),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            priority: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.priority)
                .unwrap_or(0),
            requests: pod_requests(&pod),
            ports: pod.spec.as_ref().map(HostPort::all).unwrap_or_default(),
            class: Arc::new(class),
            terms: terms.map(Arc::new),
            claims: pod_claims(&pod),
            group: group_of(&pod),
            pod,
        }
    }

    /// The specification, if it has one; the door lets no pod through without.
    #[must_use]
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// Who schedules it.
    #[must_use]
    pub fn scheduler_name(&self) -> &str {
        scheduler_name(&self.pod)
    }

    /// The node that its status says is set aside for it.
    #[must_use]
    pub fn nominated_node(&self) -> Option<&str> {
        let status = self.pod.status.as_ref()?;
        let name = status.nominated_node_name.as_deref()?;
        (!name.is_empty()).then_some(name)
    }

    /// Does it use the claim of a volume?
    #[must_use]
    pub fn uses(&self, claim: &ObjectKey) -> bool {
        self.key.namespace == claim.namespace
            && self.claims.iter().any(|used| used.name == claim.name)
    }

    /// The node it is bound to.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        node_name(&self.pod)
    }
}

/// The node a pod is bound to.
#[must_use]
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .filter(|name| !name.is_empty())
}

/// Who schedules a pod.
#[must_use]
pub fn scheduler_name(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.scheduler_name.as_deref())
        .unwrap_or("default-scheduler")
}

/// Has the pod ended for good, so that it holds nothing on its node any more?
#[must_use]
pub fn is_terminal(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}
