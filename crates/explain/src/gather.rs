//! Reads what a question is about, and what that depends on.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use crate::chain::{self, Chain};
use crate::decision;

/// Why a question can't be answered.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The question is not `KIND/NAME`.
    #[error("{0:?} is not KIND/NAME, for example pod/web-1 or deployment/web")]
    Question(String),
    /// There is no explanation for the kind yet.
    #[error(
        "no explanation for kind {0:?} yet; known: pod, replicaset, deployment, service, node, namespace"
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
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    async fn pod(&self, pod: &Pod) -> Result<Chain, ExplainError> {
        let uid = pod.uid().unwrap_or_default();
        let about = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        let events = self.api::<Event>().list(&about).await?.items;
        Ok(chain::pod(pod, &events))
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
            chain.link(&this, condition.message.unwrap_or_default());
        }
    }
    chain.step(format!(
        "see what is left and what holds it: kubectl get all -n {name}"
    ));
    Ok(chain)
}
