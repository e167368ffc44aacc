//! Carries out a preemption: nominations of less important pods are taken back, victims are
//! marked with the condition `DisruptionTarget` and deleted gracefully.
//!
//! Every step may be done twice: a restart between any two of them finds the pods as they are and
//! goes on, or chooses again.

use std::sync::Arc;

use evenkeel_client::{Api, Client, EventType, Recorder, SharedClock, errors};
use futures::stream::{self, StreamExt as _};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};

use crate::bind::Waiting;
use crate::core::Eviction;
use crate::plugins::preemption::{BY_SCHEDULER, DISRUPTION_TARGET};
use crate::pod::PodInfo;

/// Requests under way at once.
const AT_ONCE: usize = 16;
/// Tries against concurrent writers.
const TRIES: usize = 5;

/// What it is carried out with.
#[derive(Clone)]
pub(crate) struct Evictor {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) clock: SharedClock,
    pub(crate) waiting: Waiting,
}

impl Evictor {
    /// Does it all. `false` when a victim could not be evicted, so that the pod must be tried
    /// again.
    pub(crate) async fn evict(&self, preemptor: &PodInfo, eviction: &Eviction) -> bool {
        for other in &eviction.displaced {
            self.take_back(other).await;
        }
        let mut evictions = Vec::with_capacity(eviction.victims.len());
        for victim in &eviction.victims {
            // Those of a group may go from several nodes.
            let node = victim.node_name().unwrap_or(&eviction.node);
            evictions.push(self.victim(preemptor, victim, node));
        }
        let done: Vec<bool> = stream::iter(evictions)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        done.into_iter().all(|done| done)
    }

    fn pods(&self, pod: &PodInfo) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.key.namespace)
    }

    async fn take_back(&self, pod: &PodInfo) {
        let patch = serde_json::json!({
            "metadata": {"uid": &*pod.uid},
            "status": {"nominatedNodeName": null},
        });
        let params = PatchParams::default();
        let patched = self
            .pods(pod)
            .patch_status(&pod.key.name, &params, &Patch::Merge(&patch))
            .await;
        if let Err(error) = patched {
            // The pod finds out for itself that the node is full.
            let error = errors::message(&error);
            tracing::debug!(pod = %pod.key, error, "nomination not taken back");
        }
    }

    async fn victim(&self, preemptor: &PodInfo, victim: &Arc<PodInfo>, node: &str) -> bool {
        // One that a Permit plugin holds back is not on the node yet, and need not die.
        if !self.waiting.answer(&victim.uid, false) {
            let evicted = self.mark_and_delete(preemptor, victim).await;
            if let Err(error) = evicted {
                if errors::is_not_found(&error) {
                    return true;
                }
                let error = errors::message(&error);
                tracing::warn!(pod = %victim.key, error, "not preempted");
                return false;
            }
        }
        self.recorder.tell(
            &*victim.pod,
            EventType::Normal,
            "Preempted",
            format!("Preempted by pod {} on node {node}", preemptor.uid),
        );
        true
    }

    async fn mark_and_delete(
        &self,
        preemptor: &PodInfo,
        victim: &PodInfo,
    ) -> Result<(), kube::Error> {
        let pods = self.pods(victim);
        let name = &victim.key.name;
        let mut pod = Arc::clone(&victim.pod);
        for _ in 0..TRIES {
            let Some(conditions) = self.marked(preemptor, &pod) else {
                break;
            };
            let patch = serde_json::json!({
                "metadata": {"uid": &*victim.uid, "resourceVersion": pod.metadata.resource_version},
                "status": {"conditions": conditions},
            });
            let params = PatchParams::default();
            match pods
                .patch_status(name, &params, &Patch::Merge(&patch))
                .await
            {
                Ok(_) => break,
                Err(error) if errors::is_conflict(&error) => {
                    pod = Arc::new(pods.get(name).await?);
                    if pod.metadata.uid.as_deref() != Some(&*victim.uid) {
                        // Another pod of that name: the victim is gone.
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(victim.uid.to_string()),
                ..Preconditions::default()
            }),
            ..DeleteParams::default()
        };
        match pods.delete(name, &params).await {
            // The precondition: another pod of that name, so the victim is gone.
            Err(error) if errors::is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// The victim's conditions with the mark; `None` when it has it.
    fn marked(&self, preemptor: &PodInfo, pod: &Pod) -> Option<Vec<PodCondition>> {
        let status = pod.status.as_ref();
        let mut all = status
            .and_then(|status| status.conditions.clone())
            .unwrap_or_default();
        let wanted = PodCondition {
            type_: DISRUPTION_TARGET.to_owned(),
            status: "True".to_owned(),
            reason: Some(BY_SCHEDULER.to_owned()),
            message: Some(format!(
                "{}: preempting to accommodate a higher priority pod",
                preemptor.scheduler_name()
            )),
            observed_generation: pod.metadata.generation,
            last_transition_time: Some(Time(self.clock.now())),
            last_probe_time: None,
        };
        match all
            .iter_mut()
            .find(|known| known.type_ == DISRUPTION_TARGET)
        {
            Some(known) if known.status == "True" && known.reason == wanted.reason => return None,
            Some(known) => *known = wanted,
            None => all.push(wanted),
        }
        Some(all)
    }
}
