//! A range of pod addresses for every node, cut from the cluster's.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{
    EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::error::ReconcileError;

/// Prefix length of a node's range: 254 pods in IPv4, as `--node-cidr-mask-size` has it.
fn node_prefix(cluster: &IpNet) -> u8 {
    match cluster {
        IpNet::V4(net) => net.prefix_len().max(24),
        IpNet::V6(net) => net.prefix_len().max(64),
    }
}

/// The ranges that nodes have, kept up to date with every change of a node: a new node costs a
/// look at the first free place, not a look at all nodes.
#[derive(Debug)]
pub struct Pool {
    cluster: IpNet,
    /// How many nodes have a range; more than one only by somebody's mistake.
    taken: HashMap<IpNet, usize>,
    /// Those of them that are of another size than ours, and are compared as ranges.
    odd: Vec<IpNet>,
    /// Every place before this one is taken.
    first: u128,
}

/// A place among the ranges of the cluster: its first address, counted in ranges.
fn range_at(cluster: &IpNet, place: u128) -> Option<IpNet> {
    let prefix = node_prefix(cluster);
    let most = 1_u128.checked_shl(u32::from(prefix - cluster.prefix_len()))?;
    if place >= most {
        return None;
    }
    match cluster {
        IpNet::V4(net) => {
            let offset = u32::try_from(place)
                .ok()?
                .checked_shl(32 - u32::from(prefix))?;
            let address = Ipv4Addr::from_bits(net.network().to_bits() + offset);
            Ipv4Net::new(address, prefix).ok().map(IpNet::V4)
        }
        IpNet::V6(net) => {
            let offset = place.checked_shl(128 - u32::from(prefix))?;
            let address = Ipv6Addr::from_bits(net.network().to_bits() + offset);
            Ipv6Net::new(address, prefix).ok().map(IpNet::V6)
        }
    }
}

/// Where a range of the cluster's own size is among them.
fn place_of(cluster: &IpNet, range: &IpNet) -> Option<u128> {
    let prefix = node_prefix(cluster);
    if range.prefix_len() != prefix || !cluster.contains(range) {
        return None;
    }
    match (cluster, range) {
        (IpNet::V4(net), IpNet::V4(range)) => {
            let offset = range.network().to_bits() - net.network().to_bits();
            Some(u128::from(
                offset.checked_shr(32 - u32::from(prefix)).unwrap_or(0),
            ))
        }
        (IpNet::V6(net), IpNet::V6(range)) => {
            let offset = range.network().to_bits() - net.network().to_bits();
            Some(offset.checked_shr(128 - u32::from(prefix)).unwrap_or(0))
        }
        _ => None,
    }
}

impl Pool {
    /// A pool of which nobody has anything.
    #[must_use]
    pub fn new(cluster: IpNet) -> Self {
        Self {
            cluster: cluster.trunc(),
            taken: HashMap::new(),
            odd: Vec::new(),
            first: 0,
        }
    }

    /// A node has a range.
    pub fn take(&mut self, range: IpNet) {
        let range = range.trunc();
        let holders = self.taken.entry(range).or_default();
        *holders += 1;
        if *holders == 1 && range.prefix_len() != node_prefix(&self.cluster) {
            self.odd.push(range);
        }
    }

    /// A node has a range no longer.
    pub fn give_back(&mut self, range: IpNet) {
        let range = range.trunc();
        let Some(holders) = self.taken.get_mut(&range) else {
            return;
        };
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        self.taken.remove(&range);
        match place_of(&self.cluster, &range) {
            Some(place) => self.first = self.first.min(place),
            // What it has kept others from may begin anywhere.
            None => {
                self.odd.retain(|other| *other != range);
                self.first = 0;
            }
        }
    }

    /// The first range that no node has; `None` when all are taken.
    pub fn next_free(&mut self) -> Option<IpNet> {
        loop {
            let range = range_at(&self.cluster, self.first)?;
            let overlaps = |other: &IpNet| other.contains(&range) || range.contains(other);
            if !self.taken.contains_key(&range) && !self.odd.iter().any(overlaps) {
                return Some(range);
            }
            self.first += 1;
        }
    }
}

/// Gives ranges of `cluster` to nodes that have none. Runs until the context's shutdown.
pub async fn run(context: LoopContext, cluster: IpNet) {
    let queue = WorkQueue::new(context.metrics.of("node-ipam"));
    let nodes = context.views.of::<Node>();
    nodes.synced().await;
    let pool = Arc::new(Mutex::new(Pool::new(cluster)));
    {
        let (queue, pool) = (Arc::clone(&queue), Arc::clone(&pool));
        nodes.on_change(move |change| {
            let range = |side: &Option<Arc<Node>>| range_of(side.as_ref()?)?.parse().ok();
            let (before, now) = (range(&change.old), range(&change.new));
            if before != now {
                let mut pool = pool.lock();
                before.into_iter().for_each(|range| pool.give_back(range));
                now.into_iter().for_each(|range| pool.take(range));
            }
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
        pool,
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
    pool: Arc<Mutex<Pool>>,
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
        // The view tells the pool of what is written below before the next node is looked at.
        let free = self.pool.lock().next_free();
        let Some(range) = free else {
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
