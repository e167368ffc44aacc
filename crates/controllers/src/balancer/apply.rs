//! Carries the plan out: annotations first, so that a node that sees the address knows who
//! announces it, then the status.

use evenkeel_client::Api;
use evenkeel_client::{EventType, LoopContext, View, errors};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::kinds::AddressPool;
use super::plan::Write;
use super::pools::PoolWrite;

/// Writes to one service. A service that changed meanwhile is looked at anew.
pub(super) async fn write(
    context: &LoopContext,
    services: &View<Service>,
    write: &Write,
) -> Result<(), kube::Error> {
    let service = write.service.as_ref();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Service> = Api::namespaced(context.client.clone(), namespace);
    let params = PatchParams::default();
    let mut version = service.metadata.resource_version.clone();
    let known = |version: &Option<String>, rest: Value| {
        let mut patch = json!({"metadata": {
            "uid": service.metadata.uid, "resourceVersion": version,
        }});
        if let (Some(patch), Value::Object(rest)) = (patch.as_object_mut(), rest) {
            for (key, value) in rest {
                match (patch.get_mut(&key), value) {
                    (Some(Value::Object(into)), Value::Object(from)) => into.extend(from),
                    (_, value) => {
                        patch.insert(key, value);
                    }
                }
            }
        }
        patch
    };
    if !write.annotations.is_empty() {
        let patch = known(
            &version,
            json!({"metadata": {"annotations": write.annotations}}),
        );
        let written = api.patch(name, &params, &Patch::Merge(&patch)).await?;
        version.clone_from(&written.metadata.resource_version);
        services.note_written(written);
    }
    if let Some((ingress, conditions)) = &write.status {
        let ingress = if ingress.is_empty() {
            Value::Null
        } else {
            json!(ingress)
        };
        let conditions = if conditions.is_empty() {
            Value::Null
        } else {
            json!(conditions)
        };
        let status = json!({"loadBalancer": {"ingress": ingress}, "conditions": conditions});
        let patch = known(&version, json!({"status": status}));
        let written = api
            .patch_status(name, &params, &Patch::Merge(&patch))
            .await?;
        services.note_written(written);
    }
    for (kind, reason, message) in &write.events {
        context
            .recorder
            .tell(service, *kind, reason, message.clone());
    }
    Ok(())
}

/// Writes what a pool says of itself.
pub(super) async fn pool(
    context: &LoopContext,
    pools: &View<AddressPool>,
    write: &PoolWrite,
) -> Result<(), kube::Error> {
    let meta = &write.pool.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api: Api<AddressPool> = Api::namespaced(context.client.clone(), namespace);
    let patch = json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": write.status,
    });
    let name = meta.name.as_deref().unwrap_or_default();
    let params = PatchParams::default();
    let written = api
        .patch_status(name, &params, &Patch::Merge(&patch))
        .await?;
    pools.note_written(written);
    if let Some(text) = &write.warning {
        let recorder = &context.recorder;
        let reason = "InvalidAddresses";
        recorder.tell(&write.pool, EventType::Warning, reason, text.clone());
    }
    Ok(())
}

/// A definition that is not there is made; one that is there stays as it is.
pub(super) async fn define(context: &LoopContext) -> Result<(), kube::Error> {
    for definition in super::kinds::definitions() {
        let request =
            http::Request::post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(definition.to_string().into_bytes())
                .map_err(kube::Error::HttpError)?;
        match context.client.request::<Value>(request).await {
            Err(error) if !errors::is_already_exists(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
