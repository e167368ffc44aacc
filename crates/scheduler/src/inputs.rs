//! What the scheduler reads beside pods and nodes, as far as the door serves it: disruption
//! budgets, claims, volumes and storage classes, and devices.
//!
//! A smaller door may lack these kinds; then no pod has budgets or claims, and nobody is asked
//! again and again for what is not there.

use std::sync::Arc;

use evenkeel_client::Kind;
use evenkeel_client::{Change, Changes, LoopContext, View, is_served};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, DeviceTaintRule, ResourceClaim, ResourceSlice};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use tokio::time::Instant;

use crate::core::Core;

/// One kind, if it is served.
struct Input<K>(Option<(Arc<View<K>>, Changes<K>)>);

impl<K: Kind> Input<K> {
    async fn of(context: &LoopContext) -> Self {
        if !is_served::<K>(&context.client).await {
            return Self(None);
        }
        let view = context.views.of::<K>();
        let changes = view.subscribe();
        Self(Some((view, changes)))
    }

    async fn synced(&self) {
        if let Some((view, _)) = &self.0 {
            view.synced().await;
        }
    }

    fn try_next(&mut self) -> Option<Change<K>> {
        self.0.as_mut()?.1.try_next()
    }

    async fn next(&mut self) -> Change<K> {
        match &mut self.0 {
            Some((_, changes)) => changes.next().await,
            None => std::future::pending().await,
        }
    }
}

/// All of them.
pub(crate) struct Inputs {
    budgets: Input<PodDisruptionBudget>,
    claims: Input<PersistentVolumeClaim>,
    volumes: Input<PersistentVolume>,
    classes: Input<StorageClass>,
    csi_nodes: Input<CSINode>,
    csi_drivers: Input<CSIDriver>,
    capacities: Input<CSIStorageCapacity>,
    stateful_sets: Input<StatefulSet>,
    replication_controllers: Input<ReplicationController>,
    device_classes: Input<DeviceClass>,
    taint_rules: Input<DeviceTaintRule>,
    slices: Input<ResourceSlice>,
    resource_claims: Input<ResourceClaim>,
    pod_groups: Input<PodGroup>,
}

impl Inputs {
    pub(crate) async fn of(context: &LoopContext) -> Self {
        Self {
            budgets: Input::of(context).await,
            claims: Input::of(context).await,
            volumes: Input::of(context).await,
            classes: Input::of(context).await,
            csi_nodes: Input::of(context).await,
            csi_drivers: Input::of(context).await,
            capacities: Input::of(context).await,
            stateful_sets: Input::of(context).await,
            replication_controllers: Input::of(context).await,
            device_classes: Input::of(context).await,
            taint_rules: Input::of(context).await,
            slices: Input::of(context).await,
            resource_claims: Input::of(context).await,
            pod_groups: Input::of(context).await,
        }
    }

    pub(crate) async fn synced(&mut self) {
        self.budgets.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.csi_nodes.synced().await;
        self.csi_drivers.synced().await;
        self.capacities.synced().await;
        self.device_classes.synced().await;
        self.taint_rules.synced().await;
        self.slices.synced().await;
        self.resource_claims.synced().await;
        self.pod_groups.synced().await;
    }

    /// Does the door serve groups of pods? They are behind a feature gate.
    pub(crate) fn serves_groups(&self) -> bool {
        self.pod_groups.0.is_some()
    }

    /// Takes in all that has changed.
    pub(crate) fn take_in(&mut self, core: &mut Core, now: Instant) {
        while let Some(change) = self.budgets.try_next() {
            core.budget(&change);
        }
        while let Some(change) = self.classes.try_next() {
            core.storage_class(&change, now);
        }
        while let Some(change) = self.volumes.try_next() {
            core.volume(&change, now);
        }
        while let Some(change) = self.claims.try_next() {
            core.claim(&change, now);
        }
        while let Some(change) = self.csi_nodes.try_next() {
            core.csi_node(&change, now);
        }
        while let Some(change) = self.csi_drivers.try_next() {
            core.csi_driver(&change, now);
        }
        while let Some(change) = self.capacities.try_next() {
            core.capacity(&change, now);
        }
        // These only shade preferences.
        while let Some(change) = self.stateful_sets.try_next() {
            core.stateful_set(&change);
        }
        while let Some(change) = self.replication_controllers.try_next() {
            core.replication_controller(&change);
        }
        while let Some(change) = self.taint_rules.try_next() {
            core.device_taint_rule(&change, now);
        }
        while let Some(change) = self.device_classes.try_next() {
            core.device_class(&change, now);
        }
        while let Some(change) = self.slices.try_next() {
            core.resource_slice(&change, now);
        }
        while let Some(change) = self.resource_claims.try_next() {
            core.resource_claim(&change, now);
        }
        while let Some(change) = self.pod_groups.try_next() {
            core.pod_group(&change, now);
        }
    }

    /// Waits for a change and takes it in. Safe to cancel.
    pub(crate) async fn next(&mut self, core: &mut Core) {
        tokio::select! {
            change = self.budgets.next() => core.budget(&change),
            change = self.classes.next() => core.storage_class(&change, Instant::now()),
            change = self.volumes.next() => core.volume(&change, Instant::now()),
            change = self.claims.next() => core.claim(&change, Instant::now()),
            change = self.csi_nodes.next() => core.csi_node(&change, Instant::now()),
            change = self.csi_drivers.next() => core.csi_driver(&change, Instant::now()),
            change = self.capacities.next() => core.capacity(&change, Instant::now()),
            change = self.stateful_sets.next() => core.stateful_set(&change),
            change = self.replication_controllers.next() => core.replication_controller(&change),
            change = self.device_classes.next() => core.device_class(&change, Instant::now()),
            change = self.taint_rules.next() => core.device_taint_rule(&change, Instant::now()),
            change = self.slices.next() => core.resource_slice(&change, Instant::now()),
            change = self.resource_claims.next() => {
                core.resource_claim(&change, Instant::now());
            }
            change = self.pod_groups.next() => core.pod_group(&change, Instant::now()),
        }
    }
}
