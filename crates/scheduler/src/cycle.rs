//! One scheduling cycle: which node for this pod? Pure: no clock, no client, no randomness of its
//! own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::framework::{CycleState, PluginIndex, PluginSet, PreFiltered, Profile, Rejection};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, Snapshot};

/// Feasible nodes that are always enough to look for.
const MIN_FEASIBLE_NODES: usize = 100;
/// The smallest adaptive percentage.
const MIN_PERCENTAGE: usize = 5;
/// Scored nodes that a decision tells of.
const TOLD_SCORES: usize = 3;
/// Rejected nodes that a decision tells of by name.
const TOLD_NODES: usize = 16;

/// How a node was scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeScore {
    /// The node.
    pub node: Arc<str>,
    /// The weighted sum.
    pub total: i64,
    /// Weighted score by plugin.
    pub by_plugin: Vec<(&'static str, i64)>,
}

/// Why a node was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRejection {
    /// The node.
    pub node: Arc<str>,
    /// The plugin that said no.
    pub plugin: &'static str,
    /// Why.
    pub reasons: Vec<Cow<'static, str>>,
}

/// What a cycle decided, and why.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// The node chosen.
    pub node: Option<Arc<str>>,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many of them were looked at.
    pub evaluated: usize,
    /// How many of those can take the pod.
    pub feasible: usize,
    /// The best nodes with their scores; empty when there was no choice.
    pub scores: Vec<NodeScore>,
    /// Some of the nodes that cannot take it.
    pub rejections: Vec<NodeRejection>,
    /// How many nodes gave which reason.
    pub reasons: BTreeMap<Cow<'static, str>, usize>,
    /// Why no node at all could take it, seen before looking at nodes.
    pub whole: Option<String>,
    /// The plugins that said no.
    pub rejected_by: PluginSet,
}

impl Decision {
    /// The text of `FailedScheduling` and of the pod's condition, word for word the reference's.
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut text = format!("0/{} nodes are available:", self.nodes);
        if let Some(whole) = &self.whole {
            text.push_str(&format!(" {whole}."));
            return text;
        }
        let mut parts: Vec<String> = self
            .reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        parts.sort();
        if !parts.is_empty() {
            text.push_str(&format!(" {}.", parts.join(", ")));
        }
        text
    }

    fn reject(&mut self, node: &Arc<str>, plugin: &'static str, at: PluginIndex, why: Rejection) {
        self.rejected_by.insert(at);
        for reason in &why.reasons {
            *self.reasons.entry(reason.clone()).or_default() += 1;
        }
        if self.rejections.len() < TOLD_NODES {
            self.rejections.push(NodeRejection {
                node: Arc::clone(node),
                plugin,
                reasons: why.reasons,
            });
        }
    }
}

/// What goes on from cycle to cycle: where to begin, how ties fall, and tables to write in.
#[derive(Debug)]
pub struct Turn {
    start: usize,
    random: u64,
    feasible: Vec<NodeIndex>,
    totals: Vec<i64>,
    columns: Vec<Vec<i64>>,
}

impl Turn {
    /// Begins at the first node; ties fall by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            start: 0,
            random: seed | 1,
            feasible: Vec::new(),
            totals: Vec::new(),
            columns: Vec::new(),
        }
    }

    /// xorshift64: ties need no better.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound.max(1)
    }
}

/// How many feasible nodes are enough.
#[must_use]
pub fn feasible_nodes_to_find(percentage: usize, nodes: usize) -> usize {
    if nodes < MIN_FEASIBLE_NODES || percentage >= 100 {
        return nodes;
    }
    let percentage = if percentage == 0 {
        50usize.saturating_sub(nodes / 125).max(MIN_PERCENTAGE)
    } else {
        percentage
    };
    (nodes * percentage / 100).max(MIN_FEASIBLE_NODES)
}

/// Chooses a node for the pod. The state is for the `Reserve` and `Permit` plugins that follow.
pub fn schedule_one(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &PodInfo,
    turn: &mut Turn,
) -> (Decision, CycleState) {
    let mut state = CycleState::default();
    let mut decision = Decision {
        nodes: snapshot.len(),
        ..Decision::default()
    };
    if snapshot.is_empty() {
        return (decision, state);
    }
    let Some((skipped, only)) = pre_filter(profile, snapshot, pod, &mut state, &mut decision)
    else {
        return (decision, state);
    };
    filter(
        profile,
        snapshot,
        pod,
        &state,
        &mut decision,
        turn,
        skipped,
        only,
    );
    decision.feasible = turn.feasible.len();
    decision.node = match turn.feasible.as_slice() {
        [] => None,
        [single] => Some(Arc::clone(&snapshot.node(*single).name)),
        _ => Some(score(
            profile,
            snapshot,
            pod,
            &mut state,
            &mut decision,
            turn,
        )),
    };
    (decision, state)
}

/// Which plugins have nothing to filter, and which nodes come into question. `None`: none do.
fn pre_filter(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &PodInfo,
    state: &mut CycleState,
    decision: &mut Decision,
) -> Option<(PluginSet, Option<Vec<NodeIndex>>)> {
    let mut skipped = PluginSet::default();
    let mut only: Option<Vec<NodeIndex>> = None;
    let mut narrowed: Vec<&'static str> = Vec::new();
    let mut narrowing = PluginSet::default();
    for (at, plugin) in &profile.pre_filter {
        match plugin.pre_filter(state, pod, snapshot) {
            PreFiltered::All => {}
            PreFiltered::Skip => skipped.insert(*at),
            PreFiltered::Only(nodes) => {
                narrowed.push(plugin.name());
                narrowing.insert(*at);
                only = Some(match only {
                    None => nodes,
                    Some(before) => before
                        .into_iter()
                        .filter(|node| nodes.contains(node))
                        .collect(),
                });
            }
            PreFiltered::Reject(why) => {
                decision.rejected_by.insert(*at);
                decision.whole = Some(why.reasons.join(", "));
                return None;
            }
        }
    }
    if let Some(nodes) = &only {
        narrowed.sort_unstable();
        let absent = snapshot.len() - nodes.len();
        let said = format!("node(s) didn't satisfy plugin(s) [{}]", narrowed.join(" "));
        if nodes.is_empty() && narrowed.len() > 1 {
            decision.whole = Some(format!("{said} simultaneously"));
            decision.rejected_by = narrowing;
            return None;
        }
        if absent > 0 {
            decision.reasons.insert(said.into(), absent);
            for at in narrowing.iter() {
                decision.rejected_by.insert(at);
            }
        }
    }
    Some((skipped, only))
}

#[allow(
    clippy::too_many_arguments,
    reason = "the inner loop of one function, split for length"
)]
fn filter(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &PodInfo,
    state: &CycleState,
    decision: &mut Decision,
    turn: &mut Turn,
    skipped: PluginSet,
    only: Option<Vec<NodeIndex>>,
) {
    turn.feasible.clear();
    let filters: Vec<_> = profile
        .filter
        .iter()
        .filter(|(at, _)| !skipped.contains(*at))
        .collect();
    let nodes: &[NodeIndex] = only.as_deref().unwrap_or(snapshot.order());
    let enough = feasible_nodes_to_find(profile.percentage_of_nodes_to_score, nodes.len());
    let start = turn.start % nodes.len().max(1);
    let mut visited = 0;
    for offset in 0..nodes.len() {
        let at = nodes[(start + offset) % nodes.len()];
        let node = snapshot.node(at);
        visited += 1;
        let rejection = filters.iter().find_map(|(index, plugin)| {
            let why = plugin.filter(state, pod, node)?;
            Some((*index, plugin.name(), why))
        });
        match rejection {
            None => {
                turn.feasible.push(at);
                if turn.feasible.len() >= enough {
                    break;
                }
            }
            Some((index, name, why)) => decision.reject(&node.name, name, index, why),
        }
    }
    decision.evaluated = visited;
    turn.start = (start + visited) % nodes.len().max(1);
}

fn score(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &PodInfo,
    state: &mut CycleState,
    decision: &mut Decision,
    turn: &mut Turn,
) -> Arc<str> {
    let feasible = std::mem::take(&mut turn.feasible);
    let mut quiet = PluginSet::default();
    for (at, plugin) in &profile.pre_score {
        if !plugin.pre_score(state, pod, snapshot, &feasible) {
            quiet.insert(*at);
        }
    }
    turn.totals.clear();
    turn.totals.resize(feasible.len(), 0);
    turn.columns.resize_with(profile.score.len(), Vec::new);
    for (column, (at, weight, plugin)) in turn.columns.iter_mut().zip(&profile.score) {
        column.clear();
        if quiet.contains(*at) {
            continue;
        }
        column.extend(
            feasible
                .iter()
                .map(|at| plugin.score(state, pod, snapshot.node(*at), *at)),
        );
        plugin.normalize(state, snapshot, &feasible, column);
        for (total, score) in turn.totals.iter_mut().zip(column.iter_mut()) {
            *score *= weight;
            *total += *score;
        }
    }
    let chosen = choose(turn, &feasible);
    let mut best: Vec<usize> = Vec::with_capacity(TOLD_SCORES + 1);
    for at in 0..feasible.len() {
        let place = best.partition_point(|other| {
            (turn.totals[*other], *other == chosen) >= (turn.totals[at], at == chosen)
        });
        if place < TOLD_SCORES {
            best.insert(place, at);
            best.truncate(TOLD_SCORES);
        }
    }
    decision.scores = best
        .into_iter()
        .map(|at| NodeScore {
            node: Arc::clone(&snapshot.node(feasible[at]).name),
            total: turn.totals[at],
            by_plugin: profile
                .score
                .iter()
                .zip(&turn.columns)
                .filter_map(|((_, _, plugin), column)| Some((plugin.name(), *column.get(at)?)))
                .collect(),
        })
        .collect();
    let name = Arc::clone(&snapshot.node(feasible[chosen]).name);
    turn.feasible = feasible;
    name
}

/// The position of the highest total; among equals each has the same chance.
fn choose(turn: &mut Turn, feasible: &[NodeIndex]) -> usize {
    let mut chosen = 0;
    let mut equals = 1;
    for at in 1..feasible.len() {
        if turn.totals[at] > turn.totals[chosen] {
            chosen = at;
            equals = 1;
        } else if turn.totals[at] == turn.totals[chosen] {
            equals += 1;
            if turn.below(equals) == 0 {
                chosen = at;
            }
        }
    }
    chosen
}
