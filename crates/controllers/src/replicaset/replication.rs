//! A ReplicationController seen as a ReplicaSet, and a ReplicaSet's status given back to it: what
//! `pkg/controller/replication` of the reference does. The selector is a plain map, and counts of
//! terminating pods are not told.

use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{
    ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Replicated;

impl Replicated for ReplicationController {
    const LOOP: &'static str = "replicationcontroller";

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.clone().unwrap_or_default();
        Cow::Owned(ReplicaSet {
            metadata: self.metadata.clone(),
            spec: ReplicaSetSpec {
                replicas: spec.replicas,
                min_ready_seconds: spec.min_ready_seconds,
                selector: LabelSelector {
                    match_labels: spec.selector,
                    match_expressions: None,
                },
                template: spec.template,
            },
            status: self.status.as_ref().map(set_status),
        })
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self {
            status: Some(own_status(status)),
            ..self.clone()
        }
    }
}

fn set_status(status: &ReplicationControllerStatus) -> ReplicaSetStatus {
    let conditions = status.conditions.as_ref().map(|all| {
        let condition = |item: &ReplicationControllerCondition| ReplicaSetCondition {
            type_: Some(item.type_.clone()),
            status: Some(item.status.clone()),
            reason: item.reason.clone(),
            message: item.message.clone(),
            last_transition_time: item.last_transition_time.clone(),
        };
        all.iter().map(condition).collect()
    });
    ReplicaSetStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        terminating_replicas: None,
        observed_generation: status.observed_generation,
        conditions,
    }
}

fn own_status(status: ReplicaSetStatus) -> ReplicationControllerStatus {
    let conditions = status.conditions.map(|all| {
        let condition = |item: ReplicaSetCondition| ReplicationControllerCondition {
            type_: item.type_.unwrap_or_default(),
            status: item.status.unwrap_or_default(),
            reason: item.reason,
            message: item.message,
            last_transition_time: item.last_transition_time,
        };
        all.into_iter().map(condition).collect()
    });
    ReplicationControllerStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        conditions,
    }
}
