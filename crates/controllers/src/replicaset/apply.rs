//! Carries a ReplicaSet's plan out: pods in growing batches, then the status.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::view::index;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View};
use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use k8s_openapi::api::core::v1::Pod;

use super::{Replicated, plan, rank};
use crate::claim;
use crate::error::ReconcileError;
use crate::pod_control::{PodControl, wait_until};
use crate::told::write_status;

pub(super) struct Reconciler<O: Replicated> {
    pub(super) sets: Arc<View<O>>,
    pub(super) pods: Arc<View<Pod>>,
    pub(super) context: LoopContext,
}

impl<O: Replicated> Reconciler<O> {
    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(owner) = self.sets.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let set = owner.as_set();
        let mine = self.claim(&owner, &set.spec.selector).await?;
        let per_node = || self.pods_per_node(&owner);
        let plan = plan::plan(&set, &mine, per_node, self.context.clock.now());
        let changed = plan.create > 0 || !plan.delete.is_empty();
        let done = self.carry_out(&owner, plan).await;
        let failure = done.as_ref().err().map(ToString::to_string);
        // What was just created and deleted counts already.
        let mine = if changed { self.owned(&owner) } else { mine };
        let now = self.context.clock.now();
        let (status, next) = plan::status(&set, &mine, failure.as_deref(), now);
        if !self.write_status(&key, &owner, status).await? {
            return Ok(Outcome::Done);
        }
        done?;
        Ok(next.map_or(Outcome::Done, |at| Outcome::After(wait_until(at, now))))
    }

    /// False: the set is gone.
    async fn write_status(
        &self,
        _key: &ObjectKey,
        owner: &O,
        status: ReplicaSetStatus,
    ) -> Result<bool, ReconcileError> {
        let fresh = owner.with_status(status);
        // Compared as this kind tells it: a ReplicationController has no terminating replicas.
        let told = fresh.as_set().status.clone().unwrap_or_default();
        if plan::is_same(owner.as_set().status.as_ref(), &told) {
            return Ok(true);
        }
        let written = write_status(&self.context, &self.sets, &fresh).await?;
        Ok(written.is_some())
    }

    fn owned(&self, owner: &O) -> Vec<Arc<Pod>> {
        let uid = owner.meta().uid.as_deref().unwrap_or_default();
        self.pods.by_index(index::CONTROLLER, uid)
    }

    async fn claim(
        &self,
        owner: &O,
        selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let selector = LabelSelector::from_spec(Some(selector))
            .map_err(|error| ReconcileError::State(error.to_string()))?;
        let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
        let mut orphans = self.pods.by_index(claim::ORPHAN, namespace);
        orphans.retain(|pod| crate::pods::is_active(pod));
        if selector.is_everything() {
            orphans.clear();
        }
        let deleting = owner.meta().deletion_timestamp.is_some();
        let claims = claim::claims(deleting, &selector, self.owned(owner), orphans);
        claim::carry_out(&self.context.client, &self.pods, owner, claims).await
    }

    /// Counts over all sets of the same owner: a Deployment's old and new pods are one group.
    fn pods_per_node(&self, set: &O) -> HashMap<String, usize> {
        let Some(owner) = claim::controller_of(set.meta()) else {
            return rank::pods_per_node(&self.owned(set));
        };
        let siblings = self.sets.by_index(index::CONTROLLER, &owner.uid);
        let related: Vec<_> = siblings.iter().flat_map(|set| self.owned(set)).collect();
        rank::pods_per_node(&related)
    }

    async fn carry_out(&self, owner: &O, plan: plan::Plan) -> Result<(), ReconcileError> {
        let control = PodControl {
            context: &self.context,
            view: &self.pods,
        };
        if plan.create == 0 {
            return Ok(control.delete_all(owner, &plan.delete).await?);
        }
        match plan::pod_of(&owner.as_set(), claim::reference_to(owner)) {
            Ok(pod) => {
                let pods = std::iter::repeat_n(&pod, plan.create);
                Ok(control.create_all(owner, pods).await?)
            }
            Err(why) => {
                let message = format!("Error creating: {why}");
                let recorder = &self.context.recorder;
                recorder.tell(owner, EventType::Warning, "FailedCreate", message);
                Err(ReconcileError::State(why))
            }
        }
    }
}
