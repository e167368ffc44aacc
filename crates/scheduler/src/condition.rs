//! The pod's condition `PodScheduled=False`: why it waits.

use std::sync::Arc;

use evenkeel_client::{Api, Client, SharedClock, View, errors};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};

use crate::core::Nomination;
use crate::pod::node_name;

const TYPE: &str = "PodScheduled";
/// Tries against concurrent writers.
const TRIES: usize = 5;

/// What is to be said.
#[derive(Debug, Clone)]
pub(crate) struct Unscheduled {
    /// `Unschedulable` or `SchedulerError`.
    pub(crate) reason: &'static str,
    /// The text of the event.
    pub(crate) message: String,
    /// What becomes of the node that is set aside for the pod.
    pub(crate) nomination: Nomination,
}

fn conditions(pod: &Pod) -> &[PodCondition] {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

impl Unscheduled {
    /// Does the pod not say so already?
    pub(crate) fn is_news(&self, pod: &Pod) -> bool {
        let said = conditions(pod).iter().any(|known| {
            known.type_ == TYPE
                && known.status == "False"
                && known.reason.as_deref() == Some(self.reason)
                && known.message.as_deref() == Some(self.message.as_str())
        });
        let nominated = pod
            .status
            .as_ref()
            .and_then(|status| status.nominated_node_name.as_deref())
            .unwrap_or_default();
        !said
            || match &self.nomination {
                Nomination::Keep => false,
                Nomination::Clear => !nominated.is_empty(),
                Nomination::Set(node) => **node != *nominated,
            }
    }

    fn status(&self, pod: &Pod, clock: &SharedClock) -> serde_json::Value {
        let mut status = serde_json::json!({"conditions": self.among(pod, clock)});
        match &self.nomination {
            Nomination::Keep => {}
            Nomination::Clear => status["nominatedNodeName"] = serde_json::Value::Null,
            Nomination::Set(node) => status["nominatedNodeName"] = (**node).into(),
        }
        status
    }

    fn among(&self, pod: &Pod, clock: &SharedClock) -> Vec<PodCondition> {
        let mut all = conditions(pod).to_vec();
        let since = all
            .iter()
            .find(|known| known.type_ == TYPE && known.status == "False")
            .and_then(|known| known.last_transition_time.clone());
        let condition = PodCondition {
            type_: TYPE.to_owned(),
            status: "False".to_owned(),
            reason: Some(self.reason.to_owned()),
            message: Some(self.message.clone()),
            observed_generation: pod.metadata.generation,
            last_transition_time: since.or_else(|| Some(Time(clock.now()))),
            last_probe_time: None,
        };
        match all.iter_mut().find(|known| known.type_ == TYPE) {
            Some(known) => *known = condition,
            None => all.push(condition),
        }
        all
    }
}

/// Writes the condition, unless the pod is bound or gone meanwhile: the patch holds only at the
/// revision it was made from.
pub(crate) async fn write(
    client: &Client,
    view: &View<Pod>,
    clock: &SharedClock,
    mut pod: Arc<Pod>,
    wanted: Unscheduled,
) {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let uid = pod.metadata.uid.clone();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    for _ in 0..TRIES {
        let patch = serde_json::json!({
            "metadata": {"uid": uid, "resourceVersion": pod.metadata.resource_version},
            "status": wanted.status(&pod, clock),
        });
        let params = PatchParams::default();
        match pods
            .patch_status(&name, &params, &Patch::Merge(&patch))
            .await
        {
            Ok(written) => {
                view.note_written(written);
                return;
            }
            Err(error) if errors::is_conflict(&error) => {}
            Err(error) => {
                if !errors::is_not_found(&error) {
                    let error = errors::message(&error);
                    tracing::warn!(pod = %view_name(&namespace, &name), error, "condition not written");
                }
                return;
            }
        }
        match pods.get(&name).await {
            Ok(latest)
                if latest.metadata.uid == uid
                    && node_name(&latest).is_none()
                    && wanted.is_news(&latest) =>
            {
                pod = Arc::new(latest);
            }
            _ => return,
        }
    }
}

fn view_name(namespace: &str, name: &str) -> evenkeel_client::ObjectKey {
    evenkeel_client::ObjectKey::new(namespace, name)
}
