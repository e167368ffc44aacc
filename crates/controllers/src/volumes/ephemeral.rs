//! Claims that are made for a pod from a template in it, and go with the pod.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{
    EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PostParams;

use super::facts::{BY_CLAIM, by_claim, is_made_for, name};
use crate::error::ReconcileError;

/// The claims that a pod's templates ask for.
fn templates(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let volumes = volumes.into_iter().flatten();
    volumes.filter(|volume| volume.ephemeral.is_some())
}

/// The claim that a template of a pod asks for.
#[must_use]
pub fn wanted(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let meta = template.metadata.clone().unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", name(&pod.metadata), volume.name)),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: name(&pod.metadata).to_owned(),
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

struct Reconciler {
    pods: Arc<View<Pod>>,
    claims: Arc<View<PersistentVolumeClaim>>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let alive = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_none();
        let Some(pod) = self.pods.get_key(&key).filter(alive) else {
            return Ok(Outcome::Done);
        };
        for volume in templates(&pod) {
            if let Err(why) = self.make(&pod, volume).await {
                let told = format!("ephemeral volume {}: {why}", volume.name);
                let recorder = &self.context.recorder;
                recorder.tell(
                    pod.as_ref(),
                    EventType::Warning,
                    "FailedBinding",
                    told.as_str(),
                );
                return Err(ReconcileError::State(format!("pod {key}, {told}")));
            }
        }
        Ok(Outcome::Done)
    }

    async fn make(&self, pod: &Pod, volume: &Volume) -> Result<(), String> {
        let Some(wanted) = wanted(pod, volume) else {
            return Ok(());
        };
        let key = ObjectKey::of(&wanted);
        if let Some(found) = self.claims.get_key(&key) {
            return belongs(&found, pod);
        }
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.context.client.clone(), &key.namespace);
        match api.create(&PostParams::default(), &wanted).await {
            Ok(made) => {
                self.claims.note_written(made);
                Ok(())
            }
            Err(error) if errors::is_already_exists(&error) => {
                let found = api.get(&key.name).await;
                found.map_or(Ok(()), |found| belongs(&found, pod))
            }
            Err(error) if errors::is_namespace_terminating(&error) => Ok(()),
            Err(error) => Err(format!(
                "create PVC {}: {}",
                key.name,
                errors::message(&error)
            )),
        }
    }
}

fn belongs(claim: &PersistentVolumeClaim, pod: &Pod) -> Result<(), String> {
    if is_made_for(claim, pod) {
        return Ok(());
    }
    let (claim, pod) = (ObjectKey::of(claim), ObjectKey::of(pod));
    Err(format!(
        "PVC {claim} was not created for pod {pod} (pod is not owner)"
    ))
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let pods = context.views.of::<Pod>();
    let claims = context.views.of::<PersistentVolumeClaim>();
    pods.add_index(BY_CLAIM, by_claim);
    pods.synced().await;
    claims.synced().await;
    let queue = WorkQueue::new(context.metrics.of("ephemeral-volume"));
    {
        let queue = Arc::clone(&queue);
        pods.on_change(move |change| {
            let new = change.new.as_ref();
            if new.is_some_and(|pod| templates(pod).next().is_some()) {
                queue.add(change.key.clone());
            }
        });
    }
    {
        // One that somebody deleted is made again.
        let (queue, pods) = (Arc::clone(&queue), Arc::clone(&pods));
        claims.on_change(move |change| {
            if change.new.is_none() {
                for pod in pods.by_index(BY_CLAIM, &change.key.to_string()) {
                    queue.add(ObjectKey::of(pod.as_ref()));
                }
            }
        });
    }
    let reconciler = Reconciler {
        pods,
        claims,
        context: context.clone(),
    };
    run_loop("ephemeral-volume", 10, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}
