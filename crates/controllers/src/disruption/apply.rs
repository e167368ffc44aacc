//! Carries a look at a budget out: events and status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, errors};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};

use super::plan::{self, expected, is_same, look};
use super::scale::Scales;
use super::selector;
use crate::claim;
use crate::error::ReconcileError;
use crate::pod_control::wait_until;
use crate::told::write_status;

pub(super) struct Reconciler {
    pub(super) budgets: Arc<View<PodDisruptionBudget>>,
    pub(super) pods: Arc<View<Pod>>,
    pub(super) scales: Scales,
    pub(super) context: LoopContext,
}

impl Reconciler {
    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(budget) = self.budgets.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        match self.look(&key, &budget).await {
            Ok(outcome) => Ok(outcome),
            // Somebody evicted meanwhile: what is written must not be undone.
            Err(ReconcileError::Api(error)) if errors::is_conflict(&error) => Err(error.into()),
            Err(error) => {
                let now = self.context.clock.now();
                let status = plan::unknown(&budget, &error.to_string(), now);
                self.write_status(&budget, status).await?;
                Err(error)
            }
        }
    }

    async fn look(
        &self,
        key: &ObjectKey,
        budget: &PodDisruptionBudget,
    ) -> Result<Outcome, ReconcileError> {
        let recorder = &self.context.recorder;
        let pods = match selector(budget) {
            Some(selector) => self.pods.matching(&key.namespace, &selector),
            None => Vec::new(),
        };
        if pods.is_empty() {
            recorder.tell(
                budget,
                EventType::Normal,
                "NoPods",
                "No matching pods found",
            );
        }
        let scale = if plan::needs_scale(budget) {
            match self.scale(key, budget, &pods).await {
                Ok(scale) => scale,
                Err(error) => {
                    let text = format!("Failed to calculate the number of expected pods: {error}");
                    let reason = "CalculateExpectedPodCountFailed";
                    recorder.tell(budget, EventType::Warning, reason, text);
                    return Err(error);
                }
            }
        } else {
            0
        };
        let now = self.context.clock.now();
        let look = look(budget, &pods, expected(budget, pods.len(), scale), now);
        for pod in &look.not_deleted {
            let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            recorder.tell(pod.as_ref(), EventType::Warning, "NotDeleted", text);
        }
        self.write_status(budget, look.status).await?;
        let next = look.look_again;
        Ok(next.map_or(Outcome::Done, |at| Outcome::After(wait_until(at, now))))
    }

    /// The sum of what the owners of the pods ask for.
    async fn scale(
        &self,
        key: &ObjectKey,
        budget: &PodDisruptionBudget,
        pods: &[Arc<Pod>],
    ) -> Result<i32, ReconcileError> {
        let mut owners: BTreeSet<String> = BTreeSet::new();
        let mut unmanaged = 0;
        let mut sums: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = claim::controller_of(&pod.metadata) else {
                unmanaged += 1;
                continue;
            };
            if owners.contains(&owner.uid) {
                continue;
            }
            let scale = self.scales.of(&key.namespace, owner).await?;
            let Some(scale) = scale else {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let text = format!("found no controllers for pod {name:?}");
                return Err(ReconcileError::State(text));
            };
            owners.insert(owner.uid.clone());
            // Two ReplicaSets of one Deployment are one owner.
            sums.insert(scale.uid, scale.replicas);
        }
        if unmanaged > 0 {
            let spec = budget.spec.as_ref();
            let selector = spec.and_then(|spec| spec.selector.as_ref());
            let selector = serde_json::to_string(&selector).unwrap_or_default();
            let text = format!(
                "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be \
                 unmanaged. As a result, the status of the PDB cannot be calculated correctly, \
                 which may result in undefined behavior. To account for these pods please set \
                 \".spec.minAvailable\" field of the PDB to an integer value."
            );
            let recorder = &self.context.recorder;
            recorder.tell(budget, EventType::Warning, "UnmanagedPods", text);
        }
        Ok(sums.values().sum())
    }

    async fn write_status(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), ReconcileError> {
        if is_same(budget.status.as_ref(), &status) {
            return Ok(());
        }
        let mut fresh = budget.clone();
        fresh.status = Some(status);
        write_status(&self.context, &self.budgets, &fresh).await?;
        Ok(())
    }
}
