//! `ImageLocality`: prefers nodes that have the pod's images, large ones above all.

use crate::framework::{ClusterEvent, CycleState, MAX_NODE_SCORE, Plugin, PreScore, Score};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};

const MIB: i64 = 1024 * 1024;
/// Less than this is not worth a preference.
const MIN_BYTES: i64 = 23 * MIB;
/// More than this, for each container, makes no difference.
const MAX_BYTES_PER_CONTAINER: i64 = 1000 * MIB;

/// The plugin.
#[derive(Debug)]
pub struct ImageLocality;

#[derive(Debug)]
struct Images {
    /// Name, and on how many nodes it is.
    wanted: Vec<(String, i64)>,
    nodes: i64,
    containers: i64,
}

/// The name as nodes report it: with a tag.
fn normalized(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || name.contains('@') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>) -> bool {
        false
    }
}

impl PreScore for ImageLocality {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        _feasible: &[NodeIndex],
    ) -> bool {
        let Some(spec) = pod.spec() else {
            return false;
        };
        let init = spec.init_containers.iter().flatten();
        let containers: Vec<_> = spec.containers.iter().chain(init).collect();
        let wanted: Vec<(String, i64)> = containers
            .iter()
            .filter_map(|container| {
                let name = normalized(container.image.as_deref()?);
                let spread = snapshot.image(&name)?;
                Some((name, count(spread.nodes)))
            })
            .collect();
        let any = !wanted.is_empty();
        state.put(Images {
            wanted,
            nodes: count(snapshot.len()).max(1),
            containers: count(containers.len()),
        });
        any
    }
}

impl Score for ImageLocality {
    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo, _at: NodeIndex) -> i64 {
        let Some(images) = state.get::<Images>() else {
            return 0;
        };
        // An image that few nodes have counts less, so that pods do not heap up on those.
        let sum: i64 = images
            .wanted
            .iter()
            .filter_map(|(name, spread)| {
                let bytes = *node.images.get(name.as_str())?;
                let scaled = i128::from(bytes) * i128::from(*spread) / i128::from(images.nodes);
                i64::try_from(scaled).ok()
            })
            .sum();
        let most = MAX_BYTES_PER_CONTAINER * images.containers;
        MAX_NODE_SCORE * (sum.clamp(MIN_BYTES, most) - MIN_BYTES) / (most - MIN_BYTES)
    }
}
