//! Carries plans for slices and Endpoints out.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, errors};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::{BY_SERVICE, MANAGED_BY, MIRROR_LOOP, SLICE_LOOP, legacy, members, slices};
use crate::claim;
use crate::error::ReconcileError;

fn managed(
    view: &View<EndpointSlice>,
    key: &ObjectKey,
    writer: &str,
) -> BTreeMap<String, Vec<Arc<EndpointSlice>>> {
    let mut families: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for slice in view.by_index(BY_SERVICE, &key.to_string()) {
        let labels = claim::labels(&slice.metadata);
        let ours = labels.get(MANAGED_BY).map(String::as_str) == Some(writer);
        if ours && slice.metadata.deletion_timestamp.is_none() {
            families
                .entry(slice.address_type.clone())
                .or_default()
                .push(slice);
        }
    }
    families
}

async fn carry_out(
    context: &LoopContext,
    view: &View<EndpointSlice>,
    namespace: &str,
    plan: slices::Plan,
) -> Result<(), kube::Error> {
    let api: Api<EndpointSlice> = Api::namespaced(context.client.clone(), namespace);
    let api = &api;
    try_join_all(plan.update.iter().map(|slice| async move {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let written = api.replace(name, &PostParams::default(), slice).await?;
        view.note_written(written);
        Ok::<(), kube::Error>(())
    }))
    .await?;
    try_join_all(plan.create.iter().map(|slice| async move {
        match api.create(&PostParams::default(), slice).await {
            Ok(made) => {
                view.note_written(made);
                Ok(())
            }
            Err(error) if errors::is_namespace_terminating(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }))
    .await?;
    try_join_all(plan.delete.iter().map(|slice| async move {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: slice.metadata.uid.clone(),
            resource_version: None,
        });
        match api.delete(name, &params).await {
            Ok(answer) => view.note_delete_answer(slice, answer.left()),
            Err(error) if errors::is_not_found(&error) => view.note_deleted(slice),
            Err(error) => return Err(error),
        }
        Ok::<(), kube::Error>(())
    }))
    .await?;
    Ok(())
}

pub(super) struct Slices {
    pub(super) services: Arc<View<Service>>,
    pub(super) pods: Arc<View<Pod>>,
    pub(super) slices: Arc<View<EndpointSlice>>,
    pub(super) nodes: Arc<View<Node>>,
    pub(super) context: LoopContext,
}

impl Slices {
    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        // The slices of a service that is gone go by their owner reference.
        let Some(service) = self.services.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        if members::is_external_name(&service)
            || !members::has_selector(&service)
            || service.metadata.deletion_timestamp.is_some()
        {
            return Ok(Outcome::Done);
        }
        let mut selected = self.pods.in_namespace(&key.namespace);
        selected.retain(|pod| members::selects(&service, pod));
        let mut existing = managed(&self.slices, &key, SLICE_LOOP);
        let mut whole = slices::Plan::default();
        for family in slices::families(&service) {
            let groups =
                slices::of_pods(&service, &selected, family, |name| self.nodes.get("", name));
            let found = existing.remove(family).unwrap_or_default();
            let frame = slices::frame(&service, family);
            let plan = slices::plan(&frame, groups, &found, true);
            whole.create.extend(plan.create);
            whole.update.extend(plan.update);
            whole.delete.extend(plan.delete);
        }
        // Families the service no longer has.
        whole.delete.extend(existing.into_values().flatten());
        let written = carry_out(&self.context, &self.slices, &key.namespace, whole).await;
        if let Err(error) = &written
            && !errors::is_conflict(error)
        {
            let message = format!(
                "Error updating Endpoint Slices for Service {key}: {}",
                errors::message(error)
            );
            let recorder = &self.context.recorder;
            let reason = "FailedToUpdateEndpointSlices";
            recorder.tell(service.as_ref(), EventType::Warning, reason, message);
        }
        written?;
        Ok(Outcome::Done)
    }
}

pub(super) struct Legacy {
    pub(super) services: Arc<View<Service>>,
    pub(super) pods: Arc<View<Pod>>,
    pub(super) endpoints: Arc<View<Endpoints>>,
    pub(super) context: LoopContext,
}

impl Legacy {
    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let api: Api<Endpoints> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let existing = self.endpoints.get_key(&key);
        let Some(service) = self.services.get_key(&key) else {
            if let Some(existing) = existing.filter(|found| is_ours(found)) {
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: existing.metadata.uid.clone(),
                    resource_version: None,
                });
                match api.delete(&key.name, &params).await {
                    Ok(answer) => self.endpoints.note_delete_answer(&existing, answer.left()),
                    Err(error) if errors::is_not_found(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            return Ok(Outcome::Done);
        };
        if members::is_external_name(&service) || !members::has_selector(&service) {
            return Ok(Outcome::Done);
        }
        let mut selected = self.pods.in_namespace(&key.namespace);
        selected.retain(|pod| members::selects(&service, pod));
        let wanted = legacy::wanted(&service, &selected, existing.as_deref());
        let written = match existing {
            Some(existing) if legacy::is_same(&existing, &wanted) => return Ok(Outcome::Done),
            Some(_) => {
                api.replace(&key.name, &PostParams::default(), &wanted)
                    .await
            }
            None => api.create(&PostParams::default(), &wanted).await,
        };
        match written {
            Ok(written) => {
                self.endpoints.note_written(written);
                Ok(Outcome::Done)
            }
            Err(error) if errors::is_namespace_terminating(&error) => Ok(Outcome::Done),
            Err(error) => {
                if !errors::is_conflict(&error) && !errors::is_already_exists(&error) {
                    let verb = if wanted.metadata.uid.is_some() {
                        "update"
                    } else {
                        "create"
                    };
                    let reason = if verb == "update" {
                        "FailedToUpdateEndpoint"
                    } else {
                        "FailedToCreateEndpoint"
                    };
                    let message = format!(
                        "Failed to {verb} endpoint {key}: {}",
                        errors::message(&error)
                    );
                    let recorder = &self.context.recorder;
                    recorder.tell(service.as_ref(), EventType::Warning, reason, message);
                }
                Err(error.into())
            }
        }
    }
}

/// Written by this loop: what a user wrote outlives the service.
fn is_ours(endpoints: &Endpoints) -> bool {
    claim::labels(&endpoints.metadata).contains_key(legacy::MANAGED_BY)
}

pub(super) struct Mirror {
    pub(super) services: Arc<View<Service>>,
    pub(super) endpoints: Arc<View<Endpoints>>,
    pub(super) slices: Arc<View<EndpointSlice>>,
    pub(super) context: LoopContext,
}

impl Mirror {
    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let mut existing = managed(&self.slices, &key, MIRROR_LOOP);
        let service = self.services.get_key(&key);
        let service = service.filter(|service| !members::has_selector(service));
        let endpoints = self
            .endpoints
            .get_key(&key)
            .filter(|found| is_mirrored(found));
        let mut whole = slices::Plan::default();
        if let (Some(_), Some(endpoints)) = (service, endpoints) {
            self.tell_skipped(&endpoints);
            for family in ["IPv4", "IPv6"] {
                let groups = slices::of_endpoints(&endpoints, family);
                let found = existing.remove(family).unwrap_or_default();
                let frame = slices::mirror_frame(&endpoints, family);
                let plan = slices::plan(&frame, groups, &found, false);
                whole.create.extend(plan.create);
                whole.update.extend(plan.update);
                whole.delete.extend(plan.delete);
            }
        }
        whole.delete.extend(existing.into_values().flatten());
        carry_out(&self.context, &self.slices, &key.namespace, whole).await?;
        Ok(Outcome::Done)
    }
}

impl Mirror {
    /// What is not mirrored is told on the object itself.
    fn tell_skipped(&self, endpoints: &Endpoints) {
        let (invalid, skipped) = slices::skipped(endpoints);
        let tell = |reason: &str, text: String| {
            let recorder = &self.context.recorder;
            recorder.tell(endpoints, EventType::Warning, reason, text);
        };
        if invalid > 0 {
            let text =
                format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
            tell("InvalidIPAddress", text);
        }
        if skipped > invalid {
            let most = slices::MIRRORED;
            let text = format!(
                "A max of {most} addresses can be mirrored to EndpointSlices per Endpoints subset. \
                 {skipped} addresses were skipped"
            );
            tell("TooManyAddressesToMirror", text);
        }
    }
}

/// Neither excluded by label nor a leader election record.
fn is_mirrored(endpoints: &Endpoints) -> bool {
    let skip = claim::labels(&endpoints.metadata).get("endpointslice.kubernetes.io/skip-mirror");
    let annotations = endpoints.metadata.annotations.as_ref();
    let elects =
        annotations.is_some_and(|all| all.contains_key("control-plane.alpha.kubernetes.io/leader"));
    skip.map(String::as_str) != Some("true") && !elects
}
