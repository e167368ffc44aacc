//! Pods that do not tolerate a NoExecute taint of their node go, at once or after
//! `tolerationSeconds`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::Api;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, run_loop};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use parking_lot::Mutex;

use super::watchdog::{BY_NODE, by_node};
use crate::ending::{disruption, evict};
use crate::error::ReconcileError;
use crate::pods;

/// Does a toleration match a taint (`v1.Toleration.ToleratesTaint`)?
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

/// When a pod must go for the taints of its node; `None`: never.
///
/// A taint counts from when it was added, or from when the pod came to the node if that was later.
/// One that does not say when, as `kubectl taint` writes it, counts from `now`: who asks again keeps
/// the earliest answer.
#[must_use]
pub fn evict_at(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let spec = pod.spec.as_ref()?;
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let came = came_at(pod);
    let mut at: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let mut matching = tolerations
            .iter()
            .filter(|item| tolerates(item, taint))
            .peekable();
        if matching.peek().is_none() {
            return Some(now);
        }
        let Some(limit) = matching.filter_map(|item| item.toleration_seconds).min() else {
            continue;
        };
        let added = taint.time_added.as_ref().map_or(now, |time| time.0);
        let since = came.map_or(added, |came| came.max(added));
        let limit = SignedDuration::from_secs(limit.max(0));
        // A limit beyond the end of time is none.
        at = at.into_iter().chain(since.checked_add(limit).ok()).min();
    }
    at
}

/// When a pod came to its node: bound there, or made for it.
fn came_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let bound = conditions.into_iter().flatten().find_map(|condition| {
        let holds = condition.type_ == "PodScheduled" && condition.status == "True";
        condition.last_transition_time.as_ref().filter(|_| holds)
    });
    let came = bound.or(pod.metadata.creation_timestamp.as_ref());
    came.map(|time| time.0)
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let queue = WorkQueue::new(context.metrics.of("taint-eviction"));
    let nodes = context.views.of::<Node>();
    let pods = context.views.of::<Pod>();
    pods.add_index(BY_NODE, by_node);
    nodes.synced().await;
    let due = Arc::new(Due::default());
    {
        let queue = Arc::clone(&queue);
        let pods = Arc::clone(&pods);
        nodes.on_change(move |change| {
            let taints = |node: &Option<Arc<Node>>| no_execute(node.as_deref());
            if taints(&change.old) == taints(&change.new) {
                return;
            }
            for pod in pods.by_index(BY_NODE, &change.key.name) {
                queue.add(ObjectKey::of(pod.as_ref()));
            }
        });
    }
    {
        let queue = Arc::clone(&queue);
        let nodes = Arc::clone(&nodes);
        let due = Arc::clone(&due);
        pods.on_change(move |change| {
            let Some(pod) = &change.new else {
                let uid = change
                    .old
                    .as_ref()
                    .and_then(|pod| pod.metadata.uid.as_ref());
                uid.and_then(|uid| due.lock().remove(uid));
                return;
            };
            let Some(node) = pods::node_name(pod) else {
                return;
            };
            if !no_execute(nodes.get("", node).as_deref()).is_empty() {
                queue.add(change.key.clone());
            }
        });
    }
    let reconciler = Reconciler {
        nodes,
        pods,
        due,
        context: context.clone(),
    };
    run_loop("taint-eviction", 8, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

fn no_execute(node: Option<&Node>) -> Vec<Taint> {
    let taints = node.and_then(|node| node.spec.as_ref()?.taints.as_ref());
    let taints = taints.into_iter().flatten();
    taints
        .filter(|taint| taint.effect == "NoExecute")
        .cloned()
        .collect()
}

/// When pods must go, by UID: a time that was given once is not put off, by whatever changes but that
/// the pod may stay.
type Due = Mutex<HashMap<String, Timestamp>>;

struct Reconciler {
    nodes: Arc<View<Node>>,
    pods: Arc<View<Pod>>,
    due: Arc<Due>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(pod) = self.pods.get_key(&key).filter(|pod| pods::is_active(pod)) else {
            return Ok(Outcome::Done);
        };
        let node = pods::node_name(&pod).and_then(|name| self.nodes.get("", name));
        let now = self.context.clock.now();
        let recorder = &self.context.recorder;
        let tell = |message: String| {
            let reason = "TaintManagerEviction";
            recorder.tell(pod.as_ref(), EventType::Normal, reason, message);
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let Some(at) = evict_at(&pod, &no_execute(node.as_deref()), now) else {
            if self.due.lock().remove(&uid).is_some() {
                tell(format!("Cancelling deletion of Pod {key}"));
            }
            return Ok(Outcome::Done);
        };
        let at = {
            let mut due = self.due.lock();
            let known = due.entry(uid).or_insert(at);
            *known = at.min(*known);
            *known
        };
        if at > now {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            return Ok(Outcome::After(wait + Duration::from_millis(1)));
        }
        tell(format!("Marking for deletion Pod {key}"));
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let condition = disruption(
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            now,
        );
        // That it is gone already is as good.
        evict(&api, &self.pods, &pod, condition).await?;
        Ok(Outcome::Done)
    }
}
