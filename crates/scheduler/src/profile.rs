//! A profile: which plugins stand at which extension point, in order, and how much their scores
//! weigh; and the profiles of a scheduler, one for each scheduler name.
//!
//! What never lives here: a plugin, or a decision.

use std::sync::Arc;

use crate::extenders::Extenders;
use crate::framework::{
    Bind, ClusterEvent, Filter, Permit, Plugin, PluginIndex, PluginSet, PostBind, PostFilter,
    PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve, Score,
};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Stands for the extenders in a set of plugins.
pub(crate) const EXTENDERS: PluginIndex = 63;

type At<T> = Vec<(PluginIndex, Arc<T>)>;

/// Which plugins stand at which point, in order, and how much their scores weigh.
#[derive(Debug)]
pub struct Profile {
    /// Serves pods with this `spec.schedulerName`.
    pub scheduler_name: String,
    /// How many feasible nodes are enough, in percent of all; 0 adapts to the number of nodes.
    pub percentage_of_nodes_to_score: usize,
    /// Who is asked beside the plugins.
    pub extenders: Extenders,
    pub(crate) plugins: Vec<Arc<dyn Plugin>>,
    pub(crate) queue_sort: Arc<dyn QueueSort>,
    pub(crate) pre_enqueue: At<dyn PreEnqueue>,
    pub(crate) pre_filter: At<dyn PreFilter>,
    pub(crate) filter: At<dyn Filter>,
    pub(crate) post_filter: At<dyn PostFilter>,
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
            extenders: Extenders::default(),
            plugins: Vec::new(),
            queue_sort,
            pre_enqueue: Vec::new(),
            pre_filter: Vec::new(),
            filter: Vec::new(),
            post_filter: Vec::new(),
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
    /// With more than 63 plugins: a mistake of the program.
    pub fn plugin<P: Plugin>(&mut self, plugin: P) -> Listed<'_, P> {
        assert!(
            self.plugins.len() < EXTENDERS,
            "a profile lists at most 63 plugins"
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

    /// Does it make others go for pods that fit nowhere?
    #[must_use]
    pub fn preempts(&self) -> bool {
        let mut points = self.post_filter.iter();
        points.any(|(_, plugin)| plugin.name() == "DefaultPreemption")
    }

    /// The name of a plugin.
    #[must_use]
    pub fn plugin_name(&self, at: PluginIndex) -> &'static str {
        self.plugins.get(at).map_or("", |plugin| plugin.name())
    }

    /// May the event let a pod be placed that these plugins rejected?
    #[must_use]
    pub fn hint(&self, by: PluginSet, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        // A pod that failed for another reason than a plugin's no is tried again on anything, and
        // nobody knows what an extender waits for.
        by.is_empty()
            || by.contains(EXTENDERS)
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
        /// Stands at PostFilter.
        post_filter, PostFilter
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

/// The profiles of a scheduler. A pod belongs to the one of its `spec.schedulerName`; a pod that
/// names none of them belongs to another scheduler.
#[derive(Debug, Clone)]
pub struct Profiles(Vec<Arc<Profile>>);

impl Profiles {
    /// Several profiles, of different names. The queue's order is that of the first one.
    #[must_use]
    pub fn new(profiles: Vec<Profile>) -> Self {
        Self(profiles.into_iter().map(Arc::new).collect())
    }

    /// The profile of a scheduler's name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Profile>> {
        self.0.iter().find(|profile| profile.scheduler_name == name)
    }

    /// The profile that serves a pod.
    #[must_use]
    pub fn of(&self, pod: &PodInfo) -> Option<&Arc<Profile>> {
        self.named(pod.scheduler_name())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.0.iter()
    }

    /// Where a pod stands in the queue.
    #[must_use]
    pub fn rank(&self, pod: &PodInfo) -> i64 {
        self.0
            .first()
            .map_or(0, |profile| profile.queue_sort.rank(pod))
    }

    /// Is a pod kept out of the queue?
    #[must_use]
    pub fn gates(&self, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        self.of(pod).is_some_and(|profile| {
            let mut gates = profile.pre_enqueue.iter();
            gates.any(|(_, plugin)| plugin.pre_enqueue(pod, snapshot).is_some())
        })
    }

    /// May the event let a pod be placed that these plugins of its profile rejected?
    #[must_use]
    pub fn hint(&self, by: PluginSet, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        self.of(pod)
            .is_some_and(|profile| profile.hint(by, pod, event))
    }
}

impl From<Profile> for Profiles {
    fn from(profile: Profile) -> Self {
        Self::new(vec![profile])
    }
}
