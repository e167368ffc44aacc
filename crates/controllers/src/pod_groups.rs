//! A pod group stays while pods of it run: its protection finalizer goes last, as with the
//! `podgroup-protection-controller` of the reference. The door adds it.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{
    LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, is_served, run_loop,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use kube::api::{ListParams, PostParams};

use crate::error::ReconcileError;
use crate::pods;

/// Keeps groups that pods belong to.
pub const FINALIZER: &str = "scheduling.k8s.io/podgroup-protection";
/// Pods by the group they belong to.
const BY_GROUP: &str = "pod-group";

fn group_of(pod: &Pod) -> Option<&str> {
    let group = pod.spec.as_ref()?.scheduling_group.as_ref()?;
    group.pod_group_name.as_deref()
}

fn by_group(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let key = group_of(pod).map(|name| ObjectKey::new(namespace, name).to_string());
    key.into_iter().collect()
}

/// Does the pod keep its group?
fn keeps(pod: &Pod, group: &str) -> bool {
    !pods::is_terminal(pod) && group_of(pod) == Some(group)
}

/// The finalizers that a group should have; `None` when they are right. `used` says whether pods
/// of it are still running.
#[must_use]
pub fn plan(group: &PodGroup, used: bool) -> Option<Vec<String>> {
    let mut finalizers = group.metadata.finalizers.clone().unwrap_or_default();
    let protected = finalizers.iter().any(|found| found == FINALIZER);
    match (group.metadata.deletion_timestamp.is_some(), protected) {
        (false, false) => finalizers.push(FINALIZER.to_owned()),
        (true, true) if !used => finalizers.retain(|found| found != FINALIZER),
        _ => return None,
    }
    Some(finalizers)
}

struct Reconciler {
    groups: Arc<View<PodGroup>>,
    pods: Arc<View<Pod>>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(group) = self.groups.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let used = group.metadata.deletion_timestamp.is_some() && self.is_used(&key).await?;
        let Some(finalizers) = plan(&group, used) else {
            return Ok(Outcome::Done);
        };
        let api: Api<PodGroup> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let mut wanted = (*group).clone();
        let gone = finalizers.is_empty() && group.metadata.deletion_timestamp.is_some();
        wanted.metadata.finalizers = Some(finalizers);
        match api
            .replace(&key.name, &PostParams::default(), &wanted)
            .await
        {
            Ok(_) if gone => {
                self.groups.note_deleted(&group);
            }
            Ok(written) => {
                self.groups.note_written(written);
            }
            Err(error) if errors::is_not_found(&error) => {
                self.groups.note_deleted(&group);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Outcome::Done)
    }

    /// Asked of the view first and, before the group is let go, of the door.
    async fn is_used(&self, key: &ObjectKey) -> Result<bool, ReconcileError> {
        let known = self.pods.by_index(BY_GROUP, &key.to_string());
        if known.iter().any(|pod| keeps(pod, &key.name)) {
            return Ok(true);
        }
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let now = api.list(&ListParams::default()).await?;
        Ok(now.items.iter().any(|pod| keeps(pod, &key.name)))
    }
}

/// Protects groups of pods. Runs until the context's shutdown; ends at once where the door serves
/// no groups.
pub async fn run(context: LoopContext) {
    let served = tokio::select! {
        () = context.shutdown.cancelled() => return,
        served = is_served::<PodGroup>(&context.client) => served,
    };
    if !served {
        return;
    }
    let groups = context.views.of::<PodGroup>();
    let pods = context.views.of::<Pod>();
    pods.add_index(BY_GROUP, by_group);
    tokio::join!(groups.synced(), pods.synced());
    let queue = WorkQueue::new(context.metrics.of("podgroup-protection"));
    {
        let queue = Arc::clone(&queue);
        groups.on_change(move |change| {
            if change.new.is_some() {
                queue.add(change.key.clone());
            }
        });
    }
    {
        let queue = Arc::clone(&queue);
        pods.on_change(move |change| {
            let ended = change.new.as_deref().is_none_or(pods::is_terminal);
            for side in change.sides() {
                if let Some(group) = group_of(side).filter(|_| ended) {
                    queue.add(ObjectKey::new(change.key.namespace.clone(), group));
                }
            }
        });
    }
    let reconciler = Reconciler {
        groups,
        pods,
        context: context.clone(),
    };
    run_loop("podgroup-protection", 8, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_group_goes_when_its_last_pod_has_ended() {
        let group = |deleted: bool, finalizers: &[&str]| -> PodGroup {
            let mut meta = json!({"namespace": "default", "name": "g", "finalizers": finalizers});
            if deleted {
                meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            let spec = json!({"schedulingPolicy": {"basic": {}}});
            serde_json::from_value(json!({"metadata": meta, "spec": spec})).expect("a group")
        };
        assert_eq!(plan(&group(false, &[FINALIZER]), false), None);
        assert_eq!(
            plan(&group(false, &["a/b"]), false),
            Some(vec!["a/b".to_owned(), FINALIZER.to_owned()])
        );
        assert_eq!(plan(&group(true, &[FINALIZER]), true), None);
        assert_eq!(plan(&group(true, &[FINALIZER]), false), Some(vec![]));
        assert_eq!(plan(&group(true, &["a/b"]), false), None);
    }
}
