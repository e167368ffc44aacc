//! Carrying out what a plan asks for. Each operation is small, idempotent and ends in an
//! [`Outcome`]; deciding what that means is the worker's and the plan's part.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_runtime::{PortMapping, RuntimeError, SandboxConfig};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::Value;

use super::model::{PodModel, Role};
use super::pull::Pulled;
use super::start::StartFailure;
use crate::context::Context;
use crate::events::Kind;
use crate::spec::container::pod_labels;
use crate::spec::{dns, hosts, resources};
use crate::volume::{self, PodVolumes, VolumeError, blocking, pod_dir, release};

/// What came of an operation.
#[derive(Debug)]
pub enum Outcome {
    /// Volumes are there, or are not.
    VolumesPrepared(Result<PodVolumes, VolumeError>),
    /// Contents were brought up to date, or were not.
    VolumesRefreshed(Result<PodVolumes, VolumeError>),
    /// Volumes were taken down.
    VolumesReleased(Result<(), String>),
    /// A sandbox was made.
    SandboxCreated(Result<(), RuntimeError>),
    /// A sandbox was stopped.
    SandboxStopped(String, Result<(), RuntimeError>),
    /// The image of a container.
    Image(String, Pulled),
    /// A container was started; the time is the end of the instance before.
    Started(String, Option<Timestamp>, Result<(), StartFailure>),
    /// A container was ended.
    Killed(String, Result<(), String>),
    /// A container was removed.
    Removed(String, Result<(), RuntimeError>),
    /// Limits were changed, of the containers of these ids and of the pod; or were not.
    Resized(Vec<String>, Result<(), String>),
    /// The status was written.
    StatusWritten(Box<PodStatus>, Result<(), kube::Error>),
    /// The pod was deleted from the API.
    ApiDeleted(Result<(), kube::Error>),
    /// All that was left was removed.
    CleanedUp(Result<(), String>),
    /// It was given up because the pod ends.
    Cancelled,
}

/// Creates the pod's sandbox.
pub async fn create_sandbox(
    context: &Context,
    model: &PodModel,
    attempt: u32,
) -> Result<(), RuntimeError> {
    let config = sandbox_config(context, model, attempt)?;
    let id = context.config.runtime.run_sandbox(&config).await?;
    context.view.refresh_sandbox(&id).await
}

fn sandbox_config(
    context: &Context,
    model: &PodModel,
    attempt: u32,
) -> Result<SandboxConfig, RuntimeError> {
    let settings = &context.config;
    let spec = model.spec();
    if spec.and_then(|spec| spec.host_users) == Some(false) {
        return Err(RuntimeError::Unsupported(
            "hostUsers: false (user namespaces)".to_owned(),
        ));
    }
    if let Some(class) = spec.and_then(|spec| spec.runtime_class_name.as_deref()) {
        return Err(RuntimeError::Unsupported(format!(
            "runtimeClassName {class}"
        )));
    }
    let hostname =
        hosts::uts_name(model, &settings.cluster_domain).map_err(RuntimeError::Invalid)?;
    let mut port_mappings = Vec::new();
    for container in model.with_role(&[Role::App, Role::Sidecar]) {
        for port in container.spec.ports.iter().flatten() {
            let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
            let (Some(inside), Some(outside)) =
                (number(port.container_port), port.host_port.and_then(number))
            else {
                continue;
            };
            port_mappings.push(PortMapping {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                container_port: inside,
                host_port: outside,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            });
        }
    }
    Ok(SandboxConfig {
        pod: evenkeel_runtime::PodRef {
            namespace: model.namespace().to_owned(),
            name: model.name().to_owned(),
            uid: model.uid().to_owned(),
            attempt,
        },
        hostname: if model.host_network() {
            String::new()
        } else {
            hostname
        },
        log_directory: context.log_dir(model.namespace(), model.name(), model.uid()),
        dns: dns::resolve(model, &context.dns),
        host_network: model.host_network(),
        host_pid: spec.and_then(|spec| spec.host_pid).unwrap_or(false),
        host_ipc: spec.and_then(|spec| spec.host_ipc).unwrap_or(false),
        share_process_namespace: spec
            .and_then(|spec| spec.share_process_namespace)
            .unwrap_or(false),
        sysctls: spec.map(crate::sysctl::of_pod).unwrap_or_default(),
        resources: resources::pod_resources(model),
        port_mappings: if model.host_network() {
            Vec::new()
        } else {
            port_mappings
        },
        labels: pod_labels(model),
        annotations: model.pod.metadata.annotations.clone().unwrap_or_default(),
    })
}

/// Stops a sandbox.
pub async fn stop_sandbox(context: &Context, id: &str) -> Result<(), RuntimeError> {
    let stopped = match context.config.runtime.stop_sandbox(id).await {
        Err(RuntimeError::NotFound { .. }) => Ok(()),
        other => other,
    };
    context.view.refresh_sandbox(id).await?;
    stopped
}

/// Makes or refreshes the volumes.
pub async fn prepare_volumes(
    context: &Context,
    model: &PodModel,
    age: SignedDuration,
) -> Result<PodVolumes, VolumeError> {
    let facts = context.facts(context.pod_ips(model));
    volume::prepare(&context.gatherer, model, &facts, age).await
}

/// Takes the volumes down; what containers left (termination messages) stays until cleanup.
pub async fn release_volumes(context: &Context, uid: &str) -> Result<(), String> {
    context.gatherer.forget(uid);
    let dir = pod_dir(&context.config.root, uid);
    let (subpaths, volumes) = (dir.join("volume-subpaths"), dir.join("volumes"));
    blocking(move || release::remove_pod_dir(&subpaths)).await?;
    context.gatherer.csi.tear_down(uid).await?;
    blocking(move || release::remove_pod_dir(&volumes)).await
}

/// Removes a container.
pub async fn remove_container(context: &Context, id: &str) -> Result<(), RuntimeError> {
    let log = context.view.log_path(id);
    match context.config.runtime.remove_container(id).await {
        Ok(()) | Err(RuntimeError::NotFound { .. }) => {
            context.view.forget_container(id);
            if let Some(log) = log {
                crate::logs::remove(log).await;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Writes a status patch.
pub async fn write_status(
    context: &Context,
    model: &PodModel,
    patch: &Value,
) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(context.config.client.clone(), model.namespace());
    let patch = Patch::Strategic(patch);
    api.patch_status(model.name(), &PatchParams::default(), &patch)
        .await
        .map(|_| ())
}

/// Deletes the pod from the API, if it is still the same one.
pub async fn delete_from_api(context: &Context, model: &PodModel) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(context.config.client.clone(), model.namespace());
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(model.uid().to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(model.name(), &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what is left of a pod: sandboxes with their containers, logs, directories.
pub async fn clean_up(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), String> {
    let observed = context.view.observed(uid);
    let removed = join_all(observed.sandboxes.iter().map(|sandbox| {
        let sandbox = Arc::clone(sandbox);
        async move {
            match context.config.runtime.remove_sandbox(&sandbox.id).await {
                Ok(()) | Err(RuntimeError::NotFound { .. }) => {
                    context.view.forget_sandbox(&sandbox.id);
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            }
        }
    }))
    .await;
    removed.into_iter().collect::<Result<(), String>>()?;
    // Containers whose sandbox is not known any more.
    for container in &context.view.observed(uid).containers {
        remove_container(context, &container.id)
            .await
            .map_err(|error| error.to_string())?;
    }
    release_volumes(context, uid).await?;
    let dir = pod_dir(&context.config.root, uid);
    let logs = context.log_dir(namespace, name, uid);
    blocking(move || {
        release::remove_pod_dir(&dir)?;
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("{}: {error}", logs.display()))
            }
            _ => Ok(()),
        }
    })
    .await
}

/// Tells of a volume that can't be made.
pub fn report_volume_failure(context: &Context, model: &PodModel, error: &VolumeError) {
    context
        .recorder
        .pod(model, Kind::Warning, "FailedMount", error.to_string());
}
