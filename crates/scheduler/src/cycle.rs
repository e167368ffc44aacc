//! One scheduling cycle: which node for this pod? Pure: no clock, no client, no randomness of its
//! own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_api::devices::claims::is_for_extended_resources;
use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::extenders::{Outside, POINT};
use crate::framework::{
    CycleState, PluginIndex, PluginSet, PostFiltered, PreFiltered, Preemption, Rejection,
};
use crate::plugins::preemption::cost;
use crate::pod::PodInfo;
use crate::profile::{EXTENDERS, Profile};
use crate::snapshot::{NodeIndex, Snapshot};
use crate::what_if::WhatIf;

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
    /// What is special about this node, where there is more to say.
    pub detail: Option<String>,
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
    /// What is done about it.
    pub preemption: Option<Preemption>,
    /// What can be done about it, as long as extenders have not been asked.
    pub candidates: Vec<Preemption>,
    /// The claim whose devices are given up, so that the pod can go elsewhere.
    pub deallocate: Option<Arc<ResourceClaim>>,
    /// The text of the `PostFilter` plugins.
    pub post: Option<String>,
    /// The node that was set aside for the pod is given up.
    pub clear_nomination: bool,
    /// Why the pod's group has to wait.
    pub group: Option<String>,
}

impl Decision {
    /// The text of `FailedScheduling` and of the pod's condition, word for word the reference's.
    #[must_use]
    pub fn message(&self) -> String {
        if let Some(group) = &self.group
            && self.reasons.is_empty()
            && self.whole.is_none()
        {
            // It would have had a node.
            return group.clone();
        }
        let mut text = self.filtered();
        if let Some(post) = &self.post {
            text.push(' ');
            text.push_str(post);
        }
        text
    }

    /// The same, without what is said of preemption.
    #[must_use]
    pub fn filtered(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut text = format!("0/{} nodes are available:", self.nodes);
        if let Some(whole) = &self.whole {
            text.push_str(&format!(" {whole}."));
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

    fn reject(
        &mut self,
        node: &Arc<str>,
        plugin: &'static str,
        at: PluginIndex,
        why: Rejection,
        detail: impl FnOnce() -> Option<String>,
    ) {
        self.rejected_by.insert(at);
        for reason in &why.reasons {
            if let Some(count) = self.reasons.get_mut(reason) {
                *count += 1;
            } else {
                self.reasons.insert(reason.clone(), 1);
            }
        }
        if self.rejections.len() < TOLD_NODES {
            self.rejections.push(NodeRejection {
                node: Arc::clone(node),
                plugin,
                reasons: why.reasons,
                detail: detail(),
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
    /// Nodes that cannot take the pod, but could if others left.
    potential: Vec<NodeIndex>,
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
            potential: Vec::new(),
            totals: Vec::new(),
            columns: Vec::new(),
        }
    }

    /// xorshift64: ties need no better.
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// The nodes that can take the pod of the cycle under way.
    #[must_use]
    pub fn feasible(&self) -> &[NodeIndex] {
        &self.feasible
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
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

/// A cycle whose plugins have filtered; the feasible nodes are with the [`Turn`].
#[derive(Debug)]
pub struct Begun {
    decision: Decision,
    state: CycleState,
    skipped: PluginSet,
}

/// Chooses a node for the pod. The state is for the `Reserve` and `Permit` plugins that follow.
pub fn schedule_one(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &PodInfo,
    turn: &mut Turn,
) -> (Decision, CycleState) {
    let begun = begin(profile, snapshot, pod, turn);
    finish(profile, snapshot, pod, turn, begun, &Outside::default())
}

/// The first half: which nodes can take the pod, as far as plugins know?
pub fn begin(profile: &Profile, snapshot: &Snapshot, pod: &PodInfo, turn: &mut Turn) -> Begun {
    let mut state = CycleState::default();
    let mut decision = Decision {
        nodes: snapshot.len(),
        ..Decision::default()
    };
    let mut skipped = PluginSet::default();
    turn.feasible.clear();
    turn.potential.clear();
    if snapshot.is_empty() {
        return Begun {
            decision,
            state,
            skipped,
        };
    }
    match pre_filter(profile, snapshot, pod, &mut state, &mut skipped) {
        Ok(narrowed) => {
            let mut what_if = WhatIf {
                profile,
                snapshot,
                pod,
                state: &mut state,
                skipped,
            };
            filter(&mut what_if, &mut decision, turn, narrowed);
        }
        Err((whole, by, resolvable)) => {
            decision.rejected_by = by;
            decision.whole = Some(whole);
            if resolvable {
                turn.potential.extend_from_slice(snapshot.order());
            }
        }
    }
    Begun {
        decision,
        state,
        skipped,
    }
}

/// The second half: which of them is the best, and what if there is none? `outside` is what
/// extenders say of the nodes.
pub fn finish(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &PodInfo,
    turn: &mut Turn,
    begun: Begun,
    outside: &Outside,
) -> (Decision, CycleState) {
    let skipped = begun.skipped;
    let (mut decision, mut state) = decide(profile, snapshot, pod, turn, begun, outside);
    if decision.node.is_none() && !snapshot.is_empty() && !profile.post_filter.is_empty() {
        let mut what_if = WhatIf {
            profile,
            snapshot,
            pod,
            state: &mut state,
            skipped,
        };
        post_filter(&mut what_if, &mut decision, turn);
    }
    (decision, state)
}

/// The best of the nodes that can take the pod; nothing is tried where there is none.
pub fn decide(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &PodInfo,
    turn: &mut Turn,
    begun: Begun,
    outside: &Outside,
) -> (Decision, CycleState) {
    let Begun {
        mut decision,
        mut state,
        ..
    } = begun;
    if snapshot.is_empty() {
        return (decision, state);
    }
    extended(&mut decision, snapshot, turn, outside);
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
            outside,
        )),
    };
    (decision, state)
}

/// Takes off the nodes that extenders do not allow.
fn extended(decision: &mut Decision, snapshot: &Snapshot, turn: &mut Turn, outside: &Outside) {
    if outside.kept.is_none() {
        return;
    }
    let feasible = std::mem::take(&mut turn.feasible);
    for at in feasible {
        let node = snapshot.node(at);
        if outside.keeps(&node.name) {
            turn.feasible.push(at);
            continue;
        }
        decision.rejected_by.insert(EXTENDERS);
        let Some((why, resolvable)) = outside.failed.get(&*node.name) else {
            continue;
        };
        if *resolvable {
            turn.potential.push(at);
        }
        let rejection = Rejection {
            reasons: vec![why.clone().into()],
            resolvable: *resolvable,
        };
        decision.reject(&node.name, "Extender", EXTENDERS, rejection, || None);
    }
}

/// What can be done for a pod that no node takes.
fn post_filter(what_if: &mut WhatIf<'_>, decision: &mut Decision, turn: &mut Turn) {
    let profile = what_if.profile;
    let random = turn.next();
    let mut texts = Vec::new();
    for (_, plugin) in &profile.post_filter {
        match plugin.post_filter(what_if, &turn.potential, random) {
            PostFiltered::Preempt(candidates) => {
                if profile.extenders.preempt_for(&what_if.pod.pod) {
                    decision.candidates = candidates;
                } else {
                    decision.preemption = candidates.into_iter().min_by_key(cost);
                }
                return;
            }
            PostFiltered::Deallocate(claim) => {
                let done = if is_for_extended_resources(&claim) {
                    "deletion of ResourceClaim completed"
                } else {
                    "deallocation of ResourceClaim completed"
                };
                decision.deallocate = Some(claim);
                decision.post = Some(done.to_owned());
                return;
            }
            PostFiltered::Rejected {
                reason,
                clear_nomination,
            } => {
                decision.clear_nomination |= clear_nomination;
                texts.push(reason);
            }
        }
    }
    decision.post = Some(texts.join(", "));
}

/// The nodes to which plugins confine a pod, and what is said of the others.
#[derive(Debug, Default)]
struct Narrowed {
    only: Option<Vec<NodeIndex>>,
    by: PluginSet,
    said: String,
}

/// Which plugins have nothing to filter, and which nodes come into question; or why none does,
/// who says so, and whether evicting pods could help.
fn pre_filter(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &PodInfo,
    state: &mut CycleState,
    skipped: &mut PluginSet,
) -> Result<Narrowed, (String, PluginSet, bool)> {
    let mut narrowed = Narrowed::default();
    let mut names: Vec<&'static str> = Vec::new();
    for (at, plugin) in &profile.pre_filter {
        match plugin.pre_filter(state, pod, snapshot) {
            PreFiltered::All => {}
            PreFiltered::Skip => skipped.insert(*at),
            PreFiltered::Only(nodes) => {
                names.push(plugin.name());
                narrowed.by.insert(*at);
                narrowed.only = Some(match narrowed.only {
                    None => nodes,
                    Some(before) => before
                        .into_iter()
                        .filter(|node| nodes.contains(node))
                        .collect(),
                });
            }
            PreFiltered::Reject(why) => {
                let mut by = PluginSet::default();
                by.insert(*at);
                return Err((why.reasons.join(", "), by, why.resolvable));
            }
        }
    }
    if let Some(nodes) = &narrowed.only {
        names.sort_unstable();
        narrowed.said = format!("node(s) didn't satisfy plugin(s) [{}]", names.join(" "));
        if nodes.is_empty() && names.len() > 1 {
            let said = format!("{} simultaneously", narrowed.said);
            return Err((said, narrowed.by, false));
        }
    }
    Ok(narrowed)
}

/// The first of the nodes that could take the pod, as things are. Nothing is decided by asking.
#[must_use]
pub fn first_taker(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &PodInfo,
    nodes: &[NodeIndex],
) -> Option<NodeIndex> {
    let mut state = CycleState::default();
    let mut skipped = PluginSet::default();
    let narrowed = pre_filter(profile, snapshot, pod, &mut state, &mut skipped).ok()?;
    let what_if = WhatIf {
        profile,
        snapshot,
        pod,
        state: &mut state,
        skipped,
    };
    nodes.iter().copied().find(|at| {
        let only = narrowed.only.as_ref();
        only.is_none_or(|only| only.contains(at)) && what_if.rejected(snapshot.node(*at)).is_none()
    })
}

/// Finds the feasible nodes: the one that is set aside for the pod if it is among them.
fn filter(what_if: &mut WhatIf<'_>, decision: &mut Decision, turn: &mut Turn, narrowed: Narrowed) {
    let (profile, snapshot, pod) = (what_if.profile, what_if.snapshot, what_if.pod);
    if let Some(at) = snapshot
        .nomination(&pod.uid)
        .and_then(|name| snapshot.find(name))
    {
        let allowed = narrowed.only.as_ref().is_none_or(|only| only.contains(&at));
        if allowed && what_if.rejected_with_nominated(snapshot.node(at)).is_none() {
            turn.feasible.push(at);
            decision.evaluated = 1;
            return;
        }
    }
    let nodes: &[NodeIndex] = narrowed.only.as_deref().unwrap_or(snapshot.order());
    let absent = snapshot.len() - nodes.len();
    if absent > 0 {
        decision.reasons.insert(narrowed.said.into(), absent);
        for at in narrowed.by.iter() {
            decision.rejected_by.insert(at);
        }
    }
    let enough = feasible_nodes_to_find(profile.percentage_of_nodes_to_score, nodes.len());
    let start = turn.start % nodes.len().max(1);
    let mut visited = 0;
    for offset in 0..nodes.len() {
        let at = nodes[(start + offset) % nodes.len()];
        let node = snapshot.node(at);
        visited += 1;
        match what_if.rejected_with_nominated(node) {
            None => {
                turn.feasible.push(at);
                if turn.feasible.len() >= enough {
                    break;
                }
            }
            Some((index, name, why)) => {
                if why.resolvable {
                    turn.potential.push(at);
                }
                decision.reject(&node.name, name, index, why, || {
                    let mut filters = profile.filter.iter();
                    let (_, plugin) = filters.find(|(plugin, _)| *plugin == index)?;
                    plugin.detail(pod, node)
                });
            }
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
    outside: &Outside,
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
    let outside = |at: usize| {
        let points = outside.scores.get(&*snapshot.node(feasible[at]).name);
        points.copied().unwrap_or(0).saturating_mul(POINT)
    };
    for (at, total) in turn.totals.iter_mut().enumerate() {
        *total = total.saturating_add(outside(at));
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
                .chain((outside(at) != 0).then(|| ("Extender", outside(at))))
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
