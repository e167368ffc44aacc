//! The condition `PodGroupInitiallyScheduled` of pod groups.

use std::sync::Arc;

use evenkeel_client::{Api, Client, SharedClock, errors};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};

use crate::core::GroupOutcome;

const TYPE: &str = "PodGroupInitiallyScheduled";
/// Tries against concurrent writers.
const TRIES: usize = 5;

fn conditions(group: &PodGroup) -> &[Condition] {
    let status = group.status.as_ref();
    status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

/// The conditions with what is to be said; `None` when they say so already. A group that was
/// scheduled once stays so, whatever becomes of pods that come later.
pub(crate) fn wanted(
    group: &PodGroup,
    outcome: &GroupOutcome,
    clock: &SharedClock,
) -> Option<Vec<Condition>> {
    let status = if outcome.scheduled { "True" } else { "False" };
    let known = conditions(group).iter().find(|known| known.type_ == TYPE);
    if known.is_some_and(|known| {
        (known.status == "True" && !outcome.scheduled)
            || (known.status == status
                && known.reason == outcome.reason
                && known.message == outcome.message)
    }) {
        return None;
    }
    let since = known
        .filter(|known| known.status == status)
        .map(|known| known.last_transition_time.clone());
    let condition = Condition {
        type_: TYPE.to_owned(),
        status: status.to_owned(),
        reason: outcome.reason.to_owned(),
        message: outcome.message.clone(),
        observed_generation: group.metadata.generation,
        last_transition_time: since.unwrap_or_else(|| Time(clock.now())),
    };
    let mut all = conditions(group).to_vec();
    match all.iter_mut().find(|known| known.type_ == TYPE) {
        Some(known) => *known = condition,
        None => all.push(condition),
    }
    Some(all)
}

/// Writes the condition, unless the group is gone or says so already: the patch holds only at the
/// revision it was made from.
pub(crate) async fn write(
    client: Client,
    clock: SharedClock,
    mut group: Arc<PodGroup>,
    outcome: GroupOutcome,
) {
    let namespace = group.metadata.namespace.clone().unwrap_or_default();
    let name = group.metadata.name.clone().unwrap_or_default();
    let uid = group.metadata.uid.clone();
    let groups: Api<PodGroup> = Api::namespaced(client, &namespace);
    for _ in 0..TRIES {
        let Some(conditions) = wanted(&group, &outcome, &clock) else {
            return;
        };
        let patch = serde_json::json!({
            "metadata": {"uid": uid, "resourceVersion": group.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let params = PatchParams::default();
        match groups
            .patch_status(&name, &params, &Patch::Merge(&patch))
            .await
        {
            Ok(_) => return,
            Err(error) if errors::is_conflict(&error) => {}
            Err(error) => {
                if !errors::is_not_found(&error) {
                    let error = errors::message(&error);
                    tracing::warn!(group = name, error, "condition of a pod group not written");
                }
                return;
            }
        }
        match groups.get(&name).await {
            Ok(latest) if latest.metadata.uid == uid => group = Arc::new(latest),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_client::testing::FakeClock;
    use serde_json::json;

    use super::*;

    fn group(conditions: serde_json::Value) -> PodGroup {
        serde_json::from_value(json!({
            "metadata": {"name": "g"},
            "spec": {"schedulingPolicy": {"gang": {"minCount": 2}}},
            "status": {"conditions": conditions},
        }))
        .expect("a group")
    }

    fn outcome(scheduled: bool, message: &str) -> GroupOutcome {
        GroupOutcome {
            scheduled,
            reason: if scheduled {
                "Scheduled"
            } else {
                "Unschedulable"
            },
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_is_said_once_stays_and_what_is_scheduled_too() {
        let clock: SharedClock = FakeClock::shared();
        let said = |group: &PodGroup, outcome: &GroupOutcome| wanted(group, outcome, &clock);
        let other = json!({"type": "Other", "status": "True", "reason": "r", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let fresh = group(json!([other]));
        let waits = said(&fresh, &outcome(false, "too few")).expect("news");
        assert_eq!(waits.len(), 2);
        assert_eq!(waits[1].type_, TYPE);
        assert_eq!(
            (waits[1].status.as_str(), waits[1].reason.as_str()),
            ("False", "Unschedulable")
        );
        let waiting = group(json!(waits));
        assert!(said(&waiting, &outcome(false, "too few")).is_none());
        let again = said(&waiting, &outcome(false, "fewer still")).expect("news");
        let known = waiting
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let since = &known.expect("conditions")[1].last_transition_time;
        assert_eq!(again[1].last_transition_time, *since);
        let done = said(&waiting, &outcome(true, "")).expect("news");
        assert_eq!(done[1].status, "True");
        // Pods that come later and find no room take nothing back.
        let done = group(json!(done));
        assert!(said(&done, &outcome(false, "one more")).is_none());
    }
}
