//! What a DaemonSet needs: pure.
//!
//! First every node gets what it must have and loses what it must not (`manage` of the
//! reference); only when nothing of that is left to do, pods of an older template give way to new
//! ones.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::backoff::Backoff;
use super::fit::{self, Fit, Rule};
use super::rollout;
use crate::history::{HASH_LABEL, label};
use crate::pod_control::BURST;
use crate::pods;

/// The annotation with the template's generation, from before revisions.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// The label of pods that says it.
pub const GENERATION_LABEL: &str = "pod-template-generation";

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that go.
    pub delete: Vec<Arc<Pod>>,
    /// Nodes whose failed pod is replaced: they wait longer next time.
    pub failed: Vec<String>,
    /// What is told: warning or not, reason, message.
    pub events: Vec<(bool, &'static str, String)>,
    /// When to look again though nothing changed.
    pub look_again: Option<Timestamp>,
}

/// What there is.
#[derive(Debug)]
pub struct World<'a> {
    /// The set.
    pub set: &'a DaemonSet,
    /// The hash of its template's revision.
    pub hash: &'a str,
    /// All nodes.
    pub nodes: &'a [Arc<Node>],
    /// The set's pods.
    pub pods: &'a [Arc<Pod>],
    /// Which nodes fail.
    pub backoff: &'a Backoff,
    /// Now.
    pub now: Timestamp,
}

/// Nodes and the pods bound or pinned to them.
#[derive(Debug)]
pub struct Places {
    /// By node name: pods, and whether the node fits (`None`: there is no such node).
    pub nodes: BTreeMap<String, (Vec<Arc<Pod>>, Option<Fit>)>,
}

impl Places {
    /// Sorts pods to nodes. Pods that have ended and are on their way out are somebody else's
    /// concern.
    #[must_use]
    pub fn of(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Self {
        let rule = Rule::of(set);
        let mut places: BTreeMap<String, (Vec<Arc<Pod>>, Option<Fit>)> = BTreeMap::new();
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            places.insert(name, (Vec::new(), Some(rule.fit(node))));
        }
        for pod in pods {
            if pods::is_terminal(pod) && pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if let Some(node) = fit::target(pod) {
                let place = places.entry(node.to_owned()).or_default();
                place.0.push(Arc::clone(pod));
            }
        }
        for (pods, _) in places.values_mut() {
            pods.sort_by(|a, b| older_first(a, b));
        }
        Self { nodes: places }
    }
}

/// Bound before unbound, then the oldest.
fn older_first(a: &Pod, b: &Pod) -> Ordering {
    let key = |pod: &Pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let unbound = pods::node_name(pod).is_none();
        (unbound, created, pod.metadata.name.clone())
    };
    key(a).cmp(&key(b))
}

/// A pod of the set's present template.
#[must_use]
pub fn is_updated(set: &DaemonSet, pod: &Pod, hash: &str) -> bool {
    let generation = set.metadata.annotations.as_ref();
    let generation = generation
        .and_then(|all| all.get(TEMPLATE_GENERATION))
        .filter(|text| text.parse::<i64>().is_ok());
    let by_hash = !hash.is_empty() && label(&pod.metadata, HASH_LABEL) == hash;
    by_hash || generation.is_some_and(|it| label(&pod.metadata, GENERATION_LABEL) == it)
}

/// Decides.
#[must_use]
pub fn plan(world: &World<'_>) -> Plan {
    let mut plan = Plan::default();
    if world.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let places = Places::of(world.set, world.nodes, world.pods);
    for (node, (pods, fit)) in &places.nodes {
        match fit {
            Some(fit) => world.manage(node, pods, *fit, &mut plan),
            // Pinned to a node that is gone: nobody else ever ends it.
            None => plan.delete.extend(
                pods.iter()
                    .filter(|pod| pods::node_name(pod).is_none())
                    .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                    .cloned(),
            ),
        }
    }
    if plan.create.is_empty() && plan.delete.is_empty() {
        rollout::roll(world, &places, &mut plan);
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

impl World<'_> {
    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self.set.spec.min_ready_seconds.unwrap_or(0);
        pods::available_at(pod, min_ready).is_some_and(|at| at <= self.now)
    }

    fn manage(&self, node: &str, pods: &[Arc<Pod>], fit: Fit, plan: &mut Plan) {
        let alive = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_none();
        if fit.run && pods.is_empty() {
            plan.create.push(node.to_owned());
            return;
        }
        if !fit.stay {
            plan.delete.extend(pods.iter().filter(alive).cloned());
            return;
        }
        let mut running = Vec::new();
        let mut held_back = false;
        for pod in pods.iter().filter(alive) {
            match pods::phase(pod) {
                "Failed" => held_back |= !self.replace_failed(node, pod, plan),
                "Succeeded" => {
                    let text = told("succeeded", pod, node, "delete");
                    plan.events.push((false, "SucceededDaemonPod", text));
                    plan.delete.push(Arc::clone(pod));
                }
                _ => running.push(Arc::clone(pod)),
            }
        }
        if !rollout::may_surge(self.set) {
            plan.delete.extend(running.into_iter().skip(1));
            return;
        }
        if running.is_empty() && fit.run && !held_back {
            // While surging there is always one that is not on its way out.
            plan.create.push(node.to_owned());
            return;
        }
        self.prune_surge(&running, plan);
    }

    /// False: not yet.
    fn replace_failed(&self, node: &str, pod: &Arc<Pod>, plan: &mut Plan) -> bool {
        if let Some(until) = self.backoff.blocked_until(node, self.now) {
            plan.look_again = Some(plan.look_again.map_or(until, |at| at.min(until)));
            return false;
        }
        let text = told("failed", pod, node, "kill");
        plan.events.push((true, "FailedDaemonPod", text));
        plan.failed.push(node.to_owned());
        plan.delete.push(Arc::clone(pod));
        true
    }

    /// Two pods may share a node: the oldest new one that is not available yet, and the oldest old
    /// one while it is ready.
    fn prune_surge(&self, running: &[Arc<Pod>], plan: &mut Plan) {
        if running.len() <= 1 {
            return;
        }
        let (mut new, mut old): (Option<&Arc<Pod>>, Option<&Arc<Pod>>) = (None, None);
        for pod in running {
            let kept = if label(&pod.metadata, HASH_LABEL) == self.hash {
                &mut new
            } else {
                &mut old
            };
            if kept.is_some() {
                plan.delete.push(Arc::clone(pod));
            } else {
                *kept = Some(pod);
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!pods::is_ready(old) || self.is_available(new))
        {
            plan.delete.push(Arc::clone(old));
        }
    }
}

fn told(state: &str, pod: &Pod, node: &str, verb: &str) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    format!("Found {state} daemon pod {namespace}/{name} on node {node}, will try to {verb} it")
}
