//! The default plugins, each to the reference's semantics and texts, and the profiles that list
//! them.

pub mod binder;
pub mod dynamic_resources;
pub mod fit;
pub mod gang;
pub mod image;
pub mod inter_pod;
pub mod limits;
pub mod node_affinity;
pub mod nodes;
pub mod preemption;
pub mod queueing;
pub mod scoring;
pub mod spread;
pub mod taints;
pub mod unsupported;
pub mod volumes;

use std::sync::Arc;

use evenkeel_client::LoopContext;

use crate::config::ProfileConfig;
use crate::extenders::{ExtenderBinder, Extenders};
use crate::framework::Plugin as _;
use crate::profile::{Profile, Profiles};

use dynamic_resources::DynamicResources;
use volumes::VolumeBinding;

/// Profiles as configured. Bindings are written by the binder handed in.
#[must_use]
pub fn configured(
    configs: &[ProfileConfig],
    extenders: &Extenders,
    binder: &binder::DefaultBinder,
    context: &LoopContext,
) -> Profiles {
    // What is set aside for one profile's pods is so for all: they share nodes, volumes and devices.
    let shared = Shared {
        volumes: VolumeBinding::new(Some(binder.client())),
        devices: DynamicResources::writing(
            context.client.clone(),
            context.recorder.clone(),
            Arc::clone(&context.clock),
        ),
    };
    let profiles = configs.iter().map(|config| {
        let mut profile = with_shared(config, shared.clone());
        profile.extenders = extenders.clone();
        if extenders.bind() {
            profile
                .plugin(ExtenderBinder(extenders.clone()))
                .bind()
                .done();
        }
        if config.stands("bind", binder.name()) {
            profile.plugin(binder.clone()).bind().done();
        }
        profile
    });
    Profiles::new(profiles.collect())
}

/// The profile of `default-scheduler` without a binder: enough to decide.
#[must_use]
pub fn default_placement() -> Profile {
    placement(&ProfileConfig::default())
}

/// Lists a plugin at those of its points at which the configuration wants it.
macro_rules! list {
    ($profile:ident, $config:ident, $plugin:expr, [$($point:ident),*] $(, $weight:literal)?) => {{
        let plugin = $plugin;
        let name = plugin.name();
        let listed = $profile.plugin(plugin);
        $(let listed = if $config.stands(stringify!($point), name) {
            listed.$point()
        } else {
            listed
        };)*
        $(let listed = match $config.weight(name, $weight) {
            Some(weight) => listed.score(weight),
            None => listed,
        };)?
        listed.done();
    }};
}

/// The reference's default plugins, order and weights, as far as the configuration wants them;
/// without a binder.
#[must_use]
pub fn placement(config: &ProfileConfig) -> Profile {
    let shared = Shared {
        volumes: VolumeBinding::new(None),
        devices: DynamicResources::new(),
    };
    with_shared(config, shared)
}

/// Plugins that remember what is set aside.
#[derive(Debug, Clone)]
struct Shared {
    volumes: VolumeBinding,
    devices: DynamicResources,
}

fn with_shared(config: &ProfileConfig, shared: Shared) -> Profile {
    let Shared { volumes, devices } = shared;
    let mut profile = Profile::new(&config.scheduler_name, Arc::new(queueing::PrioritySort));
    profile.percentage_of_nodes_to_score = config.percentage_of_nodes_to_score;
    list!(profile, config, queueing::SchedulingGates, [pre_enqueue]);
    list!(profile, config, gang::GangScheduling, [pre_enqueue]);
    profile.plugin(unsupported::Unsupported).pre_filter().done();
    list!(profile, config, nodes::NodeUnschedulable, [filter]);
    list!(profile, config, nodes::NodeName, [pre_filter, filter]);
    list!(
        profile,
        config,
        taints::TaintToleration,
        [filter, pre_score],
        3
    );
    list!(
        profile,
        config,
        node_affinity::NodeAffinity,
        [pre_filter, filter, pre_score],
        2
    );
    list!(profile, config, nodes::NodePorts, [pre_filter, filter]);
    let fit = fit::Fit {
        scoring: config.fit.clone(),
        ignored: config.ignored_resources.clone(),
        ignored_groups: config.ignored_groups.clone(),
    };
    list!(profile, config, fit, [filter], 1);
    list!(
        profile,
        config,
        volumes::VolumeRestrictions,
        [pre_filter, filter]
    );
    list!(
        profile,
        config,
        limits::NodeVolumeLimits,
        [pre_filter, filter]
    );
    list!(
        profile,
        config,
        volumes,
        [pre_filter, filter, reserve, pre_bind, post_bind]
    );
    list!(profile, config, limits::VolumeZone, [pre_filter, filter]);
    let spread = spread::PodTopologySpread {
        defaults: config.default_constraints.clone(),
    };
    list!(profile, config, spread, [pre_filter, filter, pre_score], 2);
    let inter_pod = inter_pod::InterPodAffinity {
        hard_affinity_weight: config.hard_pod_affinity_weight,
    };
    list!(
        profile,
        config,
        inter_pod,
        [pre_filter, filter, pre_score],
        2
    );
    let balanced = scoring::BalancedAllocation {
        resources: config.balanced.clone(),
    };
    list!(profile, config, balanced, [pre_score], 1);
    list!(profile, config, image::ImageLocality, [pre_score], 1);
    // Last of the filters: it looks at most. First of what is asked when no node is left.
    list!(
        profile,
        config,
        devices,
        [
            pre_enqueue,
            pre_filter,
            filter,
            post_filter,
            reserve,
            pre_bind
        ]
    );
    list!(profile, config, config.preemption, [post_filter]);
    profile
}
