//! Writes claims and tells about them, as `StatefulPodControl` of the reference does.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{EventType, LoopContext, View, errors};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::PostParams;

use super::identity::name;
use crate::error::ReconcileError;

pub(super) struct ClaimControl<'a> {
    pub(super) context: &'a LoopContext,
    pub(super) view: &'a Arc<View<PersistentVolumeClaim>>,
    pub(super) set: &'a StatefulSet,
}

impl ClaimControl<'_> {
    fn api(&self) -> Api<PersistentVolumeClaim> {
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.context.client.clone(), namespace)
    }

    /// Creates the claims a pod lacks; one that is there already is fine.
    pub(super) async fn create(
        &self,
        pod: &Pod,
        claims: &[PersistentVolumeClaim],
    ) -> Result<(), ReconcileError> {
        let recorder = &self.context.recorder;
        let (pod, set) = (name(&pod.metadata), name(&self.set.metadata));
        let mut failures = Vec::new();
        for wanted in claims {
            let claim = name(&wanted.metadata);
            match self.api().create(&PostParams::default(), wanted).await {
                Ok(made) => {
                    self.view.note_written(made);
                    let text =
                        format!("Create Claim {claim} Pod {pod} in StatefulSet {set} success");
                    recorder.tell(self.set, EventType::Normal, "SuccessfulCreate", text);
                }
                Err(error) if errors::is_already_exists(&error) => {}
                Err(error) => {
                    let why = errors::message(&error);
                    if !errors::is_namespace_terminating(&error) {
                        let text = format!(
                            "Create Claim {claim} for Pod {pod} in StatefulSet {set} failed error: \
                             {why}"
                        );
                        recorder.tell(self.set, EventType::Warning, "FailedCreate", text);
                    }
                    failures.push(format!("failed to create PVC {claim}: {why}"));
                }
            }
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(ReconcileError::State(failures.join(", ")))
        }
    }

    /// Writes a claim's owners.
    pub(super) async fn own(
        &self,
        wanted: &PersistentVolumeClaim,
        contested: bool,
    ) -> Result<(), ReconcileError> {
        let claim = name(&wanted.metadata);
        if contested {
            let text = format!(
                "PersistentVolumeClaim {claim} has a conflicting OwnerReference that acts as a \
                 manging controller, the retention policy is ignored for this claim"
            );
            let recorder = &self.context.recorder;
            recorder.tell(self.set, EventType::Warning, "ConflictingController", text);
        }
        match self
            .api()
            .replace(claim, &PostParams::default(), wanted)
            .await
        {
            Ok(written) => {
                self.view.note_written(written);
                Ok(())
            }
            Err(error) if errors::is_not_found(&error) => {
                self.view.note_deleted(wanted);
                Ok(())
            }
            Err(error) => Err(ReconcileError::State(format!(
                "could not update claim {claim} for delete policy ownerRefs: {}",
                errors::message(&error)
            ))),
        }
    }
}
