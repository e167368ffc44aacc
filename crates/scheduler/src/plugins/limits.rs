//! `NodeVolumeLimits` and `VolumeZone`: how many volumes of a driver a node holds, and in which zone
//! a volume says by its labels that it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use evenkeel_client::ObjectKey;
use k8s_openapi::api::core::v1::PersistentVolume;

use crate::framework::{
    Adjustment, ClusterEvent, CycleState, Filter, Plugin, PreFilter, PreFiltered, Rejection,
};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, NodeInfo, Snapshot};
use crate::storage::Storage;

/// A driver and what it calls the volume.
type VolumeId = (String, String);

/// How many volumes of a driver a node holds (`CSINode.spec.drivers[].allocatable.count`).
#[derive(Debug)]
pub struct NodeVolumeLimits;

/// The volumes of drivers that a pod uses. One that is not made yet counts too.
fn volumes(pod: &PodInfo, storage: &Storage) -> BTreeSet<VolumeId> {
    let ids = pod.claims.iter().filter_map(|claim| {
        let key = ObjectKey::new(pod.key.namespace.clone(), claim.name.clone());
        let claim = storage.claims.get(&key)?;
        let bound = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.as_deref());
        match bound.filter(|name| !name.is_empty()) {
            Some(name) => {
                let volume = storage.volumes.get(name)?;
                let source = volume.spec.as_ref()?.csi.as_ref()?;
                Some((source.driver.clone(), source.volume_handle.clone()))
            }
            None => {
                let class = storage.class(claim)?;
                Some((class.provisioner.clone(), format!("claim {key}")))
            }
        }
    });
    ids.collect()
}

/// What is used where limits hold.
#[derive(Debug)]
struct Used {
    wanted: BTreeSet<VolumeId>,
    /// By node and driver.
    limits: HashMap<(NodeIndex, String), i64>,
    /// How many pods use a volume on a node.
    users: HashMap<NodeIndex, BTreeMap<VolumeId, i64>>,
}

impl Used {
    fn count(&mut self, at: NodeIndex, ids: BTreeSet<VolumeId>, amount: i64) {
        let users = self.users.entry(at).or_default();
        for id in ids {
            let count = users.entry(id.clone()).or_default();
            *count += amount;
            if *count == 0 {
                users.remove(&id);
            }
        }
    }
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { delta, .. } => delta.added,
            ClusterEvent::CsiNode | ClusterEvent::Volume => true,
            ClusterEvent::Claim(key) => pod.uses(key),
            ClusterEvent::PodGone(gone) => !gone.claims.is_empty(),
            _ => false,
        }
    }
}

impl PreFilter for NodeVolumeLimits {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> PreFiltered {
        let storage = &snapshot.storage;
        if pod.claims.is_empty() || storage.csi_nodes.is_empty() {
            return PreFiltered::Skip;
        }
        let mut used = Used {
            wanted: volumes(pod, storage),
            limits: HashMap::new(),
            users: HashMap::new(),
        };
        let drivers: BTreeSet<String> = used.wanted.iter().map(|(one, _)| one.clone()).collect();
        for (name, limits) in &storage.csi_nodes {
            let Some(at) = snapshot.find(name) else {
                continue;
            };
            for driver in &drivers {
                if let Some(limit) = limits.get(driver) {
                    used.limits.insert((at, driver.clone()), *limit);
                }
            }
        }
        if used.limits.is_empty() {
            return PreFiltered::Skip;
        }
        let nodes: BTreeSet<NodeIndex> = used.limits.keys().map(|(at, _)| *at).collect();
        for at in nodes {
            for other in &snapshot.node(at).pods {
                if !other.claims.is_empty() {
                    used.count(at, volumes(other, storage), 1);
                }
            }
        }
        state.put(used);
        PreFiltered::All
    }

    fn adjust(&self, state: &mut CycleState, what: &Adjustment<'_>, amount: i64) {
        if what.other.claims.is_empty() {
            return;
        }
        if let Some(used) = state.get_mut::<Used>() {
            let ids = volumes(what.other, &what.snapshot.storage);
            used.count(what.node.at, ids, amount);
        }
    }
}

impl Filter for NodeVolumeLimits {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        let used = state.get::<Used>()?;
        let empty = BTreeMap::new();
        let here = used.users.get(&node.at).unwrap_or(&empty);
        let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
        for (driver, _) in used.wanted.iter().filter(|id| !here.contains_key(*id)) {
            *sums.entry(driver).or_default() += 1;
        }
        // Of a driver that gives nothing new, what is there may stay.
        for (driver, _) in here.keys() {
            if let Some(sum) = sums.get_mut(driver.as_str()) {
                *sum += 1;
            }
        }
        let full = sums.into_iter().any(|(driver, sum)| {
            let limit = used.limits.get(&(node.at, driver.to_owned()));
            limit.is_some_and(|limit| sum > *limit)
        });
        full.then(|| Rejection::resolvable("node(s) exceed max volume count"))
    }
}

/// Volumes that say their zone by labels, as those made by older provisioners do.
#[derive(Debug)]
pub struct VolumeZone;

/// Labels of zones and regions, and the newer name of each.
const LABELS: [(&str, &str); 4] = [
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    (
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
];

/// What volumes ask of a node: a label, its newer name, and the values that will do.
#[derive(Debug)]
struct Zones(Vec<(&'static str, &'static str, BTreeSet<String>)>);

fn zones(volume: &PersistentVolume, into: &mut Zones) {
    let Some(labels) = &volume.metadata.labels else {
        return;
    };
    for (label, newer) in LABELS {
        if let Some(value) = labels.get(label) {
            let values = value.split("__").map(str::to_owned).collect();
            into.0.push((label, newer, values));
        }
    }
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node { delta, .. } => delta.added || delta.labels,
            ClusterEvent::Volume | ClusterEvent::StorageClass => true,
            ClusterEvent::Claim(key) => pod.uses(key),
            _ => false,
        }
    }
}

impl PreFilter for VolumeZone {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> PreFiltered {
        let storage = &snapshot.storage;
        let mut all = Zones(Vec::new());
        for claim in &pod.claims {
            let key = ObjectKey::new(pod.key.namespace.clone(), claim.name.clone());
            let claim = storage.claims.get(&key);
            let name = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.as_ref());
            // What is missing or not bound is VolumeBinding's to tell.
            if let Some(volume) = name.and_then(|name| storage.volumes.get(name)) {
                zones(volume, &mut all);
            }
        }
        if all.0.is_empty() {
            return PreFiltered::Skip;
        }
        state.put(all);
        PreFiltered::All
    }
}

impl Filter for VolumeZone {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        let Zones(all) = state.get::<Zones>()?;
        // A cluster of one zone need not label its nodes.
        if LABELS.iter().all(|(label, _)| node.label(label).is_none()) {
            return None;
        }
        let matches = |(label, newer, values): &(&str, &str, BTreeSet<String>)| {
            let value = node.label(label).or_else(|| node.label(newer));
            value.is_some_and(|value| values.contains(value))
        };
        (!all.iter().all(matches))
            .then(|| Rejection::unresolvable("node(s) had no available volume zone"))
    }
}
