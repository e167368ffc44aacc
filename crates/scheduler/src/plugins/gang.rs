//! `GangScheduling`: the pods of a gang are placed together or not at all (KEP-4671).
//!
//! Before the queue they wait until there are enough of them. From there on a group is tried as one
//! ([`crate::core`]): since nothing of a gang is kept before all of it fits, no two gangs can hold
//! half of what the other one needs, and nobody has to wait in `Permit`.

use crate::framework::{ClusterEvent, Plugin, PreEnqueue, Rejection};
use crate::groups::min_count;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// The plugin.
#[derive(Debug)]
pub struct GangScheduling;

/// Its name, by which a profile is asked whether gangs are held together.
pub const NAME: &str = "GangScheduling";

/// Why a pod must wait for others of its group before anything is tried.
#[must_use]
pub fn waits(pod: &PodInfo, snapshot: &Snapshot) -> Option<String> {
    let groups = &snapshot.groups;
    let key = pod.group.as_ref().filter(|_| groups.is_served())?;
    let Some(group) = groups.get(key) else {
        return Some(format!(
            "waiting for pods's pod group \"{}\" to appear in scheduling queue",
            key.name
        ));
    };
    let enough = min_count(group).is_none_or(|min| groups.count(key) >= min);
    (!enough)
        .then(|| "waiting for minCount pods from a gang to appear in scheduling queue".to_owned())
}

impl Plugin for GangScheduling {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::PodGroup(key) if pod.group.as_ref() == Some(*key))
    }
}

impl PreEnqueue for GangScheduling {
    fn pre_enqueue(&self, pod: &PodInfo, snapshot: &Snapshot) -> Option<Rejection> {
        waits(pod, snapshot).map(Rejection::unresolvable)
    }
}
