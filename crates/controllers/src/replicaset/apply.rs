//! Carries a ReplicaSet's plan out: pods in growing batches, then the status.

use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::view::index;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, errors};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::{plan, rank};
use crate::claim;
use crate::error::ReconcileError;

pub(super) struct Reconciler {
    pub(super) sets: Arc<View<ReplicaSet>>,
    pub(super) pods: Arc<View<Pod>>,
    pub(super) context: LoopContext,
}

impl Reconciler {
    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(set) = self.sets.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let mine = self.claim(&set).await?;
        let per_node = self.pods_per_node(&set);
        let plan = plan::plan(&set, &mine, &per_node, self.context.clock.now());
        let changed = plan.create > 0 || !plan.delete.is_empty();
        let done = self.carry_out(&set, plan).await;
        let failure = done.as_ref().err().map(ToString::to_string);
        // What was just created and deleted counts already.
        let mine = if changed { self.owned(&set) } else { mine };
        let now = self.context.clock.now();
        let (status, next) = plan::status(&set, &mine, failure.as_deref(), now);
        if !plan::is_same(set.status.as_ref(), &status) {
            let mut fresh = set.as_ref().clone();
            fresh.status = Some(status);
            let api: Api<ReplicaSet> = Api::namespaced(self.context.client.clone(), &key.namespace);
            let params = PostParams::default();
            match api
                .replace_subresource("status", &key.name, &params, &fresh)
                .await
            {
                Ok(written) => {
                    self.sets.note_written(written);
                }
                Err(error) if errors::is_not_found(&error) => return Ok(Outcome::Done),
                Err(error) => return Err(error.into()),
            }
        }
        done?;
        Ok(match next {
            Some(at) => {
                let wait = at.duration_since(now).unsigned_abs();
                Outcome::After(wait + std::time::Duration::from_millis(1))
            }
            None => Outcome::Done,
        })
    }

    fn owned(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        self.pods.by_index(index::CONTROLLER, uid)
    }

    async fn claim(&self, set: &ReplicaSet) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let selector = LabelSelector::from_spec(Some(&set.spec.selector))
            .map_err(|error| ReconcileError::State(error.to_string()))?;
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let mut orphans = self.pods.by_index(claim::ORPHAN, namespace);
        orphans.retain(|pod| crate::pods::is_active(pod));
        if selector.is_everything() {
            orphans.clear();
        }
        let deleting = set.metadata.deletion_timestamp.is_some();
        let claims = claim::claims(deleting, &selector, self.owned(set), orphans);
        claim::carry_out(&self.context.client, &self.pods, set, claims).await
    }

    /// Counts over all sets of the same owner: a Deployment's old and new pods are one group.
    fn pods_per_node(&self, set: &ReplicaSet) -> std::collections::HashMap<String, usize> {
        let Some(owner) = claim::controller_of(&set.metadata) else {
            return rank::pods_per_node(&self.owned(set));
        };
        let siblings = self.sets.by_index(index::CONTROLLER, &owner.uid);
        let related: Vec<_> = siblings.iter().flat_map(|set| self.owned(set)).collect();
        rank::pods_per_node(&related)
    }

    async fn carry_out(&self, set: &ReplicaSet, plan: plan::Plan) -> Result<(), ReconcileError> {
        if plan.create > 0 {
            return self.create(set, plan.create).await;
        }
        let deletions = plan.delete.iter().map(|pod| self.delete(set, pod));
        join_all(deletions).await.into_iter().collect()
    }

    /// Creates in batches of 1, 2, 4 …: when the first fails (a quota, say), the rest would too,
    /// and are not tried.
    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<(), ReconcileError> {
        let pod = match plan::pod_of(set) {
            Ok(pod) => pod,
            Err(why) => {
                let message = format!("Error creating: {why}");
                let recorder = &self.context.recorder;
                recorder.tell(set, EventType::Warning, "FailedCreate", message);
                return Err(ReconcileError::State(why));
            }
        };
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let now = batch.min(left);
            let created = join_all((0..now).map(|_| self.create_one(set, &pod))).await;
            created.into_iter().collect::<Result<(), _>>()?;
            left -= now;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), ReconcileError> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
        let recorder = &self.context.recorder;
        match api.create(&PostParams::default(), pod).await {
            Ok(made) => {
                let name = made.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Created pod: {name}");
                recorder.tell(set, EventType::Normal, "SuccessfulCreate", message);
                self.pods.note_written(made);
                Ok(())
            }
            // The set goes with its namespace; there is nobody to tell.
            Err(error) if errors::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("Error creating: {}", errors::message(&error));
                recorder.tell(set, EventType::Warning, "FailedCreate", message);
                Err(error.into())
            }
        }
    }

    async fn delete(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), ReconcileError> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        });
        let recorder = &self.context.recorder;
        match api.delete(name, &params).await {
            Ok(answer) => {
                self.pods.note_delete_answer(pod, answer.left());
                let message = format!("Deleted pod: {name}");
                recorder.tell(set, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if errors::is_not_found(&error) || errors::is_conflict(&error) => {
                self.pods.note_deleted(pod);
                Ok(())
            }
            Err(error) => {
                let message = format!("Error deleting: {}", errors::message(&error));
                recorder.tell(set, EventType::Warning, "FailedDelete", message);
                Err(error.into())
            }
        }
    }
}
