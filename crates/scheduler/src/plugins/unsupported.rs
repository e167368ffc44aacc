//! What this scheduler does not do yet is refused by name: a pod that asks for it stays pending
//! with a text that says so, and is never placed as if it had not asked.

use crate::framework::{
    ClusterEvent, CycleState, Plugin, PostFilter, PostFiltered, PreFilter, PreFiltered, Rejection,
};
use crate::pod::PodInfo;
use crate::snapshot::{NodeIndex, Snapshot};
use crate::what_if::WhatIf;

/// The plugin.
#[derive(Debug)]
pub struct Unsupported;

fn asked(pod: &PodInfo) -> Option<String> {
    let spec = pod.spec()?;
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        return Some("spec.resourceClaims is not supported by Evenkeel's scheduler yet".to_owned());
    }
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

impl PostFilter for Unsupported {
    /// Stands where the reference's `DynamicResources` does, which says this of every pod without
    /// claims; tools that read the event's text know it.
    fn post_filter(&self, _: &mut WhatIf<'_>, _: &[NodeIndex], _: u64) -> PostFiltered {
        PostFiltered::Rejected {
            reason: "no new claims to deallocate".to_owned(),
            clear_nomination: false,
        }
    }
}
