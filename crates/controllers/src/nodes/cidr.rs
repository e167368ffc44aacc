//! A range of pod addresses for every node, cut from the cluster's.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use evenkeel_client::{
    EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::error::ReconcileError;

/// Prefix length of a node's range: 254 pods in IPv4, as `--node-cidr-mask-size` has it.
fn node_prefix(cluster: &IpNet) -> u8 {
    match cluster {
        IpNet::V4(net) => net.prefix_len().max(24),
        IpNet::V6(net) => net.prefix_len().max(64),
    }
}

/// The first range of `cluster` that no node has; `None` when all are taken.
#[must_use]
pub fn next_free(cluster: &IpNet, taken: &[IpNet]) -> Option<IpNet> {
    // Looked up by first address; ranges of another size are compared as ranges.
    let first: HashSet<IpAddr> = taken.iter().map(IpNet::network).collect();
    let other: Vec<&IpNet> = taken
        .iter()
        .filter(|net| net.prefix_len() != node_prefix(cluster))
        .collect();
    let overlaps = |range: &IpNet| {
        other
            .iter()
            .any(|net| net.contains(&range.network()) || range.contains(&net.network()))
    };
    let mut ranges = cluster.subnets(node_prefix(cluster)).ok()?;
    ranges.find(|range| !first.contains(&range.network()) && !overlaps(range))
}

/// Gives ranges of `cluster` to nodes that have none. Runs until the context's shutdown.
pub async fn run(context: LoopContext, cluster: IpNet) {
    let queue = WorkQueue::new(context.metrics.of("node-ipam"));
    let nodes = context.views.of::<Node>();
    nodes.synced().await;
    {
        let queue = Arc::clone(&queue);
        nodes.on_change(move |change| {
            if change
                .new
                .as_ref()
                .is_some_and(|node| range_of(node).is_none())
            {
                queue.add(change.key.clone());
            }
        });
    }
    let reconciler = Reconciler {
        nodes,
        cluster,
        context: context.clone(),
    };
    // One worker: two nodes must never be given the same range, and the view knows a range as
    // soon as it is written.
    run_loop("node-ipam", 1, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

fn range_of(node: &Node) -> Option<&str> {
    let spec = node.spec.as_ref()?;
    let listed = spec.pod_cidrs.as_ref().and_then(|all| all.first());
    let range = spec
        .pod_cidr
        .as_ref()
        .filter(|text| !text.is_empty())
        .or(listed);
    range.map(String::as_str)
}

struct Reconciler {
    nodes: Arc<View<Node>>,
    cluster: IpNet,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(node) = self.nodes.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        if range_of(&node).is_some() || node.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let all = self.nodes.list();
        let taken = all.iter().filter_map(|node| range_of(node)?.parse().ok());
        let taken: Vec<IpNet> = taken.collect();
        let Some(range) = next_free(&self.cluster, &taken) else {
            let recorder = &self.context.recorder;
            let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
            recorder.tell(
                node.as_ref(),
                EventType::Normal,
                "CIDRNotAvailable",
                message,
            );
            return Err(ReconcileError::State(format!(
                "{} has no range left",
                self.cluster
            )));
        };
        let text = range.to_string();
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"podCIDR": text, "podCIDRs": [text]},
        });
        let api: Api<Node> = Api::all(self.context.client.clone());
        match api
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Ok(written) => {
                self.nodes.note_written(written);
                Ok(Outcome::Done)
            }
            Err(error) if errors::is_not_found(&error) => Ok(Outcome::Done),
            Err(error) => Err(error.into()),
        }
    }
}
