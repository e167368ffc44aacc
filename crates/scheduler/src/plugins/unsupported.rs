//! What this scheduler does not do yet is refused by name: a pod that asks for it stays pending
//! with a text that says so, and is never placed as if it had not asked.

use crate::framework::{ClusterEvent, CycleState, Plugin, PreFilter, PreFiltered, Rejection};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// The plugin.
#[derive(Debug)]
pub struct Unsupported;

fn asked(pod: &PodInfo, snapshot: &Snapshot) -> Option<String> {
    if pod.group.is_some() && !snapshot.groups.is_served() {
        return Some(
            "spec.schedulingGroup needs pod groups, which are not served: the feature gate \
             GenericWorkload is closed (--feature-gates GenericWorkload=true opens it)"
                .to_owned(),
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
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot) -> PreFiltered {
        match asked(pod, snapshot) {
            Some(text) => PreFiltered::Reject(Rejection::unresolvable(text)),
            None => PreFiltered::Skip,
        }
    }
}
