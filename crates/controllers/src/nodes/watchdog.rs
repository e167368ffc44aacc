//! Watches leases and node statuses, writes conditions, taints and pods' readiness.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::Api;
use evenkeel_client::{
    EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;

use super::health;
use super::zones::{self, Pacer, Verdict, Zones};
use crate::error::ReconcileError;
use crate::pods;

/// Namespace of node leases.
const LEASES: &str = "kube-node-lease";
/// Between two looks at a node that is not ready (`--node-monitor-period`).
const AGAIN: Duration = Duration::from_secs(5);
/// Nodes are counted anew after this time.
const RECOUNT: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
/// Name of the index of pods by node.
pub(super) const BY_NODE: &str = "node";

/// The index function of [`BY_NODE`].
pub(super) fn by_node(pod: &Pod) -> Vec<String> {
    pods::node_name(pod)
        .map(str::to_owned)
        .into_iter()
        .collect()
}

/// A sign of life: the lease's renewal and the heartbeat of the Ready condition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sign {
    renewed: Option<MicroTime>,
    heartbeat: Option<Time>,
    status: Option<String>,
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let queue = WorkQueue::new(context.metrics.of("node-lifecycle"));
    let nodes = context.views.of::<Node>();
    let leases = context.views.of::<Lease>();
    let pods = context.views.of::<Pod>();
    pods.add_index(BY_NODE, by_node);
    leases.synced().await;
    pods.synced().await;
    {
        let queue = Arc::clone(&queue);
        nodes.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        // A lease renewed every few seconds needs no look while its node is well: the next look
        // is set for when the silence would be long enough, and reads the lease then.
        let queue = Arc::clone(&queue);
        let nodes = Arc::clone(&nodes);
        leases.on_change(move |change| {
            let name = &change.key.name;
            let node = nodes.get("", name);
            let well = |node: &Node| health::state(node, "Ready") == Some("True");
            if change.key.namespace == LEASES && node.is_some_and(|node| !well(&node)) {
                queue.add(ObjectKey::new("", name.clone()));
            }
        });
    }
    let reconciler = Reconciler {
        nodes,
        leases,
        pods,
        heard: Mutex::new(HashMap::new()),
        zones: Mutex::default(),
        context: context.clone(),
    };
    run_loop("node-lifecycle", 8, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

/// How the zones are, and how fast nodes are given up.
#[derive(Debug, Default)]
struct Disruption {
    counted: Option<(Timestamp, Zones)>,
    pacer: Pacer,
    silent: bool,
}

struct Reconciler {
    nodes: Arc<View<Node>>,
    leases: Arc<View<Lease>>,
    pods: Arc<View<Pod>>,
    /// The last sign of each node, and when it came by our clock. After a restart every node is
    /// given its grace anew.
    heard: Mutex<HashMap<String, (Sign, Timestamp)>>,
    zones: Mutex<Disruption>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(node) = self.nodes.get_key(&key) else {
            self.heard.lock().remove(&key.name);
            return Ok(Outcome::Done);
        };
        let now = self.context.clock.now();
        let silent_at = health::silent_at(&node, self.heard_at(&key.name, &node, now));
        let mut node = node;
        if silent_at <= now
            && let Some(conditions) = health::silenced(&node, now)
        {
            let was_ready = health::state(&node, "Ready") == Some("True");
            let mut fresh = node.as_ref().clone();
            fresh.status.get_or_insert_default().conditions = Some(conditions);
            let api: Api<Node> = Api::all(self.context.client.clone());
            let params = PostParams::default();
            let written = api
                .replace_subresource("status", &key.name, &params, &fresh)
                .await?;
            node = self.nodes.note_written(written);
            // Our own write is no sign of life.
            self.refresh(&key.name, &node);
            if was_ready {
                let message = format!("Node {} status is now: NodeNotReady", key.name);
                let recorder = &self.context.recorder;
                recorder.tell(node.as_ref(), EventType::Normal, "NodeNotReady", message);
            }
        }
        if matches!(health::state(&node, "Ready"), Some("False" | "Unknown")) {
            self.mark_pods(&key.name, now).await?;
        }
        let verdict = self.verdict(&node, now);
        if let Some(taints) = health::taints(&node, verdict, now) {
            let api: Api<Node> = Api::all(self.context.client.clone());
            let patch = json!({
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints},
            });
            let params = PatchParams::default();
            let written = api.patch(&key.name, &params, &Patch::Merge(&patch)).await;
            match written {
                Ok(written) => {
                    self.nodes.note_written(written);
                }
                Err(error) if errors::is_not_found(&error) => return Ok(Outcome::Done),
                Err(error) => return Err(error.into()),
            }
        }
        let now = self.context.clock.now();
        let well = health::state(&node, "Ready") == Some("True");
        Ok(if !well && health::condition(&node, "Ready").is_some() {
            // Others decide with what becomes of its pods.
            Outcome::After(AGAIN)
        } else if silent_at > now {
            let wait = Duration::try_from(silent_at.duration_since(now)).unwrap_or_default();
            Outcome::After(wait + Duration::from_millis(10))
        } else {
            Outcome::Done
        })
    }

    /// What may be done about a node's pods, by how its zone and all others are.
    fn verdict(&self, node: &Node, now: Timestamp) -> Verdict {
        if health::state(node, "Ready").is_none_or(|state| state == "True") {
            return Verdict::Wait;
        }
        let mut zones = self.zones.lock();
        let Disruption {
            counted,
            pacer,
            silent,
        } = &mut *zones;
        let zones = match counted {
            // Many silent nodes are not to count each other at once.
            Some((at, zones)) if now.duration_since(*at) < RECOUNT => zones.clone(),
            _ => {
                let zones = Zones::of(self.nodes.list().iter().map(AsRef::as_ref));
                *counted = Some((now, zones.clone()));
                zones
            }
        };
        let all = zones.all_are_silent();
        if all != *silent {
            *silent = all;
            if all {
                tracing::warn!("no node is ready: nothing is evicted until one is again");
            } else {
                tracing::info!("nodes are ready again: evictions go on");
            }
        }
        if all {
            Verdict::Spare
        } else if health::is_given_up(node) || pacer.may(&zones, &zones::zone_of(node), now) {
            Verdict::GiveUp
        } else {
            Verdict::Wait
        }
    }

    fn sign(&self, name: &str, node: &Node) -> Sign {
        let lease = self.leases.get(LEASES, name);
        let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let ready = health::condition(node, "Ready");
        Sign {
            renewed: spec.and_then(|spec| spec.renew_time.clone()),
            heartbeat: ready.and_then(|ready| ready.last_heartbeat_time.clone()),
            status: ready.map(|ready| ready.status.clone()),
        }
    }

    fn heard_at(&self, name: &str, node: &Node, now: Timestamp) -> Timestamp {
        let sign = self.sign(name, node);
        let mut heard = self.heard.lock();
        match heard.get_mut(name) {
            Some((last, at)) if *last == sign => *at,
            Some(entry) => {
                // A renewal happened between two looks; its own time is at most a clock's
                // difference off, but never later than now nor earlier than the last one.
                let renewed = sign.renewed.as_ref().map_or(now, |time| time.0);
                let at = renewed.clamp(entry.1, now.max(entry.1));
                let at = if now.duration_since(at) > health::GRACE {
                    now
                } else {
                    at
                };
                *entry = (sign, at);
                at
            }
            None => {
                heard.insert(name.to_owned(), (sign, now));
                now
            }
        }
    }

    fn refresh(&self, name: &str, node: &Node) {
        let sign = self.sign(name, node);
        if let Some(entry) = self.heard.lock().get_mut(name) {
            entry.0 = sign;
        }
    }

    /// The pods of a node that does not answer are not ready: services must not count on them.
    async fn mark_pods(&self, node: &str, now: Timestamp) -> Result<(), ReconcileError> {
        for pod in self.pods.by_index(BY_NODE, node) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let mut fresh = pod.as_ref().clone();
            let status = fresh.status.get_or_insert_default();
            for condition in status.conditions.iter_mut().flatten() {
                if condition.type_ == "Ready" {
                    condition.status = "False".to_owned();
                    condition.last_transition_time = Some(Time(now));
                }
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
            let params = PostParams::default();
            match api
                .replace_subresource("status", name, &params, &fresh)
                .await
            {
                Ok(written) => {
                    let recorder = &self.context.recorder;
                    let text = "Node is not ready";
                    recorder.tell(&written, EventType::Warning, "NodeNotReady", text);
                    self.pods.note_written(written);
                }
                Err(error) if errors::is_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
