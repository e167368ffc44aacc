//! Creating and deleting the pods of an owner, as `controller.RealPodControl` does: the same
//! events, and answers that go into the view at once.
//!
//! No decision lives here: what to create and what to delete comes from a plan.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::Kind;
use evenkeel_client::{EventType, LoopContext, View, errors};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

/// Pods created or deleted in one reconciliation at most.
pub const BURST: usize = 500;

/// A pod of a template: labels, annotations and finalizers of the template, a generated name after
/// the owner's, the owner as controller.
#[must_use]
pub fn from_template(
    template: &PodTemplateSpec,
    owner: &ObjectMeta,
    controller: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let name = owner.name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: owner.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Creates and deletes pods in the name of one loop.
#[derive(Clone, Copy, Debug)]
pub struct PodControl<'a> {
    /// The loop.
    pub context: &'a LoopContext,
    /// Where answers go.
    pub view: &'a View<Pod>,
}

impl PodControl<'_> {
    /// The pods of a namespace.
    #[must_use]
    pub fn api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    /// Creates one pod and tells about it. `None`: its namespace is going, and nobody is told.
    ///
    /// # Errors
    /// What the door said.
    pub async fn create<O: Kind>(
        &self,
        owner: &O,
        pod: &Pod,
    ) -> Result<Option<Arc<Pod>>, kube::Error> {
        let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
        let recorder = &self.context.recorder;
        let made = self
            .api(namespace)
            .create(&PostParams::default(), pod)
            .await;
        match made {
            Ok(made) => {
                let name = made.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Created pod: {name}");
                recorder.tell(owner, EventType::Normal, "SuccessfulCreate", message);
                Ok(Some(self.view.note_written(made)))
            }
            Err(error) if errors::is_namespace_terminating(&error) => Ok(None),
            Err(error) => {
                let message = format!("Error creating: {}", errors::message(&error));
                recorder.tell(owner, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    /// Creates pods in batches of 1, 2, 4 …: when one of a batch fails (a quota, say), the rest
    /// would too, and are not tried.
    ///
    /// # Errors
    /// The first failure.
    pub async fn create_all<O: Kind>(
        &self,
        owner: &O,
        pods: impl ExactSizeIterator<Item = &Pod>,
    ) -> Result<(), kube::Error> {
        let mut pods = pods;
        let mut batch = 1;
        while pods.len() > 0 {
            let now: Vec<&Pod> = pods.by_ref().take(batch).collect();
            let made = join_all(now.into_iter().map(|pod| self.create(owner, pod))).await;
            made.into_iter().collect::<Result<Vec<_>, _>>()?;
            batch *= 2;
        }
        Ok(())
    }

    /// Deletes one pod and tells about it. One that is gone, or another of the same name, is done.
    ///
    /// # Errors
    /// What the door said.
    pub async fn delete<O: Kind>(&self, owner: &O, pod: &Pod) -> Result<(), kube::Error> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let recorder = &self.context.recorder;
        match self.delete_quietly(pod).await {
            Ok(true) => {
                let message = format!("Deleted pod: {name}");
                recorder.tell(owner, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                let message = format!("Error deleting: {}", errors::message(&error));
                recorder.tell(owner, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    /// Deletes pods, all at once.
    ///
    /// # Errors
    /// The first failure; the others have been tried.
    pub async fn delete_all<O: Kind>(
        &self,
        owner: &O,
        pods: &[Arc<Pod>],
    ) -> Result<(), kube::Error> {
        let deletions = pods.iter().map(|pod| self.delete(owner, pod));
        join_all(deletions).await.into_iter().collect()
    }

    /// Deletes one pod and tells nobody. False: it had gone before.
    ///
    /// # Errors
    /// What the door said.
    pub async fn delete_quietly(&self, pod: &Pod) -> Result<bool, kube::Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        });
        match self.api(namespace).delete(name, &params).await {
            Ok(answer) => {
                self.view.note_delete_answer(pod, answer.left());
                Ok(true)
            }
            Err(error) if errors::is_not_found(&error) || errors::is_conflict(&error) => {
                self.view.note_deleted(pod);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a finalizer off a pod. A pod that is gone, or another of the same name, is done.
    ///
    /// # Errors
    /// What the door said.
    pub async fn remove_finalizer(&self, pod: &Pod, finalizer: &str) -> Result<(), kube::Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({"metadata": {
            "uid": pod.metadata.uid,
            "$deleteFromPrimitiveList/finalizers": [finalizer],
        }});
        let params = PatchParams::default();
        match self
            .api(namespace)
            .patch(name, &params, &Patch::Strategic(&patch))
            .await
        {
            Ok(written) if written.metadata.deletion_timestamp.is_some() => {
                self.view.note_delete_answer(pod, Some(written));
                Ok(())
            }
            Ok(written) => {
                self.view.note_written(written);
                Ok(())
            }
            Err(error) if errors::is_not_found(&error) => {
                self.view.note_deleted(pod);
                Ok(())
            }
            // Another pod of the same name: the uid does not fit.
            Err(error) if errors::is_conflict(&error) || errors::is_invalid(&error) => {
                let found = self.api(namespace).get_opt(name).await?;
                match found {
                    Some(found) if found.metadata.uid == pod.metadata.uid => Err(error),
                    _ => {
                        self.view.note_deleted(pod);
                        Ok(())
                    }
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// When the first of these pods that is ready but not yet available becomes so.
#[must_use]
pub fn next_available(
    pods: &[Arc<Pod>],
    min_ready: i32,
    now: jiff::Timestamp,
) -> Option<jiff::Timestamp> {
    let waiting = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| crate::pods::available_at(pod, min_ready));
    waiting.filter(|at| *at > now).min()
}

/// How long to wait until `at`, a millisecond more so that it has come.
#[must_use]
pub fn wait_until(at: jiff::Timestamp, now: jiff::Timestamp) -> std::time::Duration {
    let wait = std::time::Duration::try_from(at.duration_since(now)).unwrap_or_default();
    wait + std::time::Duration::from_millis(1)
}
