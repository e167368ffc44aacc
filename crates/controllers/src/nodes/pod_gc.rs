//! Pods nobody will ever end: those of nodes that are gone or declared out of service, those
//! deleted before they had a node, and ended ones beyond a number.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::Api;
use evenkeel_client::{LoopContext, View, errors};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;

use crate::ending::{delete, disruption, mark};
use crate::pods;

/// Between two passes.
const PASS: Duration = Duration::from_secs(20);
/// A node must be gone so long before its pods go with it.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// The taint of a node that is not expected back.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Ended pods kept (`--terminated-pod-gc-threshold`).
pub const THRESHOLD: usize = 12_500;

/// Why a pod is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its node does not exist.
    NodeGone,
    /// Deleted, and never bound.
    Unscheduled,
    /// Deleted, and its node is not ready and declared out of service.
    OutOfService,
    /// Ended, and too many have.
    Ended,
}

/// A node that somebody has declared out of service (KEP-2268): its agent will not end any pod.
#[must_use]
pub fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let mut taints = taints.into_iter().flatten();
    let status = node.status.as_ref();
    let mut conditions = status
        .into_iter()
        .flat_map(|it| it.conditions.iter().flatten());
    let ready = conditions.any(|item| item.type_ == "Ready" && item.status == "True");
    !ready && taints.any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Put out by its node for want of something: of no use to anybody.
fn is_evicted(pod: &Pod) -> bool {
    let reason = pod.status.as_ref().and_then(|it| it.reason.as_deref());
    pods::phase(pod) == "Failed" && reason == Some("Evicted")
}

/// Decides. `node_gone` says whether a node has been verified to be gone for long enough,
/// `out_of_service` whether one is there but declared out of service.
pub fn plan(
    all: &[Arc<Pod>],
    node_gone: impl Fn(&str) -> bool,
    out_of_service: impl Fn(&str) -> bool,
    threshold: usize,
) -> Vec<(Arc<Pod>, Why)> {
    let mut found = Vec::new();
    let mut ended = Vec::new();
    for pod in all {
        match pods::node_name(pod) {
            Some(node) if node_gone(node) => found.push((Arc::clone(pod), Why::NodeGone)),
            Some(node) if pod.metadata.deletion_timestamp.is_some() && out_of_service(node) => {
                found.push((Arc::clone(pod), Why::OutOfService));
            }
            None if pod.metadata.deletion_timestamp.is_some() => {
                found.push((Arc::clone(pod), Why::Unscheduled));
            }
            _ if pods::is_terminal(pod) => ended.push(Arc::clone(pod)),
            _ => {}
        }
    }
    let excess = ended.len().saturating_sub(threshold);
    let created = |pod: &Arc<Pod>| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    ended.sort_by_key(|pod| (!is_evicted(pod), created(pod), pod.metadata.name.clone()));
    found.extend(ended.into_iter().take(excess).map(|pod| (pod, Why::Ended)));
    found
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let nodes = context.views.of::<Node>();
    let pods = context.views.of::<Pod>();
    nodes.synced().await;
    pods.synced().await;
    let mut missing: HashMap<String, Timestamp> = HashMap::new();
    let mut seen = None;
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(PASS) => {}
        }
        // Nothing changed and nobody waits: nothing to do.
        let at = (nodes.revision(), pods.revision());
        if seen == Some(at) && missing.is_empty() {
            continue;
        }
        seen = Some(at);
        pass(&context, &nodes, &pods, &mut missing).await;
    }
}

async fn pass(
    context: &LoopContext,
    nodes: &View<Node>,
    pods: &View<Pod>,
    missing: &mut HashMap<String, Timestamp>,
) {
    let now = context.clock.now();
    let all = pods.list();
    let mut absent: Vec<String> = Vec::new();
    for pod in &all {
        if let Some(node) = pods::node_name(pod)
            && nodes.get("", node).is_none()
            && !absent.iter().any(|found| found == node)
        {
            absent.push(node.to_owned());
        }
    }
    missing.retain(|node, _| absent.contains(node));
    let api: Api<Node> = Api::all(context.client.clone());
    let mut gone = Vec::new();
    for node in absent {
        let since = *missing.entry(node.clone()).or_insert(now);
        if now.duration_since(since) >= QUARANTINE && matches!(api.get_opt(&node).await, Ok(None)) {
            gone.push(node);
        }
    }
    let is_gone = |node: &str| gone.iter().any(|it| it == node);
    let is_out = |node: &str| nodes.get("", node).is_some_and(|it| is_out_of_service(&it));
    for (pod, why) in plan(&all, is_gone, is_out, THRESHOLD) {
        if let Err(error) = collect(context, pods, &pod, why, now).await {
            let error = errors::message(&error);
            tracing::warn!(pod = pod.metadata.name, ?why, error, "pod not collected");
        }
    }
}

async fn collect(
    context: &LoopContext,
    view: &View<Pod>,
    pod: &Pod,
    why: Why,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    // Nobody else will ever say that it ended.
    if !pods::is_terminal(pod) {
        let condition = (why == Why::NodeGone)
            .then(|| disruption("DeletionByPodGC", "PodGC: node no longer exists", now));
        if !mark(&api, pod, condition, Some("Failed")).await? {
            return Ok(());
        }
    }
    let at_once = DeleteParams::default().grace_period(0);
    delete(&api, view, pod, at_once).await?;
    Ok(())
}
