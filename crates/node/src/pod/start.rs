//! Creating and starting one container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_runtime::{ImageMount, ImageStatus, Mount};
use futures::future::try_join_all;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::VolumeMount;
use tokio_util::sync::CancellationToken;

use super::hooks;
use super::model::{ContainerModel, PodModel};
use super::pull::{Needed, error_chain};
use crate::cdi;
use crate::context::Context;
use crate::devices::ledger::Given;
use crate::events::Kind;
use crate::spec::container::{Prepared, config, propagation};
use crate::spec::env::{Sources, environment, references};
use crate::spec::expand::expand;
use crate::spec::hosts::{host_name, managed_hosts, node_hosts};
use crate::spec::security::security;
use crate::volume::payload::api_text;
use crate::volume::{PodVolumes, blocking, pod_dir, subpath};

/// Where a container writes its termination message unless it says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// A postStart hook has no limit of its own; one that hangs this long is given up.
const POST_START_LIMIT: Duration = Duration::from_secs(3600);
/// Reason of a container whose postStart hook failed.
const POST_START_FAILED: &str = "PostStartHookError";

/// A start that did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// `CreateContainerConfigError`, `CreateContainerError`, `RunContainerError` …
    pub reason: &'static str,
    /// What went wrong.
    pub message: String,
}

/// What a start needs beside the container.
#[derive(Debug)]
pub struct Start {
    /// Restart count.
    pub attempt: u32,
    /// Where it runs.
    pub sandbox_id: String,
    /// Its images.
    pub images: Needed,
    /// The pod's volumes.
    pub volumes: PodVolumes,
    /// Ends a postStart hook when the pod ends.
    pub stop: CancellationToken,
}

/// Creates and starts a container and runs its postStart hook.
///
/// # Errors
/// With the reason that the container's waiting state shows.
pub async fn start(
    context: &Context,
    model: &PodModel,
    container: &ContainerModel,
    start: Start,
) -> Result<(), StartFailure> {
    let result = try_start(context, model, container, start).await;
    // Of a hook that failed has been told already, without its words.
    if let Err(failure) = &result
        && failure.reason != POST_START_FAILED
    {
        let text = format!("Error: {}", failure.message);
        context
            .recorder
            .container(model, container, Kind::Warning, "Failed", text);
    }
    result
}

async fn try_start(
    context: &Context,
    model: &PodModel,
    container: &ContainerModel,
    start: Start,
) -> Result<(), StartFailure> {
    let runtime = &context.config.runtime;
    let config_error = |message: String| StartFailure {
        reason: "CreateContainerConfigError",
        message,
    };
    if let Some(action) = container.unsupported_rule() {
        return Err(config_error(format!(
            "restartPolicyRules action {action} is not supported by this node"
        )));
    }
    if let Err(why) = context.dra.prepare(model.uid(), &model.pod).await {
        let text = format!("Failed to prepare dynamic resources: {why}");
        let reason = "FailedPrepareDynamicResources";
        context
            .recorder
            .pod(model, Kind::Warning, reason, text.clone());
        return Err(config_error(text));
    }
    let mut given = context
        .devices
        .start(model.uid(), &model.pod, &container.spec.name)
        .await
        .map_err(config_error)?;
    let used = context.dra.of(model.uid(), &model.pod, &container.spec);
    let names: Vec<String> = used.into_iter().flat_map(|device| device.cdi).collect();
    if !names.is_empty() {
        let mut prepared = Given::default();
        prepared.edit(cdi::resolve(&names).map_err(config_error)?);
        given.push(prepared);
    }
    let pod_ips = context.pod_ips(model);
    let facts = context.facts(pod_ips.clone());
    let links = model
        .spec()
        .and_then(|spec| spec.enable_service_links)
        .unwrap_or(true);
    let (sources, services) = tokio::join!(
        sources(context, model, container),
        context.services.variables(model.namespace(), links),
    );
    let sources = sources.map_err(config_error)?;
    let env = environment(model, &container.spec, &facts, &sources, &services)
        .map_err(|error| config_error(error.to_string()))?;
    let seccomp_root = context.config.root.join("seccomp");
    let security = security(model, &container.spec, &start.images.own, &seccomp_root)
        .map_err(|error| config_error(error.to_string()))?;
    let files = prepare_files(context, model, container, &start, &env, pod_ips)
        .await
        .map_err(config_error)?;
    let pid_of = match &container.target {
        None => None,
        Some(target) => {
            let observed = context.view.observed(model.uid());
            let found = observed.running(target).map(|status| status.id.clone());
            // In kubelet's words.
            Some(found.ok_or_else(|| StartFailure {
                reason: "CreateContainerError",
                message: format!("unable to find target container {target}"),
            })?)
        }
    };
    let prepared = Prepared {
        image: start.images.own,
        env,
        mounts: files.mounts,
        security,
        message_file: files.message_file,
        memory_capacity: context.machine.memory,
        oom_floor: context.machine.oom_floor,
        pid_of,
    };
    let mut config = config(model, container, start.attempt, prepared);
    for given in given {
        // What the pod says itself holds.
        for (name, value) in given.env {
            if !config.env.iter().any(|(known, _)| *known == name) {
                config.env.push((name, value));
            }
        }
        let mounts = given.mounts.into_iter();
        config
            .mounts
            .extend(mounts.map(|(inside, outside, read_only)| Mount {
                container_path: inside.into(),
                host_path: outside.into(),
                readonly: read_only,
                ..Mount::default()
            }));
        let devices = given.devices.into_iter();
        config.devices.extend(
            devices.map(|(inside, outside, rights)| (outside.into(), inside.into(), rights)),
        );
        config.security.supplemental_groups.extend(given.groups);
        for (name, value) in given.annotations {
            config.annotations.entry(name).or_insert(value);
        }
    }
    let id = runtime
        .create_container(&start.sandbox_id, &config)
        .await
        .map_err(|error| StartFailure {
            reason: "CreateContainerError",
            message: error_chain(&error),
        })?;
    context.recorder.container(
        model,
        container,
        Kind::Normal,
        "Created",
        "Container created",
    );
    let started = runtime.start_container(&id).await;
    let refreshed = context.view.refresh_container(&id).await;
    started.map_err(|error| StartFailure {
        reason: "RunContainerError",
        message: error_chain(&error),
    })?;
    context.recorder.container(
        model,
        container,
        Kind::Normal,
        "Started",
        "Container started",
    );
    refreshed.map_err(|error| StartFailure {
        reason: "RunContainerError",
        message: error_chain(&error),
    })?;
    post_start(context, model, container, &id, &start.stop).await
}

async fn post_start(
    context: &Context,
    model: &PodModel,
    container: &ContainerModel,
    id: &str,
    stop: &CancellationToken,
) -> Result<(), StartFailure> {
    let handler = container
        .spec
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.post_start.as_ref());
    let Some(handler) = handler else {
        return Ok(());
    };
    let run = hooks::run(context, model, container, id, handler, POST_START_LIMIT);
    let outcome = tokio::select! {
        outcome = run => outcome,
        () = stop.cancelled() => return Ok(()),
    };
    let Err(error) = outcome else { return Ok(()) };
    // An event never says why: what the hook was told may be a secret.
    context.recorder.container(
        model,
        container,
        Kind::Warning,
        "FailedPostStartHook",
        "PostStartHook failed",
    );
    let killing = "FailedPostStartHook".to_owned();
    context
        .recorder
        .container(model, container, Kind::Normal, "Killing", killing);
    let grace = Duration::from_secs(u64::try_from(model.grace_seconds()).unwrap_or(0));
    let stopped = context.config.runtime.stop_container(id, grace).await;
    let refreshed = context.view.refresh_container(id).await;
    let message = match stopped.and(refreshed) {
        Ok(()) => format!("PostStartHook failed: {error}"),
        Err(more) => format!("PostStartHook failed: {error}; {more}"),
    };
    Err(StartFailure {
        reason: POST_START_FAILED,
        message,
    })
}

async fn sources(
    context: &Context,
    model: &PodModel,
    container: &ContainerModel,
) -> Result<Sources, String> {
    let (maps, secrets) = references(&container.spec);
    if maps.is_empty() && secrets.is_empty() {
        return Ok(Sources::default());
    }
    let namespace = model.namespace();
    let age = SignedDuration::ZERO;
    let maps = try_join_all(maps.into_iter().map(|name| async move {
        let found = context.objects.config_map(namespace, &name, age).await?;
        Ok::<_, kube::Error>((name, found.map(|map| (*map).clone())))
    }));
    let secrets = try_join_all(secrets.into_iter().map(|name| async move {
        let found = context.objects.secret(namespace, &name, age).await?;
        Ok::<_, kube::Error>((name, found.map(|secret| (*secret).clone())))
    }));
    let (maps, secrets) = tokio::try_join!(maps, secrets).map_err(|error| api_text(&error))?;
    Ok(Sources {
        config_maps: maps.into_iter().collect(),
        secrets: secrets.into_iter().collect(),
    })
}

struct Files {
    mounts: Vec<Mount>,
    message_file: Option<PathBuf>,
}

async fn prepare_files(
    context: &Context,
    model: &PodModel,
    container: &ContainerModel,
    start: &Start,
    env: &[(String, String)],
    pod_ips: Vec<String>,
) -> Result<Files, String> {
    let dir = pod_dir(&context.config.root, model.uid());
    let spec = &container.spec;
    if let Some(device) = spec.volume_devices.iter().flatten().next() {
        return Err(format!(
            "volumeDevices ({}) are not supported by this node",
            device.name
        ));
    }
    let mounts = spec.volume_mounts.clone().unwrap_or_default();
    let volumes = start.volumes.clone();
    let images = start.images.volumes.clone();
    let vars: BTreeMap<String, String> = env.iter().cloned().collect();
    let hosts = if mounts
        .iter()
        .any(|mount| mount.mount_path.trim_end_matches('/') == "/etc/hosts")
    {
        None
    } else {
        Some(hosts_text(context, model, &pod_ips))
    };
    let message_path = spec
        .termination_message_path
        .clone()
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| TERMINATION_LOG.to_owned());
    let name = spec.name.clone();
    let serial = start.attempt;
    blocking(move || {
        let mut out = Vec::new();
        for (index, mount) in mounts.iter().enumerate() {
            out.push(volume_mount(
                &dir,
                &name,
                index,
                mount,
                (&volumes, &images),
                &vars,
            )?);
        }
        if let Some(text) = hosts {
            let file = dir.join("etc-hosts");
            write_file(&file, text.as_bytes(), 0o644)?;
            out.push(Mount {
                container_path: "/etc/hosts".into(),
                host_path: file,
                ..Mount::default()
            });
        }
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let file = dir
            .join("containers")
            .join(&name)
            .join(format!("{serial}-{}", &unique[..8]));
        write_file(&file, b"", 0o666)?;
        out.push(Mount {
            container_path: message_path.into(),
            host_path: file.clone(),
            ..Mount::default()
        });
        Ok(Files {
            mounts: out,
            message_file: Some(file),
        })
    })
    .await
}

fn hosts_text(context: &Context, model: &PodModel, pod_ips: &[String]) -> String {
    let aliases = model
        .spec()
        .and_then(|spec| spec.host_aliases.as_deref())
        .unwrap_or_default();
    if model.host_network() {
        let host = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        return node_hosts(&host, aliases);
    }
    let (name, domain) = host_name(model, &context.config.cluster_domain);
    managed_hosts(pod_ips, &name, &domain, aliases)
}

fn volume_mount(
    dir: &Path,
    container: &str,
    index: usize,
    mount: &VolumeMount,
    (volumes, images): (&PodVolumes, &BTreeMap<String, ImageStatus>),
    vars: &BTreeMap<String, String>,
) -> Result<Mount, String> {
    if mount
        .bind_mount_options
        .as_ref()
        .is_some_and(|options| !options.is_empty())
    {
        return Err(format!(
            "bindMountOptions of volume mount {} are not supported by this node",
            mount.name
        ));
    }
    if mount.recursive_read_only.as_deref() == Some("Enabled") {
        return Err(format!(
            "recursiveReadOnly of volume mount {} is not supported by this node",
            mount.name
        ));
    }
    let sub = match mount
        .sub_path_expr
        .as_deref()
        .filter(|text| !text.is_empty())
    {
        Some(text) => {
            let unknown = std::cell::RefCell::new(None);
            let text = expand(text, |name| {
                let value = vars.get(name).cloned();
                if value.is_none() {
                    *unknown.borrow_mut() = Some(name.to_owned());
                }
                value
            });
            if let Some(name) = unknown.into_inner() {
                return Err(format!("missing value for \"{name}\""));
            }
            text
        }
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    if let Some(image) = images.get(&mount.name) {
        return Ok(Mount {
            container_path: PathBuf::from(&mount.mount_path),
            image: Some(ImageMount {
                image: image.id.clone(),
                sub_path: sub,
            }),
            readonly: true,
            ..Mount::default()
        });
    }
    let volume = volumes.get(&mount.name).ok_or_else(|| {
        format!(
            "cannot find volume \"{}\" to mount into container \"{container}\"",
            mount.name
        )
    })?;
    let host_path = if sub.is_empty() {
        volume.path.clone()
    } else {
        let target = dir
            .join("volume-subpaths")
            .join(&mount.name)
            .join(container)
            .join(index.to_string());
        subpath::bind(&volume.path, &sub, &target)
            .map_err(|error| format!("failed to prepare subPath for volumeMount \"{}\" of container \"{container}\": {error}", mount.name))?;
        target
    };
    Ok(Mount {
        container_path: PathBuf::from(&mount.mount_path),
        host_path,
        readonly: volume.read_only || mount.read_only.unwrap_or(false),
        propagation: propagation(mount),
        image: None,
    })
}

fn write_file(path: &Path, data: &[u8], mode: u32) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(text)?;
    }
    std::fs::write(path, data).map_err(text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(text)
}
