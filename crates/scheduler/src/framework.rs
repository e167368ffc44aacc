//! The extension points, after kube-scheduler's framework (KEP-624).
//!
//! Everything up to `Permit` is synchronous and reads the snapshot by reference; `PreBind`, `Bind`
//! and `PostBind` run beside the cycles and may wait. What never lives here: a plugin, or
//! the list of plugins ([`crate::profile`]).

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::ObjectKey;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::pod::PodInfo;
use crate::snapshot::{NodeDelta, NodeIndex, NodeInfo, Snapshot};
use crate::what_if::WhatIf;

/// The best score a plugin can give after normalizing.
pub const MAX_NODE_SCORE: i64 = 100;

/// Why a plugin says no. Reasons are counted over all nodes, so they name no node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// In the reference's words.
    pub reasons: Vec<Cow<'static, str>>,
    /// Could evicting other pods from the node help?
    pub resolvable: bool,
}

impl Rejection {
    /// Evicting other pods could help.
    pub fn resolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reasons: vec![reason.into()],
            resolvable: true,
        }
    }

    /// Nothing that is done to pods helps.
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reasons: vec![reason.into()],
            resolvable: false,
        }
    }
}

/// What plugins remember from one extension point to the next of the same cycle.
#[derive(Debug, Default)]
pub struct CycleState(Vec<(TypeId, Box<dyn Any + Send + Sync>)>);

impl CycleState {
    /// Remembers a value under its type.
    pub fn put<T: Any + Send + Sync>(&mut self, value: T) {
        self.0.retain(|(id, _)| *id != TypeId::of::<T>());
        self.0.push((TypeId::of::<T>(), Box::new(value)));
    }

    /// The value of a type, to change.
    pub fn get_mut<T: Any>(&mut self) -> Option<&mut T> {
        let found = self.0.iter_mut().find(|(id, _)| *id == TypeId::of::<T>());
        found.and_then(|(_, value)| value.downcast_mut())
    }

    /// The value of a type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        let (_, value) = self.0.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        value.downcast_ref()
    }
}

/// Something happened that may let a pod be placed which no node took before.
#[derive(Debug)]
pub enum ClusterEvent<'a> {
    /// A node came or changed.
    Node {
        /// As it is now.
        node: &'a NodeInfo,
        /// What is different.
        delta: NodeDelta,
    },
    /// A pod is now on a node.
    PodAssigned(&'a PodInfo),
    /// The labels of a pod on a node changed.
    PodLabels(&'a PodInfo),
    /// A pod on a node asks for less.
    PodShrunk(&'a PodInfo),
    /// A pod left its node.
    PodGone(&'a PodInfo),
    /// The labels of a namespace changed.
    Namespace,
    /// A claim came or changed.
    Claim(&'a ObjectKey),
    /// A volume came, changed or went.
    Volume,
    /// A storage class came or changed.
    StorageClass,
    /// How many volumes a node holds changed.
    CsiNode,
    /// A driver tells of other room for volumes.
    StorageCapacity,
    /// A claim of devices came, changed or went.
    ResourceClaim {
        /// Which one.
        key: &'a ObjectKey,
        /// It held devices that it does not hold any more.
        freed: bool,
    },
    /// Devices or classes of devices came or changed.
    Devices,
    /// A group of pods came, wants fewer of them at once, or has one more.
    PodGroup(&'a ObjectKey),
}

/// What every plugin has.
pub trait Plugin: Debug + Send + Sync + 'static {
    /// Its name in the reference.
    fn name(&self) -> &'static str;

    /// May the event let a pod be placed that this plugin rejected? When in doubt, yes.
    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool;
}

/// Orders the queue.
pub trait QueueSort: Plugin {
    /// Higher goes first; equal ranks go first in, first out.
    fn rank(&self, pod: &PodInfo) -> i64;
}

/// Keeps pods out of the queue.
pub trait PreEnqueue: Plugin {
    /// The reason why the pod must not be tried yet.
    fn pre_enqueue(&self, pod: &PodInfo, snapshot: &Snapshot) -> Option<Rejection>;
}

/// What a `PreFilter` found.
#[derive(Debug)]
pub enum PreFiltered {
    /// Filter all nodes.
    All,
    /// The plugin's filter has nothing to say about this pod.
    Skip,
    /// Only these nodes can take the pod.
    Only(Vec<NodeIndex>),
    /// No node can take the pod.
    Reject(Rejection),
}

/// Looks at the pod once, before nodes are filtered.
pub trait PreFilter: Plugin {
    /// Prepares the state that the filter of the same plugin reads.
    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot)
    -> PreFiltered;

    /// Takes into the prepared state that `other` came to the node (`amount` 1) or left it (-1):
    /// for questions of what would be. One of each leaves the state as it was.
    fn adjust(&self, _state: &mut CycleState, _what: &Adjustment<'_>, _amount: i64) {}
}

/// What a [`PreFilter::adjust`] is about.
#[derive(Debug, Clone, Copy)]
pub struct Adjustment<'a> {
    /// The pod that is being scheduled.
    pub pod: &'a PodInfo,
    /// The pod that comes or goes.
    pub other: &'a PodInfo,
    /// Where it comes or goes.
    pub node: &'a NodeInfo,
    /// The cluster as it is.
    pub snapshot: &'a Snapshot,
}

/// Tells nodes that cannot take the pod.
pub trait Filter: Plugin {
    /// Why the node cannot take the pod; `None` when it can.
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection>;

    /// More about why this node cannot take the pod, for the trace of a decision: reasons are
    /// counted over nodes and so name nothing that differs between them.
    fn detail(&self, _pod: &PodInfo, _node: &NodeInfo) -> Option<String> {
        None
    }
}

/// What a `PostFilter` found.
#[derive(Debug)]
pub enum PostFiltered {
    /// Evicting the pods of one of these makes room; there is at least one.
    Preempt(Vec<Preemption>),
    /// Giving up the devices of this claim of the pod lets it go elsewhere.
    Deallocate(Arc<ResourceClaim>),
    /// It cannot help.
    Rejected {
        /// Why, without the plugin's prefix.
        reason: String,
        /// The node that was set aside for the pod is given up.
        clear_nomination: bool,
    },
}

/// Pods to be evicted in favour of another one.
#[derive(Debug, Clone)]
pub struct Preemption {
    /// The node on which room is made.
    pub node: Arc<str>,
    /// Who has to go, the most important first. May be on their way already.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them break a disruption budget.
    pub violations: usize,
}

/// Is asked when no node can take a pod.
pub trait PostFilter: Plugin {
    /// Looks for a way. `potential` are the nodes from which evicting pods could help.
    fn post_filter(
        &self,
        what_if: &mut WhatIf<'_>,
        potential: &[NodeIndex],
        random: u64,
    ) -> PostFiltered;
}

/// Looks at the feasible nodes once, before they are scored.
pub trait PreScore: Plugin {
    /// Prepares the state that the score of the same plugin reads. `false`: it has nothing to say.
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        feasible: &[NodeIndex],
    ) -> bool;
}

/// Ranks the feasible nodes.
pub trait Score: Plugin {
    /// The node's raw score.
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo, at: NodeIndex) -> i64;

    /// Brings raw scores into 0 to [`MAX_NODE_SCORE`]. `scores[i]` belongs to `nodes[i]`.
    fn normalize(
        &self,
        _state: &CycleState,
        _snapshot: &Snapshot,
        _nodes: &[NodeIndex],
        _scores: &mut [i64],
    ) {
    }
}

/// Sets things aside on the chosen node.
pub trait Reserve: Plugin {
    /// Sets aside.
    ///
    /// # Errors
    /// What is missing after all.
    fn reserve(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Rejection>;

    /// Gives back, when a later step failed. Must be idempotent.
    fn unreserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str);
}

/// What a `Permit` plugin says.
#[derive(Debug)]
pub enum Permission {
    /// Bind.
    Allow,
    /// Do not bind.
    Reject(Rejection),
    /// Bind when somebody allows it; reject after this time.
    Wait(Duration),
}

/// Lets the binding go ahead, wait or not.
pub trait Permit: Plugin {
    /// Decides.
    fn permit(&self, state: &CycleState, pod: &PodInfo, node: &str) -> Permission;
}

/// Why a step of the binding failed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The door did not take the binding.
    #[error("{}", evenkeel_client::errors::message(.0))]
    Door(#[from] kube::Error),
    /// A plugin said no.
    #[error("{0}")]
    Refused(String),
}

/// What a binding works on.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The node chosen for it.
    pub node: Arc<str>,
}

/// Work before the binding, such as attaching volumes.
pub trait PreBind: Plugin {
    /// Does it.
    fn pre_bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Result<(), BindError>>;
}

/// Writes the binding.
pub trait Bind: Plugin {
    /// Writes it. `None`: this plugin does not bind such pods, the next one is asked.
    fn bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Option<Result<(), BindError>>>;
}

/// Is told of a binding.
pub trait PostBind: Plugin {
    /// Told after the binding was written.
    fn post_bind(&self, binding: &Binding);
}

/// Position of a plugin in its profile.
pub type PluginIndex = usize;

/// A set of plugins of one profile, at most 64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PluginSet(u64);

impl PluginSet {
    /// Adds one.
    pub fn insert(&mut self, plugin: PluginIndex) {
        self.0 |= 1 << (plugin & 63);
    }

    /// Is it in?
    #[must_use]
    pub fn contains(self, plugin: PluginIndex) -> bool {
        self.0 >> (plugin & 63) & 1 == 1
    }

    /// Is none in?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are in.
    pub fn iter(self) -> impl Iterator<Item = PluginIndex> {
        (0..64).filter(move |plugin| self.contains(*plugin))
    }
}

/// Scales raw scores so that the largest becomes [`MAX_NODE_SCORE`]; `reverse` turns them around,
/// so that 0 becomes the best.
pub fn default_normalize(scores: &mut [i64], reverse: bool) {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores.iter_mut() {
        let scaled = if most == 0 {
            0
        } else {
            MAX_NODE_SCORE * *score / most
        };
        *score = if reverse {
            MAX_NODE_SCORE - scaled
        } else {
            scaled
        };
    }
}
