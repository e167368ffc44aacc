//! What this scheduler does not do yet is refused by name: a pod that asks for it stays pending
//! with a text that says so, and is never placed as if it had not asked.

use crate::framework::{ClusterEvent, CycleState, Plugin, PreFilter, PreFiltered, Rejection};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// The plugin.
#[derive(Debug)]
pub struct Unsupported;

fn asked(pod: &PodInfo) -> Option<String> {
    let spec = pod.spec()?;
    if spec.scheduling_group.is_some() {
        return Some(
            "spec.schedulingGroup is not supported by Evenkeel's scheduler yet".to_owned(),
        );
    }
    None
}

impl Plugin for Unsupported {
    fn name(&self) -> &'static str {
        "Unsupported"
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>) -> bool {
        // Only a change of the pod itself helps.
        false
    }
}

impl PreFilter for Unsupported {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> PreFiltered {
        match asked(pod) {
            Some(text) => PreFiltered::Reject(Rejection::unresolvable(text)),
            None => PreFiltered::Skip,
        }
    }
}
