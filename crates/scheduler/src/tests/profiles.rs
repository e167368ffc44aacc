//! Profiles: several scheduler names, strategies of scoring, configuration as the field writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_client::{Change, ObjectKey};
use serde_json::json;
use tokio::time::Instant;

use super::objects::{node, pod_with};
use crate::config::{BIN_PACKING, ProfileConfig, read};
use crate::core::{Action, Core};
use crate::plugins::placement;
use crate::plugins::scoring::{Scoring, ShapePoint, Strategy, cpu_and_memory};
use crate::pod::PodInfo;
use crate::profile::Profiles;
use crate::snapshot::Snapshot;

/// The score of a pod of 1 CPU and 1 GiB on a node of 4 CPU and 8 GiB that holds one of them.
fn score(strategy: Strategy) -> i64 {
    let asks = json!({"spec": {"containers": [{"name": "main", "image": "shop",
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
    let mut snapshot = Snapshot::default();
    snapshot.set_node(&Arc::new(node("n", 4000, 8192)));
    let there = Arc::new(PodInfo::new(Arc::new(pod_with("there", 0, &asks))));
    snapshot.add_pod(there, "n");
    let comes = PodInfo::new(Arc::new(pod_with("comes", 0, &asks)));
    let at = snapshot.find("n").expect("it is there");
    let scoring = Scoring {
        strategy,
        resources: cpu_and_memory(),
    };
    scoring.score(&comes, snapshot.node(at))
}

#[test]
fn strategies_score_as_documented() {
    // Half of the CPU and a quarter of the memory would be taken.
    assert_eq!(score(Strategy::LeastAllocated), (50 + 75) / 2);
    assert_eq!(score(Strategy::MostAllocated), (50 + 25) / 2);
    let shape = |points: &[(i64, i64)]| {
        let point = |(utilization, score): &(i64, i64)| ShapePoint {
            utilization: *utilization,
            score: *score,
        };
        Strategy::RequestedToCapacityRatio(points.iter().map(point).collect())
    };
    // Rising like utilization itself; rounded, not truncated.
    assert_eq!(score(shape(&[(0, 0), (100, 10)])), 38);
    assert_eq!(score(shape(&[(0, 10), (100, 0)])), 63);
    // Flat outside the points; a resource that scores nothing does not count.
    assert_eq!(score(shape(&[(30, 0), (40, 10)])), 100);
}

fn come(core: &mut Core, name: &str, scheduler: &str) {
    let pod = pod_with(name, 500, &json!({"spec": {"schedulerName": scheduler}}));
    let change = Change {
        key: ObjectKey::of(&pod),
        old: None,
        new: Some(Arc::new(pod)),
    };
    core.pod(&change, Instant::now());
}

fn placed(core: &mut Core) -> BTreeMap<String, BTreeSet<String>> {
    let mut placed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while let Some(action) = core.cycle(Instant::now()) {
        let Action::Bind { pod, node, .. } = action else {
            panic!("everything fits: {action:?}");
        };
        placed
            .entry(node.to_string())
            .or_default()
            .insert(pod.key.name.clone());
    }
    placed
}

#[tokio::test(start_paused = true)]
async fn one_profile_spreads_the_other_packs() {
    let profiles = || {
        Profiles::new(vec![
            placement(&ProfileConfig::default()),
            placement(&ProfileConfig::bin_packing()),
        ])
    };
    for (scheduler, nodes) in [("default-scheduler", 4), (BIN_PACKING, 2)] {
        let mut core = Core::new(profiles(), 5);
        for at in 0..4 {
            let node = node(&format!("n{at}"), 1000, 4096);
            let change = Change {
                key: ObjectKey::of(&node),
                old: None,
                new: Some(Arc::new(node)),
            };
            core.node(&change, Instant::now());
        }
        for at in 0..4 {
            come(&mut core, &format!("pod-{at}"), scheduler);
        }
        come(&mut core, "theirs", "somebody-elses");
        assert_eq!(placed(&mut core).len(), nodes, "{scheduler}");
    }
}

#[test]
fn a_configuration_is_read_as_the_field_writes_it() {
    let configs = read(
        "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
parallelism: 16
leaderElection: {leaderElect: false}
profiles:
- schedulerName: default-scheduler
- schedulerName: dense
  percentageOfNodesToScore: 70
  plugins:
    score:
      disabled: [{name: ImageLocality}]
      enabled: [{name: NodeResourcesFit, weight: 5}]
    multiPoint:
      disabled: [{name: DefaultPreemption}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      scoringStrategy:
        type: RequestedToCapacityRatio
        resources: [{name: cpu, weight: 3}, {name: example.com/gpu}]
        requestedToCapacityRatio:
          shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]
  - name: PodTopologySpread
    args: {defaultingType: List, defaultConstraints: [{maxSkew: 1,
      topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]}
",
    )
    .expect("it is good");
    assert_eq!(configs.len(), 2);
    let dense = &configs[1];
    assert_eq!(dense.scheduler_name, "dense");
    assert_eq!(dense.percentage_of_nodes_to_score, 70);
    assert_eq!(dense.fit.resources[0].weight, 3);
    assert_eq!(dense.fit.resources[1].weight, 1);
    assert_eq!(dense.weight("NodeResourcesFit", 1), Some(5));
    assert_eq!(dense.weight("ImageLocality", 1), None);
    assert_eq!(dense.weight("NodeAffinity", 2), Some(2));
    assert!(!dense.stands("post_filter", "DefaultPreemption"));
    assert!(configs[0].stands("post_filter", "DefaultPreemption"));
    assert!(placement(dense).post_filter.len() < placement(&configs[0]).post_filter.len());
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    for (text, wanted) in [
        (
            "profiles: [{plugins: {score: {enabled: [{name: Mine}]}}}]",
            "plugin Mine is not supported",
        ),
        (
            "profiles: [{plugins: {queueSort: {}}}]",
            "plugins.queueSort is not supported",
        ),
        (
            "profiles: [{pluginConfig: [{name: NodeAffinity, args: {}}]}]",
            "pluginConfig of NodeAffinity is not supported",
        ),
        ("profiles: [{}, {}]", "is there twice"),
        ("colour: blue", "unknown field"),
        (
            "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: \
             {type: RequestedToCapacityRatio}}}]}]",
            "shape",
        ),
    ] {
        let error = read(&format!("{head}{text}\n"))
            .expect_err(text)
            .to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    let other = read("apiVersion: v1\nkind: Pod\n").expect_err("another kind");
    assert!(
        other.to_string().contains("KubeSchedulerConfiguration"),
        "{other}"
    );
}
