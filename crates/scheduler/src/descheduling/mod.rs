//! The descheduling loop: empties nodes that are little used, where their pods fit on others.
//!
//! Off unless asked for. It has a view of the cluster of its own, so that it never holds up a
//! scheduling cycle, and does one node at a time: marks it with a taint that keeps pods away while
//! they can go elsewhere, evicts through the API, which holds the disruption budgets, and waits for
//! the pods to be placed again. The taint is all that is remembered: a restart goes on from there.

pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel_client::{Api, EventType, LoopContext, LoopMetrics, errors};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Taint};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::core::Core;
use crate::inputs::Inputs;
use crate::plugins::default_placement;
use crate::pod::{is_terminal, node_name};
use plan::{Aims, Drain, Planned, TAINT, is_marked};

/// How often changes are taken in.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is looked for a node to empty.
const PERIOD: Duration = Duration::from_secs(60);

/// Takes the marks off that a consolidation has left: where it is switched off, nobody else would,
/// and pods would go on to avoid these nodes. Runs until the context's shutdown, since a view may
/// show a mark late. The client needs get and patch on nodes.
pub async fn clean_up(context: LoopContext) {
    let view = context.views.of::<Node>();
    let shutdown = context.shutdown.clone();
    let mut nodes = view.subscribe();
    let mut left: BTreeSet<String> = BTreeSet::new();
    loop {
        let retry = async {
            if left.is_empty() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LOOK).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            change = nodes.next() => {
                let name = change.key.name.clone();
                match &change.new {
                    Some(node) if is_marked(node) => left.insert(name),
                    _ => left.remove(&name),
                };
            }
            () = retry => {}
        }
        let mut failed = BTreeSet::new();
        for name in std::mem::take(&mut left) {
            if mark(&context, &name, false).await {
                tracing::info!(node = name, "no consolidation: its mark is taken off");
            } else {
                failed.insert(name);
            }
        }
        left = failed;
    }
}

/// Marks a node, or takes the mark off; `false` when that failed.
async fn mark(context: &LoopContext, name: &str, mark: bool) -> bool {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let written = async {
        let node = match nodes.get(name).await {
            // Gone, and its mark with it.
            Err(error) if errors::is_not_found(&error) && !mark => return Ok(()),
            other => other?,
        };
        if is_marked(&node) == mark {
            return Ok(());
        }
        let spec = node.spec.unwrap_or_default();
        let mut taints = spec.taints.unwrap_or_default();
        taints.retain(|taint| taint.key != TAINT);
        if mark {
            taints.push(Taint {
                key: TAINT.to_owned(),
                effect: "PreferNoSchedule".to_owned(),
                ..Taint::default()
            });
        }
        let taints = (!taints.is_empty()).then_some(taints);
        let patch = json!({
            // Others write taints too, and a patch replaces the list.
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        let params = PatchParams::default();
        nodes.patch(name, &params, &Patch::Merge(&patch)).await?;
        Ok::<(), kube::Error>(())
    };
    match written.await {
        Ok(()) => true,
        Err(error) => {
            let error = errors::message(&error);
            tracing::info!(
                node = name,
                mark,
                error,
                "the mark of consolidation not written"
            );
            false
        }
    }
}

/// What the loop has found and done last. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Report(Arc<Mutex<Value>>);

impl Report {
    /// As JSON, for the door's pages under `/debug/`.
    #[must_use]
    pub fn page(&self) -> Value {
        self.0.lock().clone()
    }
}

/// The loop. The context's client needs get and patch on nodes, create on `pods/eviction`; its
/// views are those of the scheduler.
#[derive(Debug)]
pub struct Descheduler {
    context: LoopContext,
    core: Core,
    aims: Aims,
    report: Report,
}

fn waits(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let gates = spec.and_then(|spec| spec.scheduling_gates.as_ref());
    node_name(pod).is_none()
        && !is_terminal(pod)
        && pod.metadata.deletion_timestamp.is_none()
        && gates.is_none_or(Vec::is_empty)
}

impl Descheduler {
    /// The loop, not running yet.
    #[must_use]
    pub fn new(context: LoopContext, aims: Aims) -> Self {
        Self {
            context,
            core: Core::new(default_placement(), 1),
            aims,
            report: Report::default(),
        }
    }

    /// What it finds and does.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// Works until the context's shutdown.
    pub async fn run(mut self) {
        let metrics = self.context.metrics.of("descheduler");
        let views = self.context.views.clone();
        let shutdown = self.context.shutdown.clone();
        let (pod_view, node_view) = (views.of::<Pod>(), views.of::<Node>());
        let namespace_view = views.of::<Namespace>();
        let synced = async {
            let mut inputs = Inputs::of(&self.context).await;
            tokio::join!(
                pod_view.synced(),
                node_view.synced(),
                namespace_view.synced(),
                inputs.synced(),
            );
            inputs
        };
        let mut inputs = tokio::select! {
            () = shutdown.cancelled() => return,
            inputs = synced => inputs,
        };
        let mut nodes = node_view.subscribe();
        let mut namespaces = namespace_view.subscribe();
        let mut pods = pod_view.subscribe();
        let mut due = Instant::now();
        loop {
            let now = Instant::now();
            while let Some(change) = namespaces.try_next() {
                self.core.namespace(&change, now);
            }
            inputs.take_in(&mut self.core, now);
            while let Some(change) = nodes.try_next() {
                self.core.node(&change, now);
            }
            while let Some(change) = pods.try_next() {
                self.core.pod(&change, now);
            }
            if now >= due {
                due = now + PERIOD;
                LoopMetrics::bump(&metrics.reconciles);
                let waiting = pod_view.list().iter().filter(|pod| waits(pod)).count();
                let saved = self.round(waiting).await;
                let saved = u64::try_from(saved).unwrap_or(u64::MAX);
                metrics.depth.store(saved, Ordering::Relaxed);
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// One look: how many nodes are saved.
    async fn round(&mut self, waiting: usize) -> usize {
        let planned = self.core.consolidate(self.aims);
        let why_not = if waiting > 0 {
            Some(format!("{waiting} pods wait for a node"))
        } else if self.core.is_emptying() {
            Some("pods that were evicted have not ended".to_owned())
        } else {
            None
        };
        self.tell(&planned, why_not.as_deref());
        for node in &planned.give_up {
            mark(&self.context, node, false).await;
        }
        if why_not.is_none()
            && let Some(drain) = &planned.drain
        {
            self.drain(drain).await;
        }
        planned.saved.len()
    }

    fn tell(&self, planned: &Planned, why_not: Option<&str>) {
        let before = {
            let report = self.report.0.lock();
            let saved = report["savedNodes"].as_array().cloned();
            saved.unwrap_or_default()
        };
        let total = planned.saved.len();
        for node in &planned.saved {
            if before.iter().any(|known| *known == **node) {
                continue;
            }
            let text = format!(
                "Node {node} is empty: its pods run on fuller nodes. {total} nodes can be switched \
                 off now"
            );
            let object = self.node(node);
            let recorder = &self.context.recorder;
            recorder.tell(&object, EventType::Normal, "Consolidated", text);
        }
        let names = planned.saved.iter().map(|node| (**node).into());
        let kept = planned.kept.iter();
        let kept: serde_json::Map<String, Value> = kept
            .map(|(node, why)| (node.to_string(), why.clone().into()))
            .collect();
        *self.report.0.lock() = json!({
            "savedNodes": names.collect::<Vec<Value>>(),
            "emptying": planned.drain.as_ref().map(|drain| &*drain.node),
            "waiting": why_not,
            "kept": kept,
        });
    }

    /// As much of a node as an event is about.
    fn node(&self, name: &str) -> Node {
        let known = self.context.views.of::<Node>().get("", name);
        known.map_or_else(Node::default, |node| (*node).clone())
    }

    async fn drain(&self, drain: &Drain) {
        if !mark(&self.context, &drain.node, true).await {
            return;
        }
        tracing::info!(
            node = %drain.node,
            pods = drain.evict.len(),
            later = drain.later,
            "consolidating: a node is emptied"
        );
        for one in &drain.evict {
            let pods: Api<Pod> =
                Api::namespaced(self.context.client.clone(), &one.pod.key.namespace);
            let params = DeleteParams {
                // A pod of the same name that came later is not meant.
                preconditions: Some(Preconditions {
                    uid: Some(one.pod.uid.to_string()),
                    ..Preconditions::default()
                }),
                ..DeleteParams::default()
            };
            match pods.evict(&one.pod.key.name, &params).await {
                Ok(_) => self.context.recorder.tell(
                    &*one.pod.pod,
                    EventType::Normal,
                    "Descheduled",
                    format!(
                        "Evicted from node {} to consolidate: it fits on node {}",
                        drain.node, one.to
                    ),
                ),
                // A budget says no, or it is gone: the next look knows.
                Err(error) => {
                    let error = errors::message(&error);
                    tracing::info!(pod = %one.pod.key, error, "not evicted");
                }
            }
        }
    }
}
