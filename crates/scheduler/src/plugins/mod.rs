//! The default plugins, each to the reference's semantics and texts.

pub mod binder;
pub mod fit;
pub mod image;
pub mod inter_pod;
pub mod node_affinity;
pub mod nodes;
pub mod preemption;
pub mod queueing;
pub mod spread;
pub mod taints;
pub mod unsupported;

use std::sync::Arc;

use crate::profile::Profile;

/// The profile of `default-scheduler`: the reference's default plugins, order and weights. Bindings
/// are written by the binder handed in.
#[must_use]
pub fn default_profile(binder: binder::DefaultBinder) -> Profile {
    let mut profile = default_placement();
    profile.plugin(binder).bind().done();
    profile
}

/// The same without a binder: enough to decide.
#[must_use]
pub fn default_placement() -> Profile {
    let mut profile = Profile::new("default-scheduler", Arc::new(queueing::PrioritySort));
    profile
        .plugin(queueing::SchedulingGates)
        .pre_enqueue()
        .done();
    profile
        .plugin(unsupported::Unsupported)
        .pre_filter()
        .post_filter()
        .done();
    profile.plugin(nodes::NodeUnschedulable).filter().done();
    profile.plugin(nodes::NodeName).pre_filter().filter().done();
    profile
        .plugin(taints::TaintToleration)
        .filter()
        .pre_score()
        .score(3)
        .done();
    let node_affinity = profile.plugin(node_affinity::NodeAffinity);
    node_affinity
        .pre_filter()
        .filter()
        .pre_score()
        .score(2)
        .done();
    profile
        .plugin(nodes::NodePorts)
        .pre_filter()
        .filter()
        .done();
    profile.plugin(fit::Fit).filter().score(1).done();
    let spread = profile.plugin(spread::PodTopologySpread);
    spread.pre_filter().filter().pre_score().score(2).done();
    let inter_pod = profile.plugin(inter_pod::InterPodAffinity);
    inter_pod.pre_filter().filter().pre_score().score(2).done();
    profile
        .plugin(fit::BalancedAllocation)
        .pre_score()
        .score(1)
        .done();
    profile
        .plugin(image::ImageLocality)
        .pre_score()
        .score(1)
        .done();
    profile
        .plugin(preemption::DefaultPreemption::default())
        .post_filter()
        .done();
    profile
}
