//! Reads what a question is about, and what that depends on.

use evenkeel_client::Api;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Namespace, Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use kube::api::{ListParams, LogParams};
use kube::{Client, ResourceExt as _};

use crate::chain::{self, Chain};
use crate::{decision, groups, storage, workloads};

/// Lines of a container's log that are shown.
const LAST_LINES: i64 = 5;

/// Why a question can't be answered.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The question is not `KIND/NAME`.
    #[error("{0:?} is not KIND/NAME, for example pod/web-1 or deployment/web")]
    Question(String),
    /// There is no explanation for the kind yet.
    #[error(
        "no explanation for kind {0:?} yet; known: pod, replicaset, deployment, statefulset, service, persistentvolumeclaim, poddisruptionbudget, podgroup, node, namespace"
    )]
    Kind(String),
    /// The API refuses; its own words.
    #[error("{0}")]
    Api(String),
}

impl From<kube::Error> for ExplainError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Api(status.message.clone()),
            other => Self::Api(other.to_string()),
        }
    }
}

/// Explains `KIND/NAME` of a namespace.
///
/// # Errors
/// The question is malformed, of an unknown kind, or the API refuses.
pub async fn why(client: &Client, question: &str, namespace: &str) -> Result<Chain, ExplainError> {
    let (kind, name) = question
        .split_once('/')
        .filter(|(kind, name)| !kind.is_empty() && !name.is_empty())
        .ok_or_else(|| ExplainError::Question(question.to_owned()))?;
    let ask = Asker { client, namespace };
    match kind.to_lowercase().as_str() {
        "pod" | "pods" | "po" => {
            let pod = ask.api::<Pod>().get(name).await?;
            let mut chain = ask.pod(&pod).await?;
            decision::tell(client, &pod, &mut chain).await;
            Ok(chain)
        }
        "deployment" | "deployments" | "deploy" | "deployment.apps" => ask.deployment(name).await,
        "replicaset" | "replicasets" | "rs" | "replicaset.apps" => ask.replica_set(name).await,
        "statefulset" | "statefulsets" | "sts" | "statefulset.apps" => ask.stateful_set(name).await,
        "persistentvolumeclaim" | "persistentvolumeclaims" | "pvc" => ask.claim(name).await,
        "poddisruptionbudget" | "poddisruptionbudgets" | "pdb" => ask.budget(name).await,
        "podgroup" | "podgroups" | "podgroup.scheduling.k8s.io" => ask.pod_group(name).await,
        "service" | "services" | "svc" => ask.service(name).await,
        "node" | "nodes" | "no" => node(client, name).await,
        "namespace" | "namespaces" | "ns" => namespace_chain(client, name).await,
        other => Err(ExplainError::Kind(other.to_owned())),
    }
}

struct Asker<'c> {
    client: &'c Client,
    namespace: &'c str,
}

impl Asker<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: evenkeel_client::Kind + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    async fn pod(&self, pod: &Pod) -> Result<Chain, ExplainError> {
        let events = self.events(&pod.uid().unwrap_or_default()).await?;
        let mut chain = chain::pod(pod, &events);
        if let Some(group) = groups::waits_for(pod) {
            let message = chain::unscheduled(pod).unwrap_or_default();
            if message.contains("GenericWorkload") {
                // The door serves no groups; what is to be done stands in the message.
                chain.next = vec![message];
                return Ok(chain);
            }
            if chain::unscheduled(pod).is_none() {
                // It is not tried before its group is there, and then as one of it.
                chain = Chain::default();
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                chain.link(
                    format!("Pod {}/{name}", self.namespace),
                    format!("waits for the other pods of its group {group}"),
                );
            }
            chain.follow(self.pod_group(group).await?);
            return Ok(chain);
        }
        if chain.is_healthy() {
            return Ok(chain);
        }
        self.last_words(pod, &mut chain).await;
        // A pod without a node may wait for its claims, or for a place where its volumes are.
        if let Some(message) = chain::unscheduled(pod)
            && (message.contains("PersistentVolume") || message.contains("persistentvolume"))
        {
            for claim in chain::claims(pod) {
                let Some(found) = self.api::<PersistentVolumeClaim>().get_opt(&claim).await? else {
                    continue;
                };
                let cause = self.claim_chain(&found).await?;
                // Where a bound volume is explains the scheduler's words.
                if !cause.is_healthy() || cause.links.len() > 1 {
                    if cause.next.is_empty() {
                        chain.step(
                            "let the pod go to one of these nodes: see its node selector, affinity \
                             and tolerations, and what is free there",
                        );
                    }
                    chain.follow(cause);
                }
            }
        }
        Ok(chain)
    }

    async fn pod_group(&self, name: &str) -> Result<Chain, ExplainError> {
        let Some(found) = self.api::<PodGroup>().get_opt(name).await? else {
            return Ok(groups::missing(self.namespace, name));
        };
        let mut pods = self.api::<Pod>().list(&ListParams::default()).await?.items;
        pods.retain(|pod| {
            let spec = pod.spec.as_ref();
            let group = spec.and_then(|spec| spec.scheduling_group.as_ref());
            group.and_then(|group| group.pod_group_name.as_deref()) == Some(name)
        });
        Ok(groups::group(&found, &pods))
    }

    async fn events(&self, uid: &str) -> Result<Vec<Event>, ExplainError> {
        let about = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        Ok(self.api::<Event>().list(&about).await?.items)
    }

    /// Adds what a container that ended badly wrote last, where the node still has it.
    async fn last_words(&self, pod: &Pod, chain: &mut Chain) {
        for (container, previous) in chain::ended(pod) {
            let params = LogParams {
                container: Some(container.clone()),
                previous,
                tail_lines: Some(LAST_LINES),
                ..LogParams::default()
            };
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            // A log that is not there says nothing, and is no reason to say nothing else.
            let Ok(text) = self.api::<Pod>().logs(name, &params).await else {
                continue;
            };
            let words: Vec<&str> = text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .collect();
            if !words.is_empty() {
                chain.link(format!("container {container}"), "its last words");
                for line in words {
                    chain.detail(line.chars().take(200).collect::<String>());
                }
            }
        }
    }

    async fn claim(&self, name: &str) -> Result<Chain, ExplainError> {
        let found = self.api::<PersistentVolumeClaim>().get(name).await?;
        self.claim_chain(&found).await
    }

    async fn claim_chain(&self, claim: &PersistentVolumeClaim) -> Result<Chain, ExplainError> {
        let name = claim.name_any();
        let pods = self.api::<Pod>().list(&ListParams::default()).await?.items;
        let pods = pods
            .iter()
            .filter(|pod| chain::claims(pod).any(|used| used == name));
        let class = match storage::class_of(claim) {
            Some(class) => Api::all(self.client.clone()).get_opt(class).await?,
            None => None,
        };
        let volume = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.as_deref());
        let volume = match volume.filter(|name| !name.is_empty()) {
            Some(volume) => Api::all(self.client.clone()).get_opt(volume).await?,
            None => None,
        };
        let nodes = Api::<Node>::all(self.client.clone())
            .list(&ListParams::default())
            .await?;
        let known = storage::Known {
            class,
            volume,
            pods: pods.map(|pod| pod.name_any()).collect(),
            nodes: nodes.items,
            events: self.events(&claim.uid().unwrap_or_default()).await?,
        };
        Ok(storage::claim(claim, &known))
    }

    async fn stateful_set(&self, name: &str) -> Result<Chain, ExplainError> {
        let found = self.api::<StatefulSet>().get(name).await?;
        let events = self.events(&found.uid().unwrap_or_default()).await?;
        let mut causes = Vec::new();
        for pod in self.api::<Pod>().list(&ListParams::default()).await? {
            let mut owners = pod.owner_references().iter();
            if owners.any(|owner| Some(&owner.uid) == found.uid().as_ref()) {
                let cause = self.pod(&pod).await?;
                if !cause.is_healthy() {
                    causes.push(cause);
                    break;
                }
            }
        }
        Ok(workloads::stateful_set(&found, &events, causes.pop()))
    }

    async fn budget(&self, name: &str) -> Result<Chain, ExplainError> {
        let found = self.api::<PodDisruptionBudget>().get(name).await?;
        let selector = found.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let labels = selector.and_then(|selector| selector.match_labels.clone());
        let terms: Vec<String> = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let pods = self.pods(&terms.join(",")).await?;
        let cause = pods.into_iter().find(|pod| !pod.is_healthy());
        Ok(workloads::budget(&found, cause))
    }

    async fn pods(&self, selector: &str) -> Result<Vec<Chain>, ExplainError> {
        let mut chains = Vec::new();
        for pod in self
            .api::<Pod>()
            .list(&ListParams::default().labels(selector))
            .await?
        {
            chains.push(self.pod(&pod).await?);
        }
        Ok(chains)
    }

    async fn deployment(&self, name: &str) -> Result<Chain, ExplainError> {
        let found = self.api::<Deployment>().get(name).await?;
        let uid = found.uid().unwrap_or_default();
        let owned =
            |owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]| {
                owners.iter().any(|owner| owner.uid == uid)
            };
        let sets: Vec<ReplicaSet> = self
            .api::<ReplicaSet>()
            .list(&ListParams::default())
            .await?
            .items
            .into_iter()
            .filter(|set| owned(set.owner_references()))
            .collect();
        let mut chains = Vec::new();
        for pod in self.api::<Pod>().list(&ListParams::default()).await? {
            let of_set = sets.iter().any(|set| {
                pod.owner_references()
                    .iter()
                    .any(|owner| Some(&owner.uid) == set.uid().as_ref())
            });
            if of_set {
                chains.push(self.pod(&pod).await?);
            }
        }
        Ok(chain::deployment(&found, &sets, chains))
    }

    async fn replica_set(&self, name: &str) -> Result<Chain, ExplainError> {
        let found = self.api::<ReplicaSet>().get(name).await?;
        let wanted = found.spec.replicas.unwrap_or(1);
        let ready = found
            .status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0);
        let mut chain = Chain::default();
        chain.link(
            format!("ReplicaSet {}/{name}", self.namespace),
            format!("has {ready} of {wanted} replicas ready"),
        );
        if ready >= wanted {
            return Ok(chain);
        }
        for condition in found
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
        {
            if condition.type_.as_deref() == Some("ReplicaFailure")
                && condition.status.as_deref() == Some("True")
            {
                chain.link("its pods", condition.message.clone().unwrap_or_default());
                chain.step("correct the pod template, or what refuses its pods");
            }
        }
        for pod in self.api::<Pod>().list(&ListParams::default()).await? {
            if pod
                .owner_references()
                .iter()
                .any(|owner| Some(&owner.uid) == found.uid().as_ref())
            {
                let cause = self.pod(&pod).await?;
                if !cause.is_healthy() {
                    chain.follow(cause);
                    break;
                }
            }
        }
        if chain.next.is_empty() {
            chain.step("wait, and look again: pods are being made");
        }
        Ok(chain)
    }

    async fn service(&self, name: &str) -> Result<Chain, ExplainError> {
        let found = self.api::<Service>().get(name).await?;
        let of_service =
            ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
        let (mut ready, mut not_ready) = (0, 0);
        for slice in self.api::<EndpointSlice>().list(&of_service).await? {
            for endpoint in slice.endpoints.into_iter().flatten() {
                let is_ready = endpoint
                    .conditions
                    .and_then(|found| found.ready)
                    .unwrap_or(true);
                if is_ready { ready += 1 } else { not_ready += 1 }
            }
        }
        let selector = found
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.clone())
            .unwrap_or_default();
        let terms: Vec<String> = selector
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let pods = if terms.is_empty() {
            Vec::new()
        } else {
            self.pods(&terms.join(",")).await?
        };
        Ok(chain::service(&found, ready, not_ready, pods))
    }
}

async fn node(client: &Client, name: &str) -> Result<Chain, ExplainError> {
    let found = Api::<Node>::all(client.clone()).get(name).await?;
    let mut chain = Chain::default();
    let conditions = found
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    for condition in conditions {
        let good = if condition.type_ == "Ready" {
            "True"
        } else {
            "False"
        };
        let message = condition.message.unwrap_or_default();
        if condition.status != good {
            chain.link(
                format!("Node {name}"),
                format!("{} is {}: {message}", condition.type_, condition.status),
            );
            chain.step("see the agent's log on that machine");
        }
    }
    let spec = found.spec.unwrap_or_default();
    if spec.unschedulable == Some(true) {
        chain.link(format!("Node {name}"), "takes no new pods (cordoned)");
        // Whoever drains it waits for budgets without a word in the cluster.
        let here = ListParams::default().fields(&format!("spec.nodeName={name}"));
        let pods = Api::<Pod>::all(client.clone()).list(&here).await?.items;
        let budgets = Api::<PodDisruptionBudget>::all(client.clone());
        let budgets = budgets.list(&ListParams::default()).await?.items;
        workloads::drain(&mut chain, &pods, &budgets);
        chain.step(format!("kubectl uncordon {name}"));
    }
    if chain.links.is_empty() {
        chain.link(format!("Node {name}"), "is ready");
    }
    Ok(chain)
}

async fn namespace_chain(client: &Client, name: &str) -> Result<Chain, ExplainError> {
    let found = Api::<Namespace>::all(client.clone()).get(name).await?;
    let mut chain = Chain::default();
    let this = format!("Namespace {name}");
    if found.metadata.deletion_timestamp.is_none() {
        chain.link(this, "is active");
        return Ok(chain);
    }
    chain.link(&this, "is being deleted");
    for condition in found
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default()
    {
        if condition.status == "True" {
            workloads::remains(&mut chain, &this, name, &condition);
        }
    }
    chain.step(format!(
        "see what is left and what holds it: kubectl get all -n {name}"
    ));
    Ok(chain)
}
