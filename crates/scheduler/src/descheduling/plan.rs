//! Which node can be emptied next, and where its pods would go. Pure.
//!
//! The question is asked of the scheduler's own filters, on its own snapshot: pods are moved in it,
//! and moved back before the answer is given. A node is emptied only if all pods that would have to
//! move fit on nodes that are in use and fuller, so that every move brings the cluster closer to
//! its end and none comes back.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_client::ObjectKey;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::cycle::first_taker;
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};

/// On a node that is being emptied or is empty: pods go elsewhere while they can.
pub const TAINT: &str = "evenkeel.io/consolidated";
/// On a pod: `"false"` keeps it where it is, `"true"` says that its local storage may be lost. The
/// name is the one that cluster autoscalers have made known.
pub const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// On mirrors of static pods.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Pods of this priority and above belong to the system.
const SYSTEM: i32 = 2_000_000_000;

/// What becomes of a pod when its node is emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It belongs to the node, or is leaving anyway: it keeps nothing in use.
    Stays,
    /// Whoever controls it makes another elsewhere.
    Moves,
    /// It must not be evicted, and so its node is not emptied.
    Blocks(&'static str),
}

/// What becomes of a pod.
#[must_use]
pub fn fate(pod: &Pod) -> Fate {
    let meta = &pod.metadata;
    let annotations = meta.annotations.as_ref();
    let annotation = |name: &str| {
        annotations
            .and_then(|all| all.get(name))
            .map(String::as_str)
    };
    let owners = meta.owner_references.iter().flatten();
    let mut owners = owners.filter(|owner| owner.controller == Some(true));
    let owner = owners.next().map(|owner| owner.kind.as_str());
    if meta.deletion_timestamp.is_some()
        || annotation(MIRROR).is_some()
        || matches!(owner, Some("DaemonSet" | "Node"))
    {
        return Fate::Stays;
    }
    let safe = annotation(SAFE_TO_EVICT);
    if safe == Some("false") {
        return Fate::Blocks("a pod says that it is not safe to evict");
    }
    if owner.is_none() {
        return Fate::Blocks("a pod has no owner that would make another");
    }
    let Some(spec) = &pod.spec else {
        return Fate::Blocks("a pod has no specification");
    };
    if spec.priority.unwrap_or(0) >= SYSTEM {
        return Fate::Blocks("a pod is critical to the system");
    }
    if spec.scheduling_group.is_some() {
        return Fate::Blocks("a pod is one of a group that is placed together");
    }
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        return Fate::Blocks("a pod has devices");
    }
    let mut volumes = spec.volumes.iter().flatten();
    let local = volumes.any(|volume| volume.empty_dir.is_some() || volume.host_path.is_some());
    if local && safe != Some("true") {
        return Fate::Blocks("a pod has local storage");
    }
    Fate::Moves
}

/// Does the node carry the mark of this loop?
#[must_use]
pub fn is_marked(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.is_some_and(|taints| taints.iter().any(|taint| taint.key == TAINT))
}

/// How full a node is: the larger share of CPU and memory that is requested, in thousandths.
#[must_use]
pub fn fullness(node: &NodeInfo) -> i64 {
    let share = |used: i64, all: i64| {
        let share = i128::from(used) * 1000 / i128::from(all.max(1));
        i64::try_from(share).unwrap_or(i64::MAX)
    };
    let (used, all) = (&node.requested, &node.allocatable);
    share(used.milli_cpu, all.milli_cpu).max(share(used.memory, all.memory))
}

/// A pod that would move.
#[derive(Debug, Clone)]
pub struct Move {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// Where it would fit.
    pub to: Arc<str>,
}

/// A node to be emptied.
#[derive(Debug, Clone)]
pub struct Drain {
    /// The node.
    pub node: Arc<str>,
    /// Pods that are evicted now: as many as their budgets allow.
    pub evict: Vec<Move>,
    /// Pods that follow when their budgets allow it.
    pub later: usize,
}

/// What there is to do.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// The node to be emptied, if one can be.
    pub drain: Option<Drain>,
    /// Marked nodes on which nothing runs but what belongs to nodes.
    pub saved: Vec<Arc<str>>,
    /// Marked nodes that can't be emptied any more.
    pub give_up: Vec<Arc<str>>,
    /// Why nodes that are little used are not emptied.
    pub kept: Vec<(Arc<str>, String)>,
}

/// Settings.
#[derive(Debug, Clone, Copy)]
pub struct Aims {
    /// Nodes below this fullness, in thousandths, are emptied.
    pub below: i64,
}

impl Default for Aims {
    fn default() -> Self {
        Self { below: 500 }
    }
}

fn is_open(node: &NodeInfo) -> bool {
    let Some(object) = &node.node else {
        return false;
    };
    let spec = object.spec.as_ref();
    let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let status = object.status.as_ref();
    let mut conditions = status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let not_ready = conditions.any(|one| one.type_ == "Ready" && one.status != "True");
    !cordoned && !not_ready
}

fn marked(node: &NodeInfo) -> bool {
    node.node.as_deref().is_some_and(is_marked)
}

/// The pods of a node that would have to move; or why it can't be emptied.
fn movable(node: &NodeInfo) -> Result<Vec<Arc<PodInfo>>, &'static str> {
    let mut moving = Vec::new();
    for pod in &node.pods {
        match fate(&pod.pod) {
            Fate::Stays => {}
            Fate::Moves => moving.push(Arc::clone(pod)),
            Fate::Blocks(why) => return Err(why),
        }
    }
    // The largest first: they are the hardest to place.
    moving.sort_by(|one, other| {
        let size = |pod: &PodInfo| (pod.requests.exact.milli_cpu, pod.requests.exact.memory);
        size(other).cmp(&size(one)).then(one.key.cmp(&other.key))
    });
    Ok(moving)
}

/// Plans one step: at most one node is emptied at a time. The snapshot is as before afterwards.
pub fn plan(snapshot: &mut Snapshot, profile: &Profile, aims: Aims) -> Planned {
    let mut planned = Planned::default();
    let mut candidates: Vec<(bool, i64, Arc<str>, NodeIndex)> = Vec::new();
    for at in snapshot.order() {
        let node = snapshot.node(*at);
        let in_use = node.pods.iter().any(|pod| fate(&pod.pod) != Fate::Stays);
        let is_marked = marked(node);
        let full = fullness(node);
        if !in_use {
            if is_marked {
                planned.saved.push(Arc::clone(&node.name));
            }
            continue;
        }
        if is_marked || (is_open(node) && full < aims.below) {
            candidates.push((!is_marked, full, Arc::clone(&node.name), *at));
        }
    }
    // One that was begun is ended first.
    candidates.sort();
    for (unmarked, full, name, at) in candidates {
        let tried = match movable(snapshot.node(at)) {
            Err(why) => Err(why.to_owned()),
            Ok(moving) => place(snapshot, profile, at, full, moving),
        };
        match tried.and_then(|moves| within_budgets(snapshot, &name, moves)) {
            Ok(drain) => {
                // One at a time; a budget that allows nothing now may allow it soon.
                planned.drain = Some(drain);
                break;
            }
            Err(why) => {
                if !unmarked {
                    planned.give_up.push(Arc::clone(&name));
                }
                planned.kept.push((name, why));
            }
        }
    }
    planned
}

/// Where all the pods of a node would go, or which one has no place.
fn place(
    snapshot: &mut Snapshot,
    profile: &Profile,
    from: NodeIndex,
    full: i64,
    moving: Vec<Arc<PodInfo>>,
) -> Result<Vec<Move>, String> {
    let home = Arc::clone(&snapshot.node(from).name);
    let mut targets: Vec<(i64, Arc<str>, NodeIndex)> = Vec::new();
    for at in snapshot.order() {
        let node = snapshot.node(*at);
        let in_use = node.pods.iter().any(|pod| fate(&pod.pod) != Fate::Stays);
        let fuller = (fullness(node), &node.name) > (full, &home);
        if *at != from && in_use && fuller && is_open(node) && !marked(node) {
            targets.push((fullness(node), Arc::clone(&node.name), *at));
        }
    }
    // The fullest first.
    targets.sort_by(|one, other| other.cmp(one));
    let targets: Vec<NodeIndex> = targets.into_iter().map(|(.., at)| at).collect();
    let mut moves: Vec<(Arc<PodInfo>, Move)> = Vec::new();
    let mut stuck = None;
    for pod in moving {
        // As whoever controls it would make it: bound to no node.
        let mut free = (*pod.pod).clone();
        if let Some(spec) = &mut free.spec {
            spec.node_name = None;
        }
        let free = Arc::new(PodInfo::new(Arc::new(free)));
        snapshot.remove_pod(&pod.uid);
        let found = first_taker(profile, snapshot, &free, &targets);
        let Some(at) = found else {
            snapshot.add_pod(Arc::clone(&pod), &home);
            stuck = Some(format!("pod {} fits on no fuller node", pod.key));
            break;
        };
        let to = Arc::clone(&snapshot.node(at).name);
        snapshot.add_pod(free, &to);
        let pod_moved = Arc::clone(&pod);
        moves.push((pod, Move { pod: pod_moved, to }));
    }
    for (pod, _) in moves.iter().rev() {
        snapshot.remove_pod(&pod.uid);
        snapshot.add_pod(Arc::clone(pod), &home);
    }
    match stuck {
        Some(why) => Err(why),
        None => Ok(moves.into_iter().map(|(_, one)| one).collect()),
    }
}

/// The pods that may be evicted now.
fn within_budgets(snapshot: &Snapshot, node: &Arc<str>, moves: Vec<Move>) -> Result<Drain, String> {
    let mut left: HashMap<&ObjectKey, i32> = HashMap::new();
    let mut drain = Drain {
        node: Arc::clone(node),
        evict: Vec::new(),
        later: 0,
    };
    let mut short = None;
    for one in moves {
        let class = &one.pod.class;
        let mut about = snapshot.budgets.iter().filter(|(key, budget)| {
            key.namespace == class.namespace
                && budget.selector.matches_with(|label| class.label(label))
        });
        let first = about.next();
        if about.next().is_some() {
            // The eviction itself refuses such pods.
            return Err(format!("pod {} has more than one budget", one.pod.key));
        }
        let Some((key, budget)) = first else {
            drain.evict.push(one);
            continue;
        };
        let allowed = left.entry(key).or_insert(budget.allowed);
        if *allowed > 0 {
            *allowed -= 1;
            drain.evict.push(one);
        } else {
            short = Some(key.clone());
            drain.later += 1;
        }
    }
    match short {
        Some(key) if drain.evict.is_empty() => {
            Err(format!("disruption budget {key} allows no eviction"))
        }
        _ => Ok(drain),
    }
}
