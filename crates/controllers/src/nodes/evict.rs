//! Pods that do not tolerate a NoExecute taint of their node go, at once or after
//! `tolerationSeconds`.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::Api;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, run_loop};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

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
#[must_use]
pub fn evict_at(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let spec = pod.spec.as_ref()?;
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let mut seconds: Option<i64> = None;
    let mut since: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let mut matching = tolerations
            .iter()
            .filter(|item| tolerates(item, taint))
            .peekable();
        if matching.peek().is_none() {
            return Some(now);
        }
        let added = taint.time_added.as_ref().map_or(now, |time| time.0);
        since = Some(since.map_or(added, |since| since.min(added)));
        for limit in matching.filter_map(|item| item.toleration_seconds) {
            let limit = limit.max(0);
            seconds = Some(seconds.map_or(limit, |found: i64| found.min(limit)));
        }
    }
    since?.checked_add(SignedDuration::from_secs(seconds?)).ok()
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let queue = WorkQueue::new(context.metrics.of("taint-eviction"));
    let nodes = context.views.of::<Node>();
    let pods = context.views.of::<Pod>();
    pods.add_index(BY_NODE, by_node);
    nodes.synced().await;
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
        pods.on_change(move |change| {
            let Some(node) = change.new.as_ref().and_then(|pod| pods::node_name(pod)) else {
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

struct Reconciler {
    nodes: Arc<View<Node>>,
    pods: Arc<View<Pod>>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(pod) = self.pods.get_key(&key).filter(|pod| pods::is_active(pod)) else {
            return Ok(Outcome::Done);
        };
        let node = pods::node_name(&pod).and_then(|name| self.nodes.get("", name));
        let now = self.context.clock.now();
        let Some(at) = evict_at(&pod, &no_execute(node.as_deref()), now) else {
            return Ok(Outcome::Done);
        };
        if at > now {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            return Ok(Outcome::After(wait + Duration::from_millis(1)));
        }
        let recorder = &self.context.recorder;
        let message = format!("Marking for deletion Pod {key}");
        recorder.tell(
            pod.as_ref(),
            EventType::Normal,
            "TaintManagerEviction",
            message,
        );
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
