//! `DefaultPreemption`: a pod that fits nowhere may take the place of less important ones.
//!
//! Victims are chosen as in the reference: on each node that evictions could open, all less
//! important pods are thought away and as many as possible are let back, first those whose
//! eviction would break a disruption budget, then the others, the most important first. Among the
//! nodes the one with the fewest broken budgets and the least important victims is taken. Only
//! chosen here; carried out by [`crate::preempt`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::framework::{ClusterEvent, Plugin, PostFilter, PostFiltered, Preemption};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};
use crate::what_if::WhatIf;

/// The condition's reason on pods that were preempted.
pub const BY_SCHEDULER: &str = "PreemptionByScheduler";
/// The condition's type.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// The plugin.
#[derive(Debug, Clone, Copy)]
pub struct DefaultPreemption {
    /// At least this part of the nodes that could help is looked at, in percent.
    pub min_candidate_nodes_percentage: usize,
    /// At least this many nodes are looked at.
    pub min_candidate_nodes_absolute: usize,
}

impl Default for DefaultPreemption {
    fn default() -> Self {
        Self {
            min_candidate_nodes_percentage: 10,
            min_candidate_nodes_absolute: 100,
        }
    }
}

pub(crate) fn started(pod: &PodInfo) -> Timestamp {
    // A pod that has not started yet started last of all.
    let status = pod.pod.status.as_ref();
    status
        .and_then(|status| status.start_time.as_ref())
        .map_or(Timestamp::MAX, |time| time.0)
}

/// The most important first: by priority, then by who has run longer.
pub(crate) fn importance(pod: &Arc<PodInfo>) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), started(pod))
}

/// Is the pod on its way because it was preempted?
pub(crate) fn is_leaving_by_preemption(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let mut conditions = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    pod.metadata.deletion_timestamp.is_some()
        && conditions
            .find(|known| known.type_ == DISRUPTION_TARGET)
            .is_some_and(|known| {
                known.status == "True" && known.reason.as_deref() == Some(BY_SCHEDULER)
            })
}

/// Why the pod may not preempt anybody.
fn ineligible(what_if: &WhatIf<'_>, potential: &[NodeIndex]) -> Option<&'static str> {
    let pod = what_if.pod;
    if pod
        .spec()
        .is_some_and(|spec| spec.preemption_policy.as_deref() == Some("Never"))
    {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = what_if.snapshot.nomination(&pod.uid)?;
    let at = what_if.snapshot.find(nominated)?;
    // Where nothing that is done to pods helps, waiting for their end is in vain.
    let waits = potential.contains(&at)
        && what_if
            .snapshot
            .node(at)
            .pods
            .iter()
            .any(|other| other.priority < pod.priority && is_leaving_by_preemption(&other.pod));
    waits.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Parts pods into those whose eviction breaks a budget and the others, keeping their order.
pub(crate) fn by_budget(
    snapshot: &Snapshot,
    pods: Vec<Arc<PodInfo>>,
) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    if snapshot.budgets.is_empty() {
        return (Vec::new(), pods);
    }
    let mut left: Vec<_> = snapshot
        .budgets
        .iter()
        .map(|(key, budget)| (key, budget, budget.allowed))
        .collect();
    pods.into_iter().partition(|pod| {
        let mut broken = false;
        for (key, budget, left) in &mut left {
            if key.namespace == pod.key.namespace
                && budget.selector.matches_with(|label| pod.class.label(label))
                && !budget.disrupted.contains(&pod.key.name)
            {
                *left -= 1;
                broken |= *left < 0;
            }
        }
        broken
    })
}

/// The least set of pods that have to leave the node, or why leaving does not help.
fn victims_on(what_if: &mut WhatIf<'_>, at: NodeIndex) -> Result<Preemption, Vec<String>> {
    let snapshot = what_if.snapshot;
    let mut node: NodeInfo = snapshot.node(at).clone();
    let mut gone: Vec<Arc<PodInfo>> = node
        .pods
        .iter()
        .filter(|other| other.priority < what_if.pod.priority)
        .cloned()
        .collect();
    if gone.is_empty() {
        return Err(vec![
            "No preemption victims found for incoming pod".to_owned(),
        ]);
    }
    gone.sort_by_key(importance);
    for other in &gone {
        what_if.go(&mut node, other);
    }
    if let Some((_, _, why)) = what_if.rejected_with_nominated(&node) {
        what_if.restore(&node, &gone);
        return Err(why.reasons.iter().map(ToString::to_string).collect());
    }
    let (violating, others) = by_budget(snapshot, gone);
    let mut victims: Vec<Arc<PodInfo>> = Vec::new();
    let mut violations = 0;
    let budgeted = violating.len();
    for (index, other) in violating.into_iter().chain(others).enumerate() {
        what_if.come(&mut node, &other);
        if what_if.rejected_with_nominated(&node).is_some() {
            what_if.go(&mut node, &other);
            victims.push(other);
            violations += usize::from(index < budgeted);
        }
    }
    what_if.restore(&node, &victims);
    // A group that goes as one goes from its other nodes too.
    let others: Vec<Arc<PodInfo>> = victims
        .iter()
        .flat_map(|victim| snapshot.goes_with(victim))
        .collect();
    for other in others {
        if victims.iter().all(|victim| victim.uid != other.uid) {
            victims.push(other);
        }
    }
    victims.sort_by_key(importance);
    if victims.is_empty() {
        // The pod fits with everybody there: the node has changed since it was rejected, which
        // cannot be within one cycle.
        return Err(vec![format!(
            "expected at least one victim pod on node \"{}\"",
            node.name
        )]);
    }
    Ok(Preemption {
        node: Arc::clone(&node.name),
        victims,
        violations,
    })
}

/// What makes one preemption better than another: the smallest wins, the first among equals.
pub(crate) fn cost(preemption: &Preemption) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let victims = &preemption.victims;
    let highest = victims.first().map_or(i32::MIN, |pod| pod.priority);
    // Moved up, so that every victim costs something.
    let sum = victims
        .iter()
        .map(|pod| i64::from(pod.priority) + i64::from(i32::MAX) + 1)
        .sum();
    let earliest = victims
        .iter()
        .filter(|pod| pod.priority == highest)
        .map(|pod| started(pod))
        .min();
    let earliest = Reverse(earliest.unwrap_or(Timestamp::MAX));
    (preemption.violations, highest, sum, victims.len(), earliest)
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>) -> bool {
        // Who rejected the pod knows what helps; this plugin only makes it happen.
        false
    }
}

impl PostFilter for DefaultPreemption {
    fn post_filter(
        &self,
        what_if: &mut WhatIf<'_>,
        potential: &[NodeIndex],
        random: u64,
    ) -> PostFiltered {
        if let Some(why) = ineligible(what_if, potential) {
            return PostFiltered::Rejected {
                reason: format!("preemption: {why}"),
                clear_nomination: false,
            };
        }
        let nodes = what_if.snapshot.len();
        let enough = (potential.len() * self.min_candidate_nodes_percentage / 100)
            .max(self.min_candidate_nodes_absolute)
            .min(potential.len());
        let count = u64::try_from(potential.len()).unwrap_or(u64::MAX).max(1);
        let offset = usize::try_from(random % count).unwrap_or(0);
        let (mut clean, mut breaking) = (Vec::new(), Vec::new());
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut rejected = 0;
        for step in 0..potential.len() {
            match victims_on(what_if, potential[(offset + step) % potential.len()]) {
                Ok(found) if found.violations == 0 => clean.push(found),
                Ok(found) => breaking.push(found),
                Err(why) => {
                    rejected += 1;
                    for reason in why {
                        *reasons.entry(reason).or_default() += 1;
                    }
                }
            }
            if !clean.is_empty() && clean.len() + breaking.len() >= enough {
                break;
            }
        }
        if !(clean.is_empty() && breaking.is_empty()) {
            clean.append(&mut breaking);
            return PostFiltered::Preempt(clean);
        }
        if nodes > rejected {
            *reasons
                .entry("Preemption is not helpful for scheduling".to_owned())
                .or_default() += nodes - rejected;
        }
        let mut parts: Vec<String> = reasons
            .into_iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        parts.sort();
        PostFiltered::Rejected {
            reason: format!(
                "preemption: 0/{nodes} nodes are available: {}.",
                parts.join(", ")
            ),
            clear_nomination: true,
        }
    }
}
