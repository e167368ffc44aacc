//! Carries a Deployment's plan out.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::Api;
use evenkeel_client::view::index;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, errors};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::{limits, plan, revision, status};
use crate::claim;
use crate::error::ReconcileError;
use crate::told::write_status;

pub(super) struct Reconciler {
    pub(super) deployments: Arc<View<Deployment>>,
    pub(super) sets: Arc<View<ReplicaSet>>,
    pub(super) pods: Arc<View<Pod>>,
    pub(super) context: LoopContext,
}

impl Reconciler {
    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(deployment) = self.deployments.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let selector = LabelSelector::from_spec(Some(&deployment.spec.selector))
            .map_err(|error| ReconcileError::State(error.to_string()))?;
        if selector.is_everything() {
            return self.refuse_everything(&deployment).await;
        }
        let sets = self.claim(&deployment, &selector).await?;
        let pods: Vec<Arc<Pod>> = if limits::is_recreate(&deployment) {
            let uids = sets.iter().filter_map(|set| set.metadata.uid.as_deref());
            uids.flat_map(|uid| self.pods.by_index(index::CONTROLLER, uid))
                .collect()
        } else {
            Vec::new()
        };
        let plan = plan::plan(&deployment, &sets, &pods, self.context.clock.now());
        self.carry_out(&deployment, plan).await
    }

    async fn refuse_everything(&self, deployment: &Deployment) -> Result<Outcome, ReconcileError> {
        let text = "This deployment is selecting all pods. A non-empty selector is required.";
        let recorder = &self.context.recorder;
        recorder.tell(deployment, EventType::Warning, "SelectingAll", text);
        let mut status = deployment.status.clone().unwrap_or_default();
        if status.observed_generation < deployment.metadata.generation {
            status.observed_generation = deployment.metadata.generation;
            self.write_status(deployment, status).await?;
        }
        Ok(Outcome::Done)
    }

    async fn claim(
        &self,
        deployment: &Deployment,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<ReplicaSet>>, ReconcileError> {
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let claims = claim::claims(
            deployment.metadata.deletion_timestamp.is_some(),
            selector,
            self.sets.by_index(index::CONTROLLER, uid),
            self.sets.by_index(claim::ORPHAN, namespace),
        );
        claim::carry_out(&self.context.client, &self.sets, deployment, claims).await
    }

    async fn carry_out(
        &self,
        deployment: &Deployment,
        plan: plan::Plan,
    ) -> Result<Outcome, ReconcileError> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<ReplicaSet> = Api::namespaced(self.context.client.clone(), namespace);
        if let Some(set) = &plan.create
            && !self.create(deployment, &api, set).await?
        {
            return Ok(Outcome::Done);
        }
        for set in &plan.update {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let written = api.replace(name, &PostParams::default(), set).await?;
            self.sets.note_written(written);
        }
        for message in plan.messages {
            let recorder = &self.context.recorder;
            recorder.tell(deployment, EventType::Normal, "ScalingReplicaSet", message);
        }
        for set in &plan.delete {
            self.delete(&api, set).await?;
        }
        if plan.revision.is_some() || plan.status.is_some() {
            let mut fresh = deployment.clone();
            if let Some(revision) = plan.revision {
                // With the status: an update of the object itself would be another generation of it.
                let annotations = fresh.metadata.annotations.get_or_insert_default();
                annotations.insert(revision::REVISION.to_owned(), revision);
            }
            fresh.status = plan.status.or(fresh.status);
            write_status(&self.context, &self.deployments, &fresh).await?;
        }
        let now = self.context.clock.now();
        Ok(match plan.look_again {
            Some(at) => {
                let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                Outcome::After(wait.max(Duration::from_secs(1)))
            }
            None => Outcome::Done,
        })
    }

    /// Creates the new set. False: its namespace is going, leave it.
    async fn create(
        &self,
        deployment: &Deployment,
        api: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<bool, ReconcileError> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let error = match api.create(&PostParams::default(), set).await {
            Ok(made) => {
                self.sets.note_written(made);
                return Ok(true);
            }
            Err(error) if errors::is_namespace_terminating(&error) => return Ok(false),
            Err(error) => error,
        };
        if errors::is_already_exists(&error) {
            let found = api.get(name).await?;
            let ours = claim::controller_of(&found.metadata).map(|owner| &owner.uid)
                == deployment.metadata.uid.as_ref();
            let same = found.spec.template.as_ref().is_some_and(|template| {
                revision::is_same_template(template, &deployment.spec.template)
            });
            self.sets.note_written(found);
            if ours && same {
                let text = format!("replica set {name} was there already");
                return Err(ReconcileError::State(text));
            }
            // Another template with the same hash: salt the next try.
            let mut status = deployment.status.clone().unwrap_or_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            self.write_status(deployment, status).await?;
            return Err(ReconcileError::State(format!("hash collision on {name}")));
        }
        let why = errors::message(&error);
        let text = format!("Failed to create new replica set \"{name}\": {why}");
        let recorder = &self.context.recorder;
        recorder.tell(
            deployment,
            EventType::Warning,
            "ReplicaSetCreateError",
            text,
        );
        let now = self.context.clock.now();
        let status = status::create_failed(deployment, name, &why, now);
        if !status::is_same(deployment.status.as_ref(), &status) {
            self.write_status(deployment, status).await?;
        }
        Err(error.into())
    }

    async fn delete(&self, api: &Api<ReplicaSet>, set: &ReplicaSet) -> Result<(), ReconcileError> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: set.metadata.uid.clone(),
            resource_version: None,
        });
        match api.delete(name, &params).await {
            Ok(answer) => self.sets.note_delete_answer(set, answer.left()),
            Err(error) if errors::is_not_found(&error) => self.sets.note_deleted(set),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        status: DeploymentStatus,
    ) -> Result<(), ReconcileError> {
        let mut fresh = deployment.clone();
        fresh.status = Some(status);
        write_status(&self.context, &self.deployments, &fresh).await?;
        Ok(())
    }
}
