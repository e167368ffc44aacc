//! Claims of devices (KEP-4381): makes them for pods from templates, takes reservations and
//! allocations back from pods that have ended, and removes what was made for them.
//!
//! The scheduler allocates and reserves. What is done here is done from what the objects say alone;
//! a pod that a view does not know is asked for at the door before anything is taken from it.

pub mod plan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use evenkeel_api::devices::claims::{
    PodClaimName, claim_name, claim_names, listed_claim_names, made_for, pod_claims,
};
use evenkeel_client::Api;
use evenkeel_client::{
    EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use crate::error::ReconcileError;
use plan::{Cleaned, Consumer, Need};

/// Pods by the claims they use, as `namespace/name`.
const BY_CLAIM: &str = "resource-claim";
/// Pods by the templates they use, likewise.
const BY_TEMPLATE: &str = "resource-claim-template";
/// Claims by the uid of the pod they were made for.
const BY_POD: &str = "pod";

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    Pod(ObjectKey),
    Claim(ObjectKey),
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "pod {key}"),
            Self::Claim(key) => write!(f, "claim {key}"),
        }
    }
}

fn qualified(pod: &Pod, name: &str) -> String {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    ObjectKey::new(namespace, name).to_string()
}

fn by_claim(pod: &Pod) -> Vec<String> {
    claim_names(pod).map(|name| qualified(pod, name)).collect()
}

fn by_template(pod: &Pod) -> Vec<String> {
    let claims = pod_claims(pod).iter();
    claims
        .filter_map(|claim| claim.resource_claim_template_name.as_deref())
        .map(|name| qualified(pod, name))
        .collect()
}

fn by_pod(claim: &ResourceClaim) -> Vec<String> {
    let owner = made_for(claim).map(|(_, uid)| uid.to_owned());
    owner.into_iter().collect()
}

struct Reconciler {
    pods: Arc<View<Pod>>,
    claims: Arc<View<ResourceClaim>>,
    templates: Arc<View<ResourceClaimTemplate>>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, work: Work) -> Result<Outcome, ReconcileError> {
        match work {
            Work::Pod(key) => self.pod(&key).await?,
            Work::Claim(key) => self.claim(&key).await?,
        }
        Ok(Outcome::Done)
    }

    fn api(&self, namespace: &str) -> Api<ResourceClaim> {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    async fn pod(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let alive = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_none();
        let Some(pod) = self.pods.get_key(key).filter(alive) else {
            return Ok(());
        };
        if plan::is_done(&pod) {
            return Ok(());
        }
        let mut named = Vec::new();
        for wanted in pod_claims(&pod) {
            match self.serve(&pod, wanted).await {
                Ok(Some(claim)) => named.push((wanted.name.clone(), claim)),
                Ok(None) => {}
                Err(why) => {
                    let text = format!("PodResourceClaim {}: {why}", wanted.name);
                    self.context.recorder.tell(
                        pod.as_ref(),
                        EventType::Warning,
                        "FailedResourceClaimCreation",
                        text.as_str(),
                    );
                    return Err(ReconcileError::State(format!("pod {key}, {text}")));
                }
            }
        }
        if !named.is_empty() {
            let patch = json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"resourceClaimStatuses": plan::statuses(&pod, &named)},
            });
            let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
            let params = PatchParams::default();
            match pods
                .patch_status(&key.name, &params, &Patch::Merge(&patch))
                .await
            {
                Ok(pod) => drop(self.pods.note_written(pod)),
                Err(error) if errors::is_not_found(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.reserve(&pod).await
    }

    /// What is to be written of one of a pod's claims: the name of one that was made for it.
    async fn serve(&self, pod: &Pod, wanted: &PodResourceClaim) -> Result<Option<String>, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mut known = None;
        if let PodClaimName::Generated(name) = claim_name(pod, wanted) {
            known = self.claims.get(namespace, name);
        }
        let made = self.claims.by_index(BY_POD, uid);
        let template = match plan::need(pod, wanted, known.as_deref(), &made) {
            Need::Nothing => return Ok(None),
            Need::Name(name) => return Ok(Some(name)),
            Need::Make(template) => template,
        };
        let template = self.templates.get(namespace, template).ok_or_else(|| {
            format!(
                "resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io \
                 {template:?} not found"
            )
        })?;
        let claim = plan::from_template(pod, wanted, &template);
        let api = self.api(namespace);
        match api.create(&PostParams::default(), &claim).await {
            Ok(made) => {
                let made = self.claims.note_written(made);
                Ok(made.metadata.name.clone())
            }
            Err(error) if errors::is_namespace_terminating(&error) => Ok(None),
            Err(error) => Err(format!(
                "create ResourceClaim : {}",
                errors::message(&error)
            )),
        }
    }

    /// A pod that was bound past the scheduler uses what is allocated.
    async fn reserve(&self, pod: &Pod) -> Result<(), ReconcileError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for name in listed_claim_names(pod) {
            let Some(claim) = self.claims.get(namespace, name) else {
                return Ok(());
            };
            if let Some(reserved) = plan::reserved(pod, &claim) {
                self.write_status(reserved).await?;
            }
        }
        Ok(())
    }

    async fn write_status(
        &self,
        claim: ResourceClaim,
    ) -> Result<Arc<ResourceClaim>, ReconcileError> {
        let key = ObjectKey::of(&claim);
        let api = self.api(&key.namespace);
        let written = api
            .replace_status(&key.name, &PostParams::default(), &claim)
            .await?;
        Ok(self.claims.note_written(written))
    }

    /// What is known of a pod that uses a claim, or for which it was made.
    async fn consumer(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<Consumer, ReconcileError> {
        if let Some(pod) = self.pods.get(namespace, name)
            && pod.metadata.uid.as_deref() == Some(uid)
        {
            return Ok(Consumer::of(&pod));
        }
        // The view may be older than the claim.
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
        Ok(match pods.get_opt(name).await? {
            Some(pod) if pod.metadata.uid.as_deref() == Some(uid) => Consumer::of(&pod),
            _ => Consumer::Gone,
        })
    }

    async fn claim(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(claim) = self.claims.get_key(key) else {
            return Ok(());
        };
        let mut consumers = Vec::new();
        for user in evenkeel_api::devices::claims::reserved_for(&claim) {
            let group = user.api_group.as_deref().unwrap_or_default();
            if !group.is_empty() || user.resource != "pods" {
                return Err(ReconcileError::State(format!(
                    "claim {key}: unsupported ReservedFor entry: {} {}",
                    user.resource, user.name
                )));
            }
            let consumer = self.consumer(&key.namespace, &user.name, &user.uid);
            consumers.push(consumer.await?);
        }
        let owner = match made_for(&claim) {
            Some((name, uid)) => Some(self.consumer(&key.namespace, name, uid).await?),
            None => None,
        };
        let Cleaned {
            status,
            unprotect,
            remove,
        } = plan::clean(&claim, &consumers, owner);
        let mut claim = claim;
        if let Some(status) = status {
            let mut changed = (*claim).clone();
            changed.status = Some(status);
            claim = self.write_status(changed).await?;
        }
        let api = self.api(&key.namespace);
        if unprotect && let Some(changed) = plan::unprotected(&claim) {
            match api
                .replace(&key.name, &PostParams::default(), &changed)
                .await
            {
                Ok(written) if written.metadata.deletion_timestamp.is_some() => return Ok(()),
                Ok(written) => drop(self.claims.note_written(written)),
                Err(error) if errors::is_not_found(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        if remove {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: claim.metadata.uid.clone(),
                    ..Preconditions::default()
                }),
                ..DeleteParams::default()
            };
            match api.delete(&key.name, &params).await {
                Ok(_) => {}
                Err(error) if errors::is_not_found(&error) || errors::is_conflict(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let pods = context.views.of::<Pod>();
    let claims = context.views.of::<ResourceClaim>();
    let templates = context.views.of::<ResourceClaimTemplate>();
    pods.add_index(BY_CLAIM, by_claim);
    pods.add_index(BY_TEMPLATE, by_template);
    claims.add_index(BY_POD, by_pod);
    pods.synced().await;
    claims.synced().await;
    templates.synced().await;
    let queue = WorkQueue::new(context.metrics.of("resource-claim"));
    {
        let (queue, claims) = (Arc::clone(&queue), Arc::clone(&claims));
        pods.on_change(move |change| {
            for pod in change.sides() {
                let over = change.new.is_none() || plan::is_done(pod);
                if !pod_claims(pod).is_empty() {
                    queue.add(Work::Pod(change.key.clone()));
                } else if !over {
                    // One for its extended resources is reserved by who made it.
                    continue;
                }
                if over {
                    for name in claim_names(pod) {
                        let key = ObjectKey::new(change.key.namespace.clone(), name);
                        queue.add(Work::Claim(key));
                    }
                    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                    for claim in claims.by_index(BY_POD, uid) {
                        queue.add(Work::Claim(ObjectKey::of(claim.as_ref())));
                    }
                }
            }
        });
    }
    {
        let (queue, pods) = (Arc::clone(&queue), Arc::clone(&pods));
        claims.on_change(move |change| {
            queue.add(Work::Claim(change.key.clone()));
            let users = pods.by_index(BY_CLAIM, &change.key.to_string());
            for pod in users {
                queue.add(Work::Pod(ObjectKey::of(pod.as_ref())));
            }
        });
    }
    {
        let (queue, pods) = (Arc::clone(&queue), Arc::clone(&pods));
        templates.on_change(move |change| {
            for pod in pods.by_index(BY_TEMPLATE, &change.key.to_string()) {
                queue.add(Work::Pod(ObjectKey::of(pod.as_ref())));
            }
        });
    }
    let reconciler = Reconciler {
        pods,
        claims,
        templates,
        context: context.clone(),
    };
    run_loop("resource-claim", 10, queue, context.shutdown, |work| {
        reconciler.reconcile(work)
    })
    .await;
}
