//! The extension points, after kube-scheduler's framework (KEP-624), and the profile that lists
//! which plugins stand at them.
//!
//! Everything up to `Permit` is synchronous and reads the snapshot by reference; `PreBind`, `Bind`
//! and `PostBind` run beside the cycles and may wait. What never lives here: a plugin.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;

use crate::pod::PodInfo;
use crate::snapshot::{NodeDelta, NodeIndex, NodeInfo, Snapshot};

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
    fn pre_enqueue(&self, pod: &PodInfo) -> Option<Rejection>;
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
}

/// Tells nodes that cannot take the pod.
pub trait Filter: Plugin {
    /// Why the node cannot take the pod; `None` when it can.
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection>;
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
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<(), Rejection>;

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

type At<T> = Vec<(PluginIndex, Arc<T>)>;

/// Which plugins stand at which point, in order, and how much their scores weigh.
#[derive(Debug)]
pub struct Profile {
    /// Serves pods with this `spec.schedulerName`.
    pub scheduler_name: String,
    /// How many feasible nodes are enough, in percent of all; 0 adapts to the number of nodes.
    pub percentage_of_nodes_to_score: usize,
    pub(crate) plugins: Vec<Arc<dyn Plugin>>,
    pub(crate) queue_sort: Arc<dyn QueueSort>,
    pub(crate) pre_enqueue: At<dyn PreEnqueue>,
    pub(crate) pre_filter: At<dyn PreFilter>,
    pub(crate) filter: At<dyn Filter>,
    pub(crate) pre_score: At<dyn PreScore>,
    pub(crate) score: Vec<(PluginIndex, i64, Arc<dyn Score>)>,
    pub(crate) reserve: At<dyn Reserve>,
    pub(crate) permit: At<dyn Permit>,
    pub(crate) pre_bind: At<dyn PreBind>,
    pub(crate) bind: At<dyn Bind>,
    pub(crate) post_bind: At<dyn PostBind>,
}

impl Profile {
    /// A profile with nothing but an order for its queue.
    #[must_use]
    pub fn new(scheduler_name: &str, queue_sort: Arc<dyn QueueSort>) -> Self {
        Self {
            scheduler_name: scheduler_name.to_owned(),
            percentage_of_nodes_to_score: 0,
            plugins: Vec::new(),
            queue_sort,
            pre_enqueue: Vec::new(),
            pre_filter: Vec::new(),
            filter: Vec::new(),
            pre_score: Vec::new(),
            score: Vec::new(),
            reserve: Vec::new(),
            permit: Vec::new(),
            pre_bind: Vec::new(),
            bind: Vec::new(),
            post_bind: Vec::new(),
        }
    }

    /// Lists a plugin; what it stands at is said on the answer. Order of listing is order of
    /// asking.
    ///
    /// # Panics
    /// With more than 64 plugins: a mistake of the program.
    pub fn plugin<P: Plugin>(&mut self, plugin: P) -> Listed<'_, P> {
        assert!(
            self.plugins.len() < 64,
            "a profile lists at most 64 plugins"
        );
        let plugin = Arc::new(plugin);
        let at = self.plugins.len();
        self.plugins.push(Arc::clone(&plugin) as Arc<dyn Plugin>);
        Listed {
            profile: self,
            plugin,
            at,
        }
    }

    /// The name of a plugin.
    #[must_use]
    pub fn plugin_name(&self, at: PluginIndex) -> &'static str {
        self.plugins.get(at).map_or("", |plugin| plugin.name())
    }

    /// May the event let a pod be placed that these plugins rejected?
    #[must_use]
    pub fn hint(&self, by: PluginSet, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        // A pod that failed for another reason than a plugin's no is tried again on anything.
        by.is_empty()
            || by
                .iter()
                .filter_map(|at| self.plugins.get(at))
                .any(|plugin| plugin.hint(pod, event))
    }
}

/// A plugin just listed.
#[derive(Debug)]
pub struct Listed<'a, P> {
    profile: &'a mut Profile,
    plugin: Arc<P>,
    at: PluginIndex,
}

macro_rules! point {
    ($(#[$doc:meta])* $name:ident, $bound:ident) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(self) -> Self
        where
            P: $bound,
        {
            let plugin = Arc::clone(&self.plugin) as Arc<dyn $bound>;
            self.profile.$name.push((self.at, plugin));
            self
        }
    };
}

impl<P: Plugin> Listed<'_, P> {
    point!(
        /// Stands at PreEnqueue.
        pre_enqueue, PreEnqueue
    );
    point!(
        /// Stands at PreFilter.
        pre_filter, PreFilter
    );
    point!(
        /// Stands at Filter.
        filter, Filter
    );
    point!(
        /// Stands at PreScore.
        pre_score, PreScore
    );
    point!(
        /// Stands at Reserve.
        reserve, Reserve
    );
    point!(
        /// Stands at Permit.
        permit, Permit
    );
    point!(
        /// Stands at PreBind.
        pre_bind, PreBind
    );
    point!(
        /// Stands at Bind.
        bind, Bind
    );
    point!(
        /// Stands at PostBind.
        post_bind, PostBind
    );

    /// Stands at Score with this weight.
    #[must_use]
    pub fn score(self, weight: i64) -> Self
    where
        P: Score,
    {
        let plugin = Arc::clone(&self.plugin) as Arc<dyn Score>;
        self.profile.score.push((self.at, weight, plugin));
        self
    }

    /// That is all.
    pub fn done(self) {}
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
