//! Scores by how full a node would be: `NodeResourcesFit`'s three strategies, and
//! `NodeResourcesBalancedAllocation`. Integer arithmetic as in the reference, so that scores are
//! the same to the point.

use crate::framework::{ClusterEvent, CycleState, MAX_NODE_SCORE, Plugin, PreScore, Score};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};

/// A resource that nodes are scored by, told apart once: hundreds of nodes are for each pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScoredResource {
    /// `cpu`.
    Cpu,
    /// `memory`.
    Memory,
    /// `ephemeral-storage`.
    EphemeralStorage,
    /// Any other.
    Extended(String),
}

impl From<String> for ScoredResource {
    fn from(name: String) -> Self {
        match name.as_str() {
            "cpu" => Self::Cpu,
            "memory" => Self::Memory,
            "ephemeral-storage" => Self::EphemeralStorage,
            _ => Self::Extended(name),
        }
    }
}

/// A resource and how much it counts among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceWeight {
    /// What it is.
    pub name: ScoredResource,
    /// 1 to 100.
    pub weight: i64,
}

/// CPU and memory alike.
#[must_use]
pub fn cpu_and_memory() -> Vec<ResourceWeight> {
    [ScoredResource::Cpu, ScoredResource::Memory]
        .map(|name| ResourceWeight { name, weight: 1 })
        .to_vec()
}

/// A point of the function that a shape draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapePoint {
    /// Percent of the node's allocatable amount.
    pub utilization: i64,
    /// 0 to 10.
    pub score: i64,
}

/// Which nodes are better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// The emptier: pods spread.
    LeastAllocated,
    /// The fuller: pods are packed, so that nodes become empty.
    MostAllocated,
    /// By a function of how full it would be, given by points of ascending utilization.
    RequestedToCapacityRatio(Vec<ShapePoint>),
}

/// Scores by one strategy over some resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoring {
    /// Which nodes are better.
    pub strategy: Strategy,
    /// What is looked at.
    pub resources: Vec<ResourceWeight>,
}

impl Default for Scoring {
    fn default() -> Self {
        Self {
            strategy: Strategy::LeastAllocated,
            resources: cpu_and_memory(),
        }
    }
}

/// What the node has of a resource, and what would be taken with the pod there; `None` when the
/// resource does not count for this pod and node.
fn amounts(name: &ScoredResource, pod: &PodInfo, node: &NodeInfo) -> Option<(i64, i64)> {
    let (has, taken) = match name {
        // Containers without a request count for something.
        ScoredResource::Cpu => (
            node.allocatable.milli_cpu,
            node.scored_milli_cpu + pod.requests.scored_milli_cpu,
        ),
        ScoredResource::Memory => (
            node.allocatable.memory,
            node.scored_memory + pod.requests.scored_memory,
        ),
        other => exact_amounts(other, pod, node)?,
    };
    (has != 0).then_some((has, taken))
}

/// The same by what was requested alone.
fn exact_amounts(name: &ScoredResource, pod: &PodInfo, node: &NodeInfo) -> Option<(i64, i64)> {
    let (all, used, wanted) = (&node.allocatable, &node.requested, &pod.requests.exact);
    let (has, taken) = match name {
        ScoredResource::Cpu => (all.milli_cpu, used.milli_cpu + wanted.milli_cpu),
        ScoredResource::Memory => (all.memory, used.memory + wanted.memory),
        ScoredResource::EphemeralStorage => (
            all.ephemeral_storage,
            used.ephemeral_storage + wanted.ephemeral_storage,
        ),
        // An extended resource that the pod does not want says nothing about it.
        ScoredResource::Extended(name) if wanted.scalar(name) == 0 => return None,
        ScoredResource::Extended(name) => {
            (all.scalar(name), used.scalar(name) + wanted.scalar(name))
        }
    };
    (has != 0).then_some((has, taken))
}

/// `part` of `whole` in points of [`MAX_NODE_SCORE`]. In 128 bits where it must be: a hundred times the
/// bytes of a large node may not fit in 64.
fn points(part: i64, whole: i64) -> i64 {
    if let Some(part) = part.checked_mul(MAX_NODE_SCORE) {
        return part / whole;
    }
    let points = i128::from(part) * i128::from(MAX_NODE_SCORE) / i128::from(whole);
    i64::try_from(points).unwrap_or(MAX_NODE_SCORE)
}

/// The value of a broken line at a utilization, in points of [`MAX_NODE_SCORE`].
fn on_shape(shape: &[ShapePoint], utilization: i64) -> i64 {
    let score = |point: &ShapePoint| point.score * (MAX_NODE_SCORE / 10);
    let mut before: Option<&ShapePoint> = None;
    for point in shape {
        if utilization <= point.utilization {
            return match before {
                None => score(point),
                Some(before) => {
                    let rise = score(point) - score(before);
                    let run = (point.utilization - before.utilization).max(1);
                    score(before) + rise * (utilization - before.utilization) / run
                }
            };
        }
        before = Some(point);
    }
    before.map_or(0, score)
}

impl Scoring {
    /// The node's score with the pod on it.
    #[must_use]
    pub fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for ResourceWeight { name, weight } in &self.resources {
            let Some((has, taken)) = amounts(name, pod, node) else {
                continue;
            };
            let score = match &self.strategy {
                Strategy::LeastAllocated if taken > has => 0,
                Strategy::LeastAllocated => points(has - taken, has),
                // Pods without requests count for more than they were promised.
                Strategy::MostAllocated => points(taken.min(has), has),
                Strategy::RequestedToCapacityRatio(shape) => {
                    let score = on_shape(shape, if taken > has { 100 } else { points(taken, has) });
                    if score <= 0 {
                        continue;
                    }
                    score
                }
            };
            sum += score * weight;
            weights += weight;
        }
        if weights == 0 {
            return 0;
        }
        match &self.strategy {
            // Rounded, the others truncated.
            Strategy::RequestedToCapacityRatio(_) => (2 * sum + weights) / (2 * weights),
            _ => sum / weights,
        }
    }
}

/// `NodeResourcesBalancedAllocation`: prefers nodes whose resources the pod would make be used
/// alike.
#[derive(Debug)]
pub struct BalancedAllocation {
    /// What is looked at; weights do not count.
    pub resources: Vec<ResourceWeight>,
}

impl Default for BalancedAllocation {
    fn default() -> Self {
        Self {
            resources: cpu_and_memory(),
        }
    }
}

/// How alike the fractions are, in points of [`MAX_NODE_SCORE`].
fn balance(mut fractions: impl Iterator<Item = f64> + Clone) -> i64 {
    let all = fractions.clone();
    let deviation = match (fractions.next(), fractions.next(), fractions.next()) {
        (Some(one), Some(other), None) => (one - other).abs() / 2.0,
        (Some(_), Some(_), Some(_)) => {
            let count = all.clone().count() as f64;
            let mean = all.clone().sum::<f64>() / count;
            let squares = all.map(|fraction| (fraction - mean).powi(2));
            (squares.sum::<f64>() / count).sqrt()
        }
        _ => 0.0,
    };
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a value between 0 and 100, truncated as the reference does"
    )]
    let points = ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64;
    points
}

impl BalancedAllocation {
    fn wanted(pod: &PodInfo, name: &ScoredResource) -> i64 {
        let wanted = &pod.requests.exact;
        match name {
            ScoredResource::Cpu => wanted.milli_cpu,
            ScoredResource::Memory => wanted.memory,
            ScoredResource::EphemeralStorage => wanted.ephemeral_storage,
            ScoredResource::Extended(name) => wanted.scalar(name),
        }
    }
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>) -> bool {
        false
    }
}

impl PreScore for BalancedAllocation {
    fn pre_score(
        &self,
        _state: &mut CycleState,
        pod: &PodInfo,
        _snapshot: &Snapshot,
        _feasible: &[NodeIndex],
    ) -> bool {
        // A pod that asks for none of it balances nothing.
        self.resources
            .iter()
            .any(|resource| Self::wanted(pod, &resource.name) != 0)
    }
}

impl Score for BalancedAllocation {
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo, _at: NodeIndex) -> i64 {
        let fraction = |taken: i64, has: i64| (taken as f64 / has as f64).min(1.0);
        let amounts = self.resources.iter().filter_map(|resource| {
            let (has, taken) = exact_amounts(&resource.name, pod, node)?;
            Some((has, taken, taken - Self::wanted(pod, &resource.name)))
        });
        let with = amounts.clone().map(|(has, taken, _)| fraction(taken, has));
        let without = amounts.map(|(has, _, taken)| fraction(taken, has));
        // What the pod changes counts, so that one on an empty node does not look like a fault.
        let half = MAX_NODE_SCORE / 2;
        half + (half + balance(with) - balance(without)) / 2
    }
}
