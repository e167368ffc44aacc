//! The scheduler's configuration, as the field writes it: `KubeSchedulerConfiguration` of
//! `kubescheduler.config.k8s.io/v1`. What is written there and not done here is refused by name.

mod extender;
mod file;

use std::collections::{BTreeMap, BTreeSet};

pub use file::{ConfigError, read};

use crate::extenders::ExtenderConfig;
use crate::plugins::preemption::DefaultPreemption;
use crate::plugins::scoring::{ResourceWeight, Scoring, Strategy, cpu_and_memory};
use crate::plugins::spread::Defaults;

/// The profile whose pods are packed, by its scheduler name.
pub const BIN_PACKING: &str = "bin-packing-scheduler";

/// The profiles of a scheduler that nobody has configured.
#[must_use]
pub fn defaults() -> Vec<ProfileConfig> {
    vec![ProfileConfig::default(), ProfileConfig::bin_packing()]
}

/// One profile.
#[derive(Debug, Clone)]
pub struct ProfileConfig {
    /// Serves pods with this `spec.schedulerName`.
    pub scheduler_name: String,
    /// How many feasible nodes are enough, in percent of all; 0 adapts to the number of nodes.
    pub percentage_of_nodes_to_score: usize,
    /// How `NodeResourcesFit` scores.
    pub fit: Scoring,
    /// What `NodeResourcesBalancedAllocation` looks at.
    pub balanced: Vec<ResourceWeight>,
    /// `InterPodAffinityArgs.hardPodAffinityWeight`.
    pub hard_pod_affinity_weight: i64,
    /// `PodTopologySpreadArgs`: what spreads pods without constraints of their own.
    pub default_constraints: Defaults,
    /// `DefaultPreemptionArgs`.
    pub preemption: DefaultPreemption,
    /// `NodeResourcesFitArgs.ignoredResources`, and what extenders manage alone.
    pub ignored_resources: BTreeSet<String>,
    /// `NodeResourcesFitArgs.ignoredResourceGroups`.
    pub ignored_groups: BTreeSet<String>,
    /// Who is asked beside the plugins; the same for all profiles.
    pub extenders: Vec<ExtenderConfig>,
    /// Plugins that do not stand at a point: (point, plugin); `*` for all.
    pub(crate) disabled: BTreeSet<(String, String)>,
    /// Plugins that stand at a point all the same.
    pub(crate) enabled: BTreeSet<(String, String)>,
    /// Weights of scores that differ from the default ones.
    pub(crate) weights: BTreeMap<String, i64>,
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            percentage_of_nodes_to_score: 0,
            fit: Scoring::default(),
            balanced: cpu_and_memory(),
            hard_pod_affinity_weight: 1,
            default_constraints: Defaults::System,
            preemption: DefaultPreemption::default(),
            ignored_resources: BTreeSet::new(),
            ignored_groups: BTreeSet::new(),
            extenders: Vec::new(),
            disabled: BTreeSet::new(),
            enabled: BTreeSet::new(),
            weights: BTreeMap::new(),
        }
    }
}

impl ProfileConfig {
    /// Packs: the fullest node that still fits, so that others become empty. What would spread
    /// pods for balance alone is off; what pods ask for themselves holds.
    #[must_use]
    pub fn bin_packing() -> Self {
        let mut config = Self {
            scheduler_name: BIN_PACKING.to_owned(),
            // The fullest node of all, not of those that are met first.
            percentage_of_nodes_to_score: 100,
            ..Self::default()
        };
        config.pack();
        config
    }

    /// Makes a profile pack.
    pub fn pack(&mut self) {
        self.fit.strategy = Strategy::MostAllocated;
        self.weights.insert("NodeResourcesFit".to_owned(), 10);
        self.default_constraints = Defaults::List(Vec::new());
        let balanced = "NodeResourcesBalancedAllocation".to_owned();
        self.disabled.insert(("score".to_owned(), balanced));
    }

    fn has(set: &BTreeSet<(String, String)>, point: &str, plugin: &str) -> bool {
        set.contains(&(point.to_owned(), plugin.to_owned()))
    }

    /// Does the plugin stand at the point, where it does by default?
    #[must_use]
    pub fn stands(&self, point: &str, plugin: &str) -> bool {
        let off = |point: &str| {
            Self::has(&self.disabled, point, plugin) || Self::has(&self.disabled, point, "*")
        };
        Self::has(&self.enabled, point, plugin)
            || (!off(point)
                && (Self::has(&self.enabled, "multi_point", plugin) || !off("multi_point")))
    }

    /// What the plugin's score weighs; `None` when it does not score.
    #[must_use]
    pub fn weight(&self, plugin: &str, default: i64) -> Option<i64> {
        let weight = self.weights.get(plugin).copied().unwrap_or(default);
        self.stands("score", plugin).then_some(weight)
    }
}
